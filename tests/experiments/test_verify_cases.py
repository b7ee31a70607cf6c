"""The kernel, the reference and the providers on generated cases, good, faulty and at the edges."""

from __future__ import annotations

import random
from itertools import islice

import numpy as np
import pytest

from qnet_actors.crypto import BatchVerifier, Provider, provider
from qnet_actors.crypto.mldsa import reference
from qnet_actors.crypto.mldsa.verifier import MlDsaVerifier
from qnet_actors.experiments import verify_cases
from qnet_actors.experiments.verify_cases import NORM_MAX, cases, compare, free_signature
from qnet_actors.wire.codes import QnetError


def providers_present() -> list[Provider]:
    found = [provider("openssl")]
    try:
        found.append(provider("liboqs"))
    except QnetError:
        return found
    return found


def test_everybody_agrees():
    present = providers_present()
    verifier = BatchVerifier(present[0], kernel=MlDsaVerifier(cache_mb=4))
    result = compare(
        verifier, present, cases(present[-1], seed=11, base=120), 2_500, reference_every=50
    )
    assert result.disagreements == []
    assert sum(result.cases.values()) == 2_500
    # Both verdicts are well represented, and what is as it was is accepted.
    for kind in ("free, as it was", "real, as it was"):
        assert result.accepted[kind] == result.cases[kind] > 20
    assert sum(result.accepted.values()) < 1_200
    assert len(result.cases) == 16


def test_a_disagreement_is_seen():
    class Gullible(MlDsaVerifier):
        def verify_columns(self, *arguments):
            return np.ones_like(super().verify_columns(*arguments))

    openssl = provider("openssl")
    verifier = BatchVerifier(openssl, kernel=Gullible(cache_mb=0))
    result = compare(verifier, [openssl], cases(openssl, seed=3, base=8), 64)
    assert result.disagreements
    case, opinions = result.disagreements[0]
    assert opinions["kernel"]
    assert not opinions["openssl"]
    assert len(case.public_key) == reference.PUBLIC_KEY_BYTES


def test_cases_are_the_same_for_a_seed(monkeypatch):
    # Signatures are hedged; all else follows from the seed.
    def kinds(seed: int) -> list[tuple[str, bytes]]:
        source = cases(provider("openssl"), seed, base=4)
        return [(case.kind, case.message) for case in islice(source, 50)]

    assert kinds(5) == kinds(5)
    assert kinds(5) != kinds(6)


@pytest.mark.parametrize("norm", [NORM_MAX, NORM_MAX + 1])
@pytest.mark.parametrize("sign", [1, -1])
def test_norm_at_its_bound_in_a_signature_that_is_otherwise_good(norm, sign):
    z = [[0] * 256 for _ in range(5)]
    z[random.Random(norm).randrange(5)][37] = sign * norm
    key, signature = free_signature(bytes(32), b"m", b"c", z, [[] for _ in range(6)])
    judge = BatchVerifier(provider("openssl"), kernel=MlDsaVerifier(cache_mb=0))
    expected = norm == NORM_MAX
    assert judge.verify([key], [b"m"], [signature], b"c").tolist() == [expected]
    assert reference.verify(key, b"m", signature, b"c") == expected
    assert provider("openssl").verify(verify_cases.SCHEME, key, b"m", signature, b"c") == expected
