"""Parameters change at the edges of epochs under load: all follow, and nothing is lost."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from statistics import median
from typing import Any, Final

import pytest

from qnet_actors.simulator.actions import Actions
from qnet_actors.simulator.faults import Fault
from qnet_actors.simulator.result import Verdict
from qnet_actors.simulator.rooms import RealRooms
from qnet_actors.simulator.simulation import SimConfig, Simulation

CALM = SimConfig(
    approves=True, faults=frozenset(), fault_end_ms=2_000, virtual_ms_min=8_000, rounds_min=50
)
INJURED = SimConfig(
    approves=True,
    faults=frozenset(Fault) - {Fault.BYZANTINE},
    fault_end_ms=9_000,
    virtual_ms_min=8_000,
    rounds_min=50,
)
WITH_JOINERS = SimConfig(
    approves=True,
    joiners=2,
    faults=frozenset(),
    fault_end_ms=2_000,
    virtual_ms_min=8_000,
    rounds_min=50,
)

WHOLE: Final[dict[str, Any]] = {"fault_end_ms": 13_000}


@pytest.mark.parametrize(
    ("seed", "config"), [(1, CALM), (3, CALM), (2, INJURED), (8, INJURED), (5, WITH_JOINERS)]
)
def test_all_go_by_other_rules_and_by_the_first_ones_again(seed: int, config: SimConfig):
    simulation = Simulation(seed, config, RealRooms)
    result = simulation.run()
    assert result.verdict == Verdict.PASS, f"seed {seed}: {result.reason}"
    assert simulation.approving.done
    assert simulation.turnover.done
    assert not simulation.checks.batched
    assert result.executed > 100
    paces = list(paces_ms(simulation).values())
    assert len(paces) == 3
    # The first change doubles the delay of rounds, the second one takes that back.
    first, slower, again = paces
    assert slower > 1.8 * first
    assert again < 1.2 * first


def test_a_liar_who_is_punished_meanwhile_hides_neither_the_joiners_nor_the_approvals():
    # Its committees have four, five and three members, and an epoch ends between two approvals.
    simulation = Simulation(6, replace(WITH_JOINERS, faults=frozenset(Fault), **WHOLE), RealRooms)
    result = simulation.run()
    assert result.verdict == Verdict.PASS, result.reason
    assert result.attacks
    assert simulation.turnover.sizes >= {4, 5, 3}
    assert simulation.turnover.done
    assert simulation.approving.done
    assert result.virtual_seconds < 60


@pytest.mark.parametrize(
    ("changes", "word"), [({"approves": True}, "rules"), ({"joiners": 1}, "joiners")]
)
def test_a_run_that_does_not_show_what_it_promised_fails(
    changes: dict[str, Any], word: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Actions, "submit", lambda self, owner, nonce, action: None)
    config = SimConfig(faults=frozenset(), fault_end_ms=1_000, virtual_ms_max=7_000)
    result = Simulation(1, replace(config.calm_for(2_000), **changes), RealRooms).run()
    assert (result.verdict, result.invariant) == (Verdict.NO_PROGRESS, "unshown")
    assert word in result.reason


def paces_ms(simulation: Simulation) -> dict[int, float]:
    """The median time between two commits of each epoch."""
    times: dict[int, list[int]] = {}
    for record in simulation._rooms.records(0, 1):
        for commit in record.commits:
            times.setdefault(commit.epoch, []).append(commit.timestamp_ms)
    return {epoch: median(b - a for a, b in pairwise(at)) for epoch, at in times.items()}
