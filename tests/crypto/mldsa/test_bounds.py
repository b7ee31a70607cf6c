"""The worst cases hold, are what the documentation says, and would be noticed if they did not."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from qnet_actors.crypto.mldsa import bounds
from qnet_actors.kernels import mldsa, ring

DOCUMENT = Path(__file__).parents[3] / "docs" / "concepts" / "verification.md"


def test_every_step_fits():
    cases = bounds.worst_cases()
    assert max(cases.values()) * ring.Q < 2**31
    # Known to be about this; a change of the kernels that moves them is to be looked at.
    assert {name: round(float(case), 1) for name, case in cases.items()} == {
        "NTT(z)": 18.9,
        "NTT(c)": 17.9,
        "NTT(t1 2^13)": 32.9,
        "sum of products": 0.7,
        "inverse NTT": 163.7,
    }


def test_document_has_the_same_numbers():
    text = DOCUMENT.read_text()
    for name, case in bounds.worst_cases().items():
        assert f"| {name} | {float(case):.1f} q |" in text


def test_larger_input_is_noticed():
    with pytest.raises(bounds.BoundExceeded):
        bounds.worst_cases(gamma1=1 << 28)


def test_another_layer_is_noticed():
    w = ring.inverse_ntt(bounds.polynomial(-ring.Q // 2, ring.Q // 2))
    with pytest.raises(bounds.BoundExceeded, match="int32"):
        ring.inverse_ntt(w)


def test_a_wrong_quotient_is_noticed(monkeypatch):
    monkeypatch.setattr(ring, "quotient", lambda factor: factor / ring.Q * 1.001)
    with pytest.raises(bounds.BoundExceeded):
        bounds.worst_cases()


def test_remainder_bound_holds_for_float32_itself():
    # The bound of one multiplication against the arithmetic of numpy, at the largest operands.
    random = np.random.default_rng(5)
    b = np.concatenate([random.integers(-(2**31), 2**31, 200_000), [2**31 - 1, -(2**31), 0]])
    for factor in (ring.Q // 2, -(ring.Q // 2), ring.ZETAS[1], ring.ZETAS[255], 1, 2**20):
        product = b.astype(np.float32) * np.float32(ring.quotient(factor))
        remainder = b * factor - np.rint(product).astype(np.int64) * ring.Q
        limit = bounds._remainder(Fraction(2**31), ring.quotient(factor), factor).high
        assert np.abs(remainder).max() <= limit


def test_kernel_stays_within(published):
    # What the kernel computes from published signatures lies within, and not absurdly far.
    hats = np.zeros(256, dtype=np.int32)
    seen = 0
    for record in published:
        signature = np.frombuffer(record.signature, dtype=np.uint8)
        for s in range(mldsa.L):
            start = mldsa.CHALLENGE_BYTES + mldsa.Z_POLY_BYTES * s
            assert mldsa.ntt_response(signature, start, hats, 0, signature, 0, 0)
            seen = max(seen, int(np.abs(hats).max()))
    case = bounds.worst_cases()["NTT(z)"] * ring.Q
    assert case / 20 < seen < case
