"""The measurements of `qnet bench verify` and `qnet bench validate`, in small."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from qnet_actors.crypto import BatchVerifier, provider
from qnet_actors.crypto.mldsa.verifier import MlDsaVerifier
from qnet_actors.experiments import validate_bench, verify_bench
from qnet_actors.experiments.validate_bench import ValidateOptions, run_validate_bench
from qnet_actors.experiments.verify_bench import Columns, VerifyOptions, run_verify_bench
from qnet_actors.wire.codes import QnetError


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(verify_bench, "UNCACHED_KEYS_MIN", 160)
    monkeypatch.setattr(verify_bench, "UNCACHED_ROWS_PER_CALL", 32)
    monkeypatch.setattr(verify_bench, "ROWS_PER_CALL", 64)
    monkeypatch.setattr(validate_bench, "BATCHES_PER_SHARD", 2)


def test_verify(small):
    lines: list[str] = []
    options = VerifyOptions(senders=24, rounds=2, slice_seconds=0.02)
    result = run_verify_bench(options, lines.append)
    assert result.disagreements == 0
    assert result.cache_hit_rate == 1.0
    assert result.uncached_hit_rate < 0.5
    assert "kernel: compiled" in result.kernel
    assert result.verified_per_second == result.cached.all_cores > 0
    assert result.ratio_to_openssl == round(result.cached.core / result.openssl.core, 2)
    # However busy the machine: several times the library in the same slices.
    assert result.ratio_to_openssl > 3
    assert result.cached.core > result.uncached.core > result.openssl.core
    assert any("round 2 of 2" in line for line in lines)
    keys = msgspec.json.decode(msgspec.json.encode(result)).keys()
    assert {"verified_per_second", "verified_per_second_core", "ratio_to_liboqs"} <= keys


def test_verify_counts_disagreements(small):
    class Gullible(MlDsaVerifier):
        def verify_columns(self, *arguments):
            return np.ones_like(super().verify_columns(*arguments))

    cached, _ = verify_bench.sign_calls(2, 2)
    openssl = provider("openssl")
    gullible = BatchVerifier(openssl, kernel=Gullible(cache_mb=0))
    assert verify_bench._disagreements(gullible, [openssl], cached[0]) == 32


def test_verify_stops_where_its_own_signatures_fail(small):
    cached, _ = verify_bench.sign_calls(2, 2)
    columns = cached[0]
    spoilt = Columns(columns.table, 1 - columns.index, columns.messages, columns.signatures)
    with BatchVerifier(provider("openssl"), kernel=MlDsaVerifier(cache_mb=0)) as verifier:
        assert verify_bench._verified(verifier, columns) == 64
        with pytest.raises(QnetError, match="do not verify"):
            verify_bench._verified(verifier, spoilt)


def test_validate(small):
    lines: list[str] = []
    result = run_validate_bench(ValidateOptions(senders=64, rounds=1, cores_max=1), lines.append)
    (share,) = result.shares
    assert share.cores == 1
    assert result.validated_per_second == result.validated_per_second_core == share.validated
    assert min(share.validated, share.submitted, share.verified) > 0
    assert 0.05 < result.ratio_to_verifier < 1.5
    assert 0.05 < result.submitted_ratio_to_verifier < 1.5
    assert result.cores_speedup == 1.0


def test_validate_refuses_a_batch_that_is_not_held(small):
    plan = validate_bench.shard_plans(ValidateOptions(senders=64), 1)[0]
    spoilt = bytearray(plan.batches[1])
    spoilt[-1] ^= 1
    # The spoilt one decodes, and is refused for its root.
    broken = msgspec.structs.replace(plan, batches=[plan.batches[0]])
    verifier = BatchVerifier(provider("openssl"), kernel=MlDsaVerifier(cache_mb=4))
    bench = validate_bench.ShardBench(broken, verifier)
    assert bench.hold() > 0
    broken.batches.append(bytes(spoilt))
    with pytest.raises(QnetError, match="1 of 2 batches"):
        bench.hold()
