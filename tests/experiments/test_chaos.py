"""Faults on a real network, in short, and the parts that need none."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from itertools import islice
from types import SimpleNamespace
from typing import Any

import pytest

from qnet_actors.experiments.chaos import campaign
from qnet_actors.experiments.chaos.campaign import Options, Outcome, Result, plan, run_chaos
from qnet_actors.experiments.chaos.clients import told
from qnet_actors.experiments.chaos.faults import FAULTS, ROOM_FAULTS, Site, faults_of
from qnet_actors.experiments.chaos.ledgers import Ledgers
from qnet_actors.gateway.queries import BlockAnswer, StatusAnswer, StatusQuery
from qnet_actors.network.settings import NetworkSettings
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.transactions import transaction_id

NO_NETWORK: Any = None
SHORT = ("kill_validator", "second_copy", "cut_journal")


def test_a_plan_is_the_seeds_and_leaves_no_kind_out() -> None:
    kinds = tuple(FAULTS)
    one = list(islice(plan(kinds, 1), 3 * len(kinds)))
    assert one == list(islice(plan(kinds, 1), 3 * len(kinds)))
    assert one != list(islice(plan(kinds, 2), 3 * len(kinds)))
    for first in range(0, len(one), len(kinds)):
        assert set(one[first : first + len(kinds)]) == set(kinds)


def test_an_unknown_fault_is_refused_before_anything_is_started(tmp_path) -> None:
    with pytest.raises(QnetError) as refusal:
        run_chaos(Options(kinds=("earthquake",)), tmp_path, lambda _: None)
    assert refusal.value.code == Code.INVALID_PARAMETER
    assert list(tmp_path.iterdir()) == []


def test_ports_are_looked_for_when_the_kernels_are_loaded(tmp_path, monkeypatch) -> None:
    done: list[str] = []

    def no_ports(count: int) -> int:
        done.append(f"{count} ports")
        raise QnetError(Code.PORT_IN_USE, "none is free")

    monkeypatch.setattr(campaign, "warm", lambda: done.append("kernels"))
    monkeypatch.setattr(campaign, "_free_ports", no_ports)
    with pytest.raises(QnetError, match="none is free"):
        run_chaos(Options(), tmp_path, lambda _: None)
    assert done == ["kernels", "2 ports"]


def test_split_networks_have_the_faults_of_packed_ones_and_those_of_rooms(tmp_path) -> None:
    packed = NetworkSettings(directory=tmp_path)
    split = NetworkSettings(directory=tmp_path, profile="split", executors=2)
    assert faults_of(packed) == FAULTS
    assert faults_of(split) == FAULTS | ROOM_FAULTS
    alone = faults_of(NetworkSettings(directory=tmp_path, profile="split"))
    assert set(faults_of(split)) - set(alone) == {"kill_executor"}


def test_a_victim_is_a_room_of_the_kind_that_is_asked_for() -> None:
    rooms = {"ledger", "mempool-0", "mempool-1", "partition-0", "executor-0"}
    processes = {f"validator-{n}/{room}": 0 for n in range(2) for room in rooms}
    site = Site(NO_NETWORK, {**processes, "validator-0": 0, "gateway-0": 0}, random.Random(1))
    for kind in ("ledger", "mempool", "partition", "executor"):
        found = {site.room(kind).partition("/")[2] for _ in range(40)}
        assert found == {room for room in rooms if room.startswith(kind)}
    assert {site.room("") for _ in range(200)} == set(processes)


class Blocks:
    """A network of two validators with the same blocks, which notes what is read."""

    def __init__(self, heights: int) -> None:
        self.heights = heights
        self.read: list[tuple[int, int]] = []
        self.settings = SimpleNamespace(validators=2)

    def ask(self, index: int, requests: list[Any]) -> list[Any]:
        return [self._answer(index, request) for request in requests]

    def _answer(self, index: int, request: Any) -> Any:
        if isinstance(request, StatusQuery):
            fields: Any = dict.fromkeys(StatusAnswer.__struct_fields__)
            return StatusAnswer(**fields | {"height": self.heights})
        self.read.append((index, request.selector))
        header: Any = SimpleNamespace(height=request.selector, transaction_count=1)
        body = b"body %d" % request.selector
        return BlockAnswer(header, b"hash %d" % request.selector, True, (body,), ())


def test_of_who_was_hurt_the_newest_blocks_are_read_again() -> None:
    network: Any = Blocks(10)
    ledgers = Ledgers(network)
    ids = [transaction_id(b"body %d" % height) for height in (6, 7)]
    ledgers.update()
    assert ledgers.missing(ids) == {}
    ledgers.forget(1, newest=4)
    assert ledgers.missing(ids) == {ids[1]: [1]}
    network.read.clear()
    ledgers.update()
    assert network.read == [(1, height) for height in range(7, 11)]
    assert ledgers.missing(ids) == {}
    ledgers.forget(1)
    assert ledgers.missing(ids) == {ids[0]: [1], ids[1]: [1]}


def test_equal_answers_in_a_row_are_told_together() -> None:
    answers = [(10.1, "busy"), (12.0, "not_ready"), (12.5, "not_ready"), (13.0, "busy")]
    assert told(10.0, answers) == "0.1 s busy, 2.0 s not_ready 2 times, 3.0 s busy"
    assert told(10.0, []) == ""


@pytest.mark.parametrize(
    ("lost", "roots_equal", "good"), [(0, True, True), (1, True, False), (0, False, False)]
)
def test_one_lost_transaction_or_another_root_is_bad(
    lost: int, roots_equal: bool, good: bool
) -> None:
    result = Result(
        seed=1,
        faults={"kill_validator": Outcome(injected=1)},
        acknowledged=10,
        lost=lost,
        roots_equal=roots_equal,
        seconds_to_service_max=1.0,
        refusals={},
        height=5,
    )
    assert result.good is good


@pytest.mark.long
@pytest.mark.network
@pytest.mark.timeout(240)
def test_nothing_acknowledged_is_lost_to_a_few_faults() -> None:
    command = [sys.executable, "-m", "qnet_actors.experiments.chaos", "--seconds", "40", "--json"]
    process = subprocess.Popen(
        [*command, "--seed", "11", "--faults", ",".join(SHORT)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        out, progress = process.communicate(timeout=200)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGINT)
        _, progress = process.communicate(timeout=30)
        pytest.fail(f"chaos does not end: {progress[-2_000:]}")
    assert process.returncode == 0, progress[-2_000:]
    result = json.loads(out)
    assert set(result["faults"]) == set(SHORT)
    assert all(outcome["injected"] for outcome in result["faults"].values())
    assert result["acknowledged"] > 100
    assert result["lost"] == 0
    assert result["roots_equal"]
