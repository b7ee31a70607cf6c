from __future__ import annotations

from dataclasses import replace

import pytest

from qnet_actors.validators.pacemaker import Pacemaker, Surroundings
from qnet_actors.wire.genesis import Parameters

PARAMETERS = Parameters()
NOTHING = Surroundings()
READY = Surroundings(leader_here=True, settled=True)
QUORUM = Surroundings(quorum_here=True)


def at_round(round_: int, now_ms: int = 1_000) -> Pacemaker:
    """The block of the round before was made, and the round entered, just now."""
    pacemaker = Pacemaker(PARAMETERS, round_ - 2)
    assert pacemaker.enter(round_ - 2, False, 0, now_ms)
    pacemaker.made(round_ - 1, READY, now_ms)
    assert pacemaker.enter(round_ - 1, False, 0, now_ms)
    return pacemaker


def test_the_first_round_is_entered_at_once() -> None:
    pacemaker = Pacemaker(PARAMETERS, 0)
    assert pacemaker.enter(0, True, 0, 5)
    assert pacemaker.round == 1
    assert pacemaker.due(READY, 5_000)


def test_a_round_needs_the_own_block_and_a_quorum_of_the_round_before() -> None:
    pacemaker = at_round(10)
    assert pacemaker.round == 10
    # The own block of round 10 is not made, however far the others are.
    assert not pacemaker.enter(15, False, 0, 2_000)
    pacemaker.made(10, READY, 2_000)
    assert pacemaker.waits_for_quorum
    assert not pacemaker.enter(9, False, 0, 2_000)
    assert pacemaker.enter(10, False, 0, 2_000)
    assert pacemaker.round == 11


def test_no_round_is_skipped_by_one_that_is_behind() -> None:
    pacemaker = at_round(10)
    for round_ in range(10, 30):
        assert pacemaker.due(QUORUM, 1_000)
        pacemaker.made(round_, QUORUM, 1_000)
        assert pacemaker.enter(30, False, 0, 1_000)
        assert pacemaker.round == round_ + 1


def test_one_that_may_jump_enters_the_highest_round_it_can() -> None:
    pacemaker = at_round(10)
    assert pacemaker.enter(40, True, 0, 2_000)
    assert pacemaker.round == 41
    assert not pacemaker.enter(40, True, 0, 2_000)
    assert pacemaker.enter(41, True, 0, 2_000)
    assert pacemaker.round == 42


def test_nothing_below_the_first_safe_round_is_entered() -> None:
    pacemaker = Pacemaker(PARAMETERS, 7)
    assert not pacemaker.enter(18, True, 20, 1_000)
    assert pacemaker.enter(19, True, 20, 1_000)
    assert pacemaker.round == 20


def test_a_block_waits_for_the_minimum_delay_even_if_the_leader_is_ready() -> None:
    pacemaker = at_round(10)
    assert not pacemaker.due(READY, 1_049)
    assert pacemaker.wake_ms(READY) == 1_050
    assert pacemaker.due(READY, 1_050)


def test_saturation_doubles_the_delay_and_idleness_makes_it_a_second() -> None:
    saturated = replace(READY, saturated=True)
    idle = replace(READY, idle=True)
    pacemaker = at_round(10)
    assert pacemaker.wake_ms(saturated) == 1_100
    assert not pacemaker.due(saturated, 1_099)
    assert pacemaker.wake_ms(idle) == 2_000
    assert not pacemaker.due(idle, 1_999)
    assert pacemaker.due(idle, 2_000)


def test_without_the_leader_a_block_waits_for_the_timeout() -> None:
    pacemaker = at_round(10)
    assert not pacemaker.due(NOTHING, 1_199)
    assert pacemaker.wake_ms(NOTHING) == 1_200
    assert pacemaker.due(NOTHING, 1_200)


def test_an_idle_network_does_not_hurry_for_an_absent_leader() -> None:
    pacemaker = at_round(10)
    idle = replace(NOTHING, idle=True)
    assert pacemaker.wake_ms(idle) == 2_000
    assert not pacemaker.due(idle, 1_999)


def test_a_quorum_in_the_round_ends_all_waiting() -> None:
    pacemaker = at_round(10)
    assert pacemaker.due(QUORUM, 1_000)


def test_the_timeout_doubles_while_nothing_commits_up_to_a_bound_and_comes_back() -> None:
    pacemaker = at_round(10)
    waited = []
    now_ms = 1_000
    for round_ in range(10, 17):
        around = Surroundings(leader=round_ - 1, leader_before=round_ - 2)
        wake_ms = pacemaker.wake_ms(around)
        assert wake_ms is not None
        waited.append(wake_ms - now_ms)
        now_ms = wake_ms
        pacemaker.made(round_, around, now_ms)
        assert pacemaker.enter(round_, False, 0, now_ms)
    assert waited == [200, 400, 800, 1_600, 3_200, 3_200, 3_200]
    assert pacemaker.timeouts == 7
    pacemaker.committed()
    assert pacemaker.wake_ms(replace(NOTHING, leader=90, leader_before=91)) == now_ms + 200


@pytest.mark.parametrize("around", [READY, QUORUM])
def test_a_block_that_did_not_have_to_wait_is_no_timeout(around: Surroundings) -> None:
    pacemaker = at_round(10)
    pacemaker.made(10, around, 9_000)
    assert pacemaker.timeouts == 0
    assert pacemaker.timeout_ms == 200


def test_a_round_not_entered_is_never_due_and_wakes_nobody() -> None:
    pacemaker = at_round(10)
    pacemaker.made(10, READY, 2_000)
    for around in (READY, QUORUM, NOTHING):
        assert not pacemaker.due(around, 10**9)
        assert pacemaker.wake_ms(around) is None


@pytest.mark.parametrize("around", [READY, NOTHING, replace(READY, idle=True)])
def test_the_wake_time_is_when_the_block_becomes_due(around: Surroundings) -> None:
    pacemaker = at_round(10)
    wake_ms = pacemaker.wake_ms(around)
    assert wake_ms is not None
    assert not pacemaker.due(around, wake_ms - 1)
    assert pacemaker.due(around, wake_ms)


def test_slow_quorums_double_the_shortest_delay_until_they_are_quick_again() -> None:
    pacemaker = at_round(10, now_ms=1_000)
    delay_ms = PARAMETERS.round_delay_ms
    for quorum_ms, delays in [(3, 1), (4.1, 2), (3, 2), (1.9, 1), (3, 1)]:
        pacemaker.quorum_took(int(quorum_ms * delay_ms))
        assert pacemaker.wake_ms(READY) == 1_000 + delays * delay_ms


def run(pacemaker: Pacemaker, rounds: int, late: int, *, commits: bool) -> list[int]:
    """How long each of so many blocks waits while leader `late` of three never comes."""
    waited = []
    now_ms = pacemaker.made_ms
    for round_ in range(pacemaker.round, pacemaker.round + rounds):
        around = Surroundings(round_ % 3, round_ % 3 != late, (round_ - 1) % 3, settled=True)
        wake_ms = pacemaker.wake_ms(around)
        assert wake_ms is not None
        assert pacemaker.due(around, wake_ms)
        assert not pacemaker.due(around, wake_ms - 1)
        waited.append(wake_ms - now_ms)
        now_ms = wake_ms
        pacemaker.made(round_, around, now_ms)
        if commits:
            pacemaker.committed()
        assert pacemaker.enter(round_, False, 0, now_ms)
    return waited


def test_a_late_leader_costs_a_timeout_once_in_a_while() -> None:
    waited = run(at_round(64), 320, 1, commits=True)
    late_at = [64 + i for i, waited_ms in enumerate(waited) if waited_ms == 200]
    # The first that it leads from round 64, 128 and 256 on.
    assert late_at == [64, 130, 256]
    assert {waited_ms for waited_ms in waited if waited_ms != 200} == {50}


def test_while_nothing_is_committed_everybody_is_waited_for() -> None:
    pacemaker = at_round(64)
    waited = run(pacemaker, 30, 1, commits=False)
    # Rounds 64 to 69 know the last commit; later ones do not wait for it to be late once more.
    late = [waited_ms for waited_ms in waited if waited_ms > 50]
    assert late[:4] == [200, 400, 800, 1_600]
    assert len(late) == len([r for r in range(64, 94) if r % 3 == 1]) - 2
    pacemaker.committed()
    # What was late meanwhile is forgotten.
    assert run(pacemaker, 3, 1, commits=True).count(200) == 1


@pytest.mark.parametrize("leader_here", [True, False])
def test_a_leader_without_votes_is_not_waited_for_either(leader_here: bool) -> None:
    pacemaker = at_round(64)
    around = Surroundings(0, leader_here=leader_here, leader_before=1, settled=False)
    assert pacemaker.wake_ms(around) == 1_200
    pacemaker.made(64, around, 1_200)
    pacemaker.committed()
    assert pacemaker.enter(64, False, 0, 1_200)
    assert pacemaker.wake_ms(replace(around, leader=2, leader_here=True)) == 1_250
    assert pacemaker.wake_ms(replace(around, leader_here=False, settled=True)) == (
        1_400 if leader_here else 1_250
    )


def test_being_late_oneself_blames_nobody() -> None:
    pacemaker = at_round(64)
    pacemaker.made(64, QUORUM, 1_010)
    pacemaker.committed()
    assert pacemaker.enter(64, False, 0, 1_010)
    assert pacemaker.wake_ms(NOTHING) == 1_210
