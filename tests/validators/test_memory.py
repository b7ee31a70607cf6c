from __future__ import annotations

from qnet_actors.validators.memory import CLAIM_WAIT_MS, REPEATS_MAX, MemoryGuard
from tests.validators.support import make_genesis

NOW = 50_000


def guard(last_round: int = 10, stakes: tuple[int, ...] = (1, 1, 1, 1)) -> MemoryGuard:
    return MemoryGuard(make_genesis(stakes).committee(), 0, last_round, 0)


def test_signing_waits_for_answers_that_make_a_quorum_with_the_own_stake() -> None:
    made = guard()
    made.answered(1, 10, 12, NOW)
    assert not made.may_sign(NOW)
    made.answered(1, 10, 12, NOW)
    assert not made.may_sign(NOW)
    made.answered(2, 3, 12, NOW)
    assert made.may_sign(NOW)


def test_one_with_a_quorum_of_its_own_asks_nobody() -> None:
    assert guard(stakes=(9, 1, 1, 1)).may_sign(NOW)
    assert guard(stakes=(1,)).may_sign(NOW)


def test_one_claim_delays_and_no_more() -> None:
    made = guard()
    made.answered(1, 10, 12, NOW)
    made.answered(2, 10, 12, NOW)
    made.answered(3, 11, 12, NOW)
    assert not made.may_sign(NOW)
    assert made.wake_ms(NOW) == NOW + CLAIM_WAIT_MS
    made.answered(3, 99, 12, NOW + 100)
    assert made.may_sign(NOW + CLAIM_WAIT_MS)
    assert made.wake_ms(NOW + CLAIM_WAIT_MS) is None
    assert not made.lost


def test_claims_with_an_honest_one_among_them_are_believed() -> None:
    made = guard()
    made.answered(2, 11, 12, NOW)
    assert not made.lost
    made.answered(3, 15, 12, NOW)
    assert made.lost
    assert not made.may_sign(NOW + 10 * CLAIM_WAIT_MS)


def test_lost_memory_waits_for_a_quorum_of_others_and_goes_on_two_above() -> None:
    made = guard()
    made.forgot()
    made.answered(1, 11, 20, NOW)
    made.answered(2, 11, 22, NOW)
    assert not made.admitted(100)
    made.answered(3, 11, 21, NOW)
    assert not made.admitted(21)
    assert made.admitted(22)
    assert made.round_min == 24
    assert made.may_sign(NOW)
    assert not made.admitted(30)


def test_one_that_holds_nothing_or_names_a_round_that_never_comes_is_not_counted() -> None:
    made = guard()
    made.forgot()
    made.answered(1, 0, 0, NOW)
    made.answered(2, 11, 22, NOW)
    made.answered(3, 11, 10**12, NOW)
    assert not made.admitted(1_000)
    assert made.lost


def test_one_liar_with_a_round_that_never_comes_delays_and_no_more() -> None:
    made = guard()
    made.forgot()
    for peer, round_ in ((1, 20), (2, 22), (3, 10**12)):
        made.answered(peer, 0, round_, NOW)
    assert not made.admitted(10)
    for _ in range(2 * REPEATS_MAX):
        made.answered(3, 0, 10**12, NOW)
    assert not made.admitted(21), "an honest answer is wanting too, so nothing is counted"
    assert not made.admitted(22)
    for repeat in range(REPEATS_MAX):
        assert not made.admitted(24), repeat
        made.answered(3, 0, 10**12, NOW)
    assert made.admitted(24)
    assert made.round_min == 26
    assert made.may_sign(NOW)


def test_two_liars_of_four_are_not_waited_out() -> None:
    made = guard()
    made.forgot()
    for _ in range(3 * REPEATS_MAX):
        for peer, round_ in ((1, 20), (2, 10**12), (3, 10**12)):
            made.answered(peer, 0, round_, NOW)
        assert not made.admitted(30)


def test_the_first_answer_counts_so_that_the_end_does_not_run_away() -> None:
    made = guard()
    made.forgot()
    for peer in (1, 2, 3):
        made.answered(peer, 11, 20, NOW)
        made.answered(peer, 11, 90, NOW)
    assert made.admitted(20)
    assert made.round_min == 22


def test_rounds_signed_in_this_life_are_no_claims() -> None:
    made = guard()
    made.signed(30)
    made.answered(1, 30, 30, NOW)
    made.answered(2, 29, 30, NOW)
    assert made.may_sign(NOW)
    assert not made.lost
