"""The costs of stages are measured, and a network's figures become what predictions need."""

from __future__ import annotations

import msgspec
import pytest

from qnet_actors.experiments import cost_bench
from qnet_actors.experiments.bench import BenchResult, Latencies, Phase, costs_of
from qnet_actors.experiments.cost_bench import Stages, measure_stages

STAGES = Stages(
    verify_us=4,
    admit_us=10,
    hold_us=6,
    hold_batch_us=300,
    hash_kib_us=0.2,
    execute_us=1,
    sign_block_us=100,
    check_block_us=40,
    check_ancestor_us=0.1,
    core_peer_us=70,
    message_us=20,
)


def test_every_stage_takes_its_time(monkeypatch: pytest.MonkeyPatch):
    for name, value in (("TRIES", 1), ("COMMITTEES", (2, 4)), ("SIMULATED", (2, 4))):
        monkeypatch.setattr(cost_bench, name, value)
    said: list[str] = []
    stages = msgspec.structs.asdict(measure_stages(32, said.append))
    assert said
    # Differences of two measurements may come out at zero where the machine is busy.
    differences = {"hold_batch_us", "check_block_us", "check_ancestor_us", "core_peer_us"}
    assert all(stages[name] > 0 for name in stages.keys() - differences), stages
    assert all(stages[name] >= 0 for name in differences), stages
    # A signature is only a part of what is done to a transaction.
    assert stages["execute_us"] < stages["admit_us"] < 10_000


def test_what_the_stages_do_not_explain_is_the_hosts():
    latency = Latencies(p50=300, p90=400, p99=500)
    half = Phase(5e3, 5e3, True, 1, 5e3, 0, 0, {}, latency, {}, 1e4)
    cpu = {f"validator-{i}": 30.0 for i in range(4)} | {"gateway-0": 20.0, "ray": 2.0, "load": 40.0}
    result = BenchResult(
        offered_per_second=1e4,
        achieved_per_second=1e4,
        executed=1,
        executed_per_second=1e4,
        failed=0,
        lost=0,
        roots_equal=True,
        latency_ms=latency,
        cpu_us_per_transaction=cpu,
        bytes_per_transaction=1.2e4,
        raw_verifications_per_second=1e5,
        ratio_to_verify_limit=0.4,
        half_load=half,
        memory_bytes=1,
        validators=4,
        senders=16,
        workload="uniform",
        provider="openssl",
        durability="process",
        cores=2,
    )
    costs = costs_of(result, STAGES, trickle_us=8_000, rounds_per_second=10)
    # A fourth of the transactions is admitted, the others are held; ten rounds take 80 ms.
    assert costs.host_us == pytest.approx(30 - (10 + 3 * 6) / 4 - 1 - 8)
    assert (costs.gateway_us, costs.load_us, costs.round_us) == (22, 40, 8_000)
    assert costs.transaction_bytes == 4_000
    assert costs.measured.executed_per_second == 1e4
    assert costs.measured.latency_ms_p99 == 500
    assert costs_of(result, STAGES, 80_000, 10).host_us == 0
