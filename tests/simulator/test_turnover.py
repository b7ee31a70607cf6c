"""The committee changes under load: four validators, seven, and four again, and nothing is lost."""

from dataclasses import replace

import pytest

from qnet_actors.simulator.faults import Fault
from qnet_actors.simulator.result import Verdict
from qnet_actors.simulator.rooms import RealRooms
from qnet_actors.simulator.simulation import SimConfig, Simulation

FOUR_SEVEN_FOUR = SimConfig(
    joiners=3, faults=frozenset(), fault_end_ms=2_000, virtual_ms_min=8_000, rounds_min=50
)
INJURED = SimConfig(
    joiners=3,
    faults=frozenset(Fault) - {Fault.BYZANTINE},
    fault_end_ms=9_000,
    virtual_ms_min=8_000,
    rounds_min=50,
)


@pytest.mark.parametrize(
    ("seed", "config"), [(1, FOUR_SEVEN_FOUR), (4, FOUR_SEVEN_FOUR), (2, INJURED), (7, INJURED)]
)
def test_the_committee_grows_and_shrinks_under_load(seed: int, config: SimConfig):
    simulation = Simulation(seed, config, RealRooms)
    result = simulation.run()
    assert result.verdict == Verdict.PASS, f"seed {seed}: {result.reason}"
    assert simulation.turnover.done
    assert not simulation.checks.batched
    assert simulation.turnover.sizes >= {4, 7}
    epochs = {simulation.committee_of(index).epoch for index in range(7)}
    assert epochs == {2}
    assert result.executed > 100


@pytest.mark.parametrize(
    ("seed", "config"),
    [
        # A validator that joined from a snapshot starts anew behind the edge of an epoch.
        (9131, replace(INJURED, joiners=1)),
        # One without its ledger is brought to where a former life of it was before.
        (
            9013,
            replace(INJURED, joiners=0, faults=frozenset(Fault), approves=True, resync_ms=6_000),
        ),
    ],
)
def test_lives_that_begin_again_behind_the_edge_of_an_epoch(seed: int, config: SimConfig):
    simulation = Simulation(seed, config, RealRooms)
    result = simulation.run()
    assert result.verdict == Verdict.PASS, f"seed {seed}: {result.reason}"
    assert result.paths_taken["Joined"] > 0
    assert simulation.turnover.done
    assert simulation.approving.done
