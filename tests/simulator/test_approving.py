"""Parameters change at the edges of epochs under load: all follow, and nothing is lost."""

from __future__ import annotations

from itertools import pairwise
from statistics import median

import pytest

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


def paces_ms(simulation: Simulation) -> dict[int, float]:
    """The median time between two commits of each epoch."""
    times: dict[int, list[int]] = {}
    for record in simulation._rooms.records(0, 1):
        for commit in record.commits:
            times.setdefault(commit.epoch, []).append(commit.timestamp_ms)
    return {epoch: median(b - a for a, b in pairwise(at)) for epoch, at in times.items()}
