"""What is predicted from costs: held to arithmetic where there is some, and to bounds elsewhere."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from qnet_actors.simulator.command import run_prediction
from qnet_actors.simulator.costs import Measured, StageCosts, read_costs
from qnet_actors.simulator.prediction import (
    BATCH_DELAY_MS,
    BLOCK_INTERVAL_MS,
    ROUND_DELAY_MS,
    Shape,
    predict,
)
from qnet_actors.simulator.regions import matrix_ms
from qnet_actors.wire.codes import Code, QnetError

NOTHING = StageCosts(
    validators=4,
    cores=2,
    verify_us=0,
    admit_us=0,
    hold_us=0,
    hold_batch_us=0,
    hash_kib_us=0,
    execute_us=10,
    sign_block_us=0,
    check_block_us=0,
    check_ancestor_us=0,
    core_peer_us=0,
    message_us=0,
    round_us=0,
    host_us=0,
    load_us=0,
    gateway_us=0,
    transaction_bytes=0.001,
    measured=Measured(1, 1, 1),
)
USUAL: dict[str, Any] = {
    "verify_us": 40,
    "admit_us": 50,
    "hold_us": 45,
    "hold_batch_us": 300,
    "check_block_us": 100,
    "core_peer_us": 70,
    "message_us": 20,
    "round_us": 10_000,
    "host_us": 20,
    "transaction_bytes": 3_500,
}


def costs(**changes: Any) -> StageCosts:
    return msgspec.structs.replace(NOTHING, **changes)


def test_throughput_is_what_the_cores_can_do():
    assert predict(NOTHING, Shape(4, 1)).throughput_per_second == 100_000
    # More cores do not execute one block together.
    found = predict(NOTHING, Shape(4, 2))
    assert found.throughput_per_second == 100_000
    assert found.bottleneck == "execution on one core"
    assert predict(NOTHING, Shape(4, 2, shared=True)).throughput_per_second == 50_000
    # One validator admits what three hold.
    shape = Shape(4, 1, shared=True)
    found = predict(costs(admit_us=40, hold_us=20), shape)
    assert found.throughput_per_second == pytest.approx(1e6 / (40 + 3 * 20 + 4 * 10), abs=0.1)
    # What offers the load takes its part of a machine that it shares, and of no other.
    loaded = costs(load_us=60)
    assert predict(loaded, shape).throughput_per_second == 10_000
    assert predict(loaded, Shape(4, 1)).throughput_per_second == 100_000


def test_rounds_take_their_part_first_and_the_largest_stage_is_named():
    # Ten rounds a second of 50 ms each leave half of a core.
    found = predict(costs(round_us=50_000), Shape(4, 1))
    assert found.throughput_per_second == 50_000
    assert found.core_share["rounds"] == 0.5
    assert sum(found.core_share.values()) == pytest.approx(1.0, abs=0.01)
    assert predict(costs(round_us=60_000), Shape(4, 1)).bottleneck == "cores: rounds"
    assert predict(NOTHING, Shape(4, 1)).bottleneck == "cores: execute"
    assert predict(costs(round_us=200_000), Shape(4, 1)).throughput_per_second == 0


def test_bandwidth_is_a_limit_of_its_own():
    found = predict(costs(transaction_bytes=4_000), Shape(4, 64, bandwidth_mbps=100))
    assert found.bottleneck == "bandwidth"
    assert found.bandwidth_share == pytest.approx(1.0, abs=0.01)
    # Each validator sends three quarters of the transactions' bytes, and its DAG blocks.
    assert 0.95 * 12_500_000 / 3_000 < found.throughput_per_second < 12_500_000 / 3_000


def test_latency_is_at_least_what_rounds_and_batches_take():
    found = predict(NOTHING, Shape(4, 8))
    upper = 6 * ROUND_DELAY_MS + 2 * BATCH_DELAY_MS + BLOCK_INTERVAL_MS
    assert found.rounds_per_second == pytest.approx(1e3 / ROUND_DELAY_MS, rel=0.05)
    assert 3 * ROUND_DELAY_MS < found.latency_ms_p50 < upper
    assert found.latency_ms_p50 < found.latency_ms_p99


def test_latency_grows_with_distance_and_with_load():
    shape = Shape(10, 4)
    near = predict(costs(**USUAL), shape, 2.0)
    far = predict(costs(**USUAL), replace(shape, delay_ms=matrix_ms("world", 10)), 2.0)
    # A batch goes out and its acknowledgement comes back, then three rounds.
    assert far.latency_ms_p50 > near.latency_ms_p50 + 400
    assert far.rounds_per_second < near.rounds_per_second
    slow = predict(costs(**USUAL, validators=4), Shape(4, 1, shared=True))
    assert slow.latency_ms_p50 > near.latency_ms_p50
    assert slow.throughput_per_second < near.throughput_per_second


def test_many_validators_of_the_world_are_predicted_and_the_same_each_time():
    shape = Shape(20, 8, delay_ms=matrix_ms("world", 20))
    found = predict(costs(**USUAL), shape, seconds=1.0)
    assert found == predict(costs(**USUAL), shape, seconds=1.0)
    assert found.throughput_per_second > 1_000
    assert 500 < found.latency_ms_p50 < 3_000


@pytest.mark.parametrize("shape", [Shape(1, 2), Shape(4, 0), Shape(4, 2, bandwidth_mbps=0)])
def test_shapes_that_are_none_are_refused(shape: Shape):
    with pytest.raises(ValueError, match="two validators"):
        predict(NOTHING, shape)


def test_the_command_reads_a_file_and_prints_json(tmp_path: Path):
    file = tmp_path / "measured.json"
    file.write_bytes(msgspec.json.encode(costs(**USUAL)))
    assert read_costs(file) == costs(**USUAL)
    out = io.StringIO()
    run_prediction(file, validators=7, regions="world", as_json=True, out=out)
    found = json.loads(out.getvalue())
    shape = Shape(7, 2, delay_ms=matrix_ms("world", 7))
    assert found["throughput_per_second"] == predict(costs(**USUAL), shape).throughput_per_second
    out = io.StringIO()
    run_prediction(file, out=out)
    assert "transactions a second; cores: " in out.getvalue()


@pytest.mark.parametrize(
    "content", [None, b"", b"[]", b'{"version": 1}', msgspec.json.encode(costs(verify_us=-1))]
)
def test_other_files_are_refused(tmp_path: Path, content: bytes | None):
    file = tmp_path / "measured.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(QnetError) as caught:
        read_costs(file)
    assert caught.value.code == Code.INVALID_PARAMETER
    assert str(file) in caught.value.detail


def test_a_lone_validator_is_not_predicted(tmp_path: Path):
    with pytest.raises(QnetError, match="2 to 128"):
        run_prediction(tmp_path / "none", validators=1)
