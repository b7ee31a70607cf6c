"""Faults on a real network, in short, and the parts that need none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from itertools import islice

import pytest

from qnet_actors.experiments.chaos.campaign import Options, Outcome, Result, plan, run_chaos
from qnet_actors.experiments.chaos.faults import FAULTS
from qnet_actors.wire.codes import Code, QnetError

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
