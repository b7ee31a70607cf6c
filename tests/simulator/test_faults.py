"""Plans of faults."""

from random import Random

import pytest

from qnet_actors.simulator.faults import Fault, parse_faults, plan_faults
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


def test_names_of_faults():
    assert parse_faults("all") == frozenset(Fault)
    assert parse_faults("none") == frozenset()
    assert parse_faults("crash, loss") == {Fault.CRASH, Fault.LOSS}
    with pytest.raises(QnetError, match="crash"):
        parse_faults("gremlins")
