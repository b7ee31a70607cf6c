"""Plans of faults."""

from random import Random

import pytest

from qnet_actors.simulator.faults import Episode, Fault, parse_faults, plan_faults
from qnet_actors.simulator.rooms import RealRooms
from qnet_actors.simulator.simulation import SimConfig, Simulation
from qnet_actors.wire.codes import QnetError


def plan(seed: int, validators: int = 4):
    return plan_faults(Random(seed), frozenset(Fault), range(validators), 1_000, 12_000)


@pytest.mark.parametrize("validators", [1, 2, 4, 7, 10])
def test_every_enabled_fault_is_planned_within_the_window(validators: int):
    for seed in range(40):
        episodes = plan(seed, validators)
        assert {episode.fault for episode in episodes} == set(Fault)
        assert [e.start_ms for e in episodes] == sorted(e.start_ms for e in episodes)
        for episode in episodes:
            assert 0 <= episode.start_ms < 12_000
            assert episode.end_ms <= 12_000
            assert all(0 <= target < validators for target in episode.targets)


@pytest.mark.parametrize("validators", [4, 7, 10])
def test_no_more_than_f_validators_are_down_from_crashes_at_a_time(validators: int):
    tolerated = (validators - 1) // 3
    for seed in range(60):
        crashes = [e for e in plan(seed, validators) if e.fault == Fault.CRASH]
        for crash in crashes:
            down = {
                other.targets
                for other in crashes
                if other.start_ms <= crash.start_ms < other.end_ms
            }
            assert 1 <= len(down) <= tolerated


def test_a_plan_depends_on_the_seed_alone():
    assert plan(7) == plan(7)
    assert plan(7) != plan(8)


def test_of_two_faults_at_once_the_one_that_lasts_longer_stays():
    simulation = Simulation(1, SimConfig(), RealRooms)
    scheduler, links = simulation.scheduler, simulation.links
    simulation.fired.update((Fault.LOSS, Fault.DELAY))
    for episode in (
        Episode(Fault.LOSS, 0, 1_000, (), 0.1),
        Episode(Fault.DELAY, 0, 500, (), 0.2),
        Episode(Fault.LOSS, 500, 2_000, (), 0.05),
    ):
        scheduler.at(episode.start_ms, simulation._begin, episode)
    seen = []
    for now_ms in (600, 1_500, 2_500):
        scheduler.run_until(now_ms)
        seen.append((links.level(Fault.LOSS), links.level(Fault.DELAY)))
    assert seen == [(0.1, 0.0), (0.05, 0.0), (0.0, 0.0)]


def test_names_of_faults():
    assert parse_faults("all") == frozenset(Fault)
    assert parse_faults("none") == frozenset()
    assert parse_faults("crash, loss") == {Fault.CRASH, Fault.LOSS}
    with pytest.raises(QnetError, match="crash"):
        parse_faults("gremlins")
