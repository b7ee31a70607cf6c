"""The second opinion: both kinds of verdict, a bounded share, and the end on a disagreement."""

from __future__ import annotations

import pickle
import time
from typing import Any

import numpy as np
import pytest

from qnet_actors.crypto.mldsa.oracle import SampledOracle, VerifierDisagreement
from qnet_actors.crypto.mldsa.verifier import MlDsaVerifier
from qnet_actors.wire.schemes import Scheme

N = 64
COLUMNS = (
    [b"key"],
    np.zeros(N, dtype=np.intp),
    np.zeros((N, 32), dtype=np.uint8),
    np.zeros((N, 8), dtype=np.uint8),
    b"context",
)


class Opinion:
    """A provider that holds every signature for `valid`, and takes `seconds` of CPU to say so."""

    name = "opinion"

    def __init__(self, valid: bool, seconds: float = 0.0) -> None:
        self.valid = valid
        self.seconds = seconds
        self.asked = 0

    def verify(self, scheme, public_key, message, signature, context):
        self.asked += 1
        end = time.thread_time() + self.seconds
        while time.thread_time() < end:
            pass
        return self.valid


def oracle_of(opinion: Any, cpu_share: float = 1) -> SampledOracle:
    return SampledOracle(opinion, cpu_share)


def watch(oracle: SampledOracle, verdicts: list[bool], seconds: float) -> None:
    oracle.watch(Scheme.ML_DSA_65, *COLUMNS, np.asarray(verdicts), seconds)


def test_accepts_and_rejects_are_checked():
    for verdict in (True, False):
        opinion = Opinion(verdict)
        oracle = oracle_of(opinion)
        watch(oracle, [verdict] * N, 0.1)
        assert opinion.asked > 10
        counters = oracle.counters()
        assert (counters.accepts, counters.rejects)[not verdict] == opinion.asked


def test_share_of_cpu_is_bounded():
    opinion = Opinion(False, seconds=0.001)
    oracle = oracle_of(opinion, 0.02)
    for _ in range(1000):
        watch(oracle, [False] * N, 0.001)
    # One second of kernel, half of whose share is for rejects: ten milliseconds.
    assert 3 <= opinion.asked <= 15
    assert oracle.counters().seconds < 0.03


def test_share_of_nothing_checks_nothing():
    opinion = Opinion(False)
    oracle = oracle_of(opinion, 0)
    watch(oracle, [True] * N, 1.0)
    assert opinion.asked == 0


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_share_out_of_range(share):
    with pytest.raises(ValueError, match="share"):
        oracle_of(Opinion(True), share)


@pytest.mark.parametrize("verdict", [True, False])
def test_disagreement_ends_it_for_ever(verdict, caplog):
    oracle = oracle_of(Opinion(not verdict))
    with pytest.raises(VerifierDisagreement):
        watch(oracle, [verdict] * N, 0.1)
    assert b"key".hex() in caplog.text
    with pytest.raises(VerifierDisagreement) as again:
        watch(oracle, [verdict] * N, 0.0)
    assert isinstance(pickle.loads(pickle.dumps(again.value)), VerifierDisagreement)


def test_disagreement_leaves_the_verifier(published):
    record = published[0]
    oracle = oracle_of(Opinion(False))
    verifier = MlDsaVerifier(cache_mb=0, oracle=oracle)
    # So many that the first call pays for a check, however fast the machine.
    rows = 2_000
    with pytest.raises(VerifierDisagreement):
        verifier.verify_columns(
            Scheme.ML_DSA_65,
            [record.public_key],
            np.zeros(rows, dtype=np.intp),
            np.tile(np.frombuffer(record.message, dtype=np.uint8), (rows, 1)),
            np.tile(np.frombuffer(record.signature, dtype=np.uint8), (rows, 1)),
            record.context,
        )
