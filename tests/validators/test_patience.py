from __future__ import annotations

from qnet_actors.validators.patience import STALLED_ROUNDS, WINDOW_ROUNDS, Patience


def committing(until: int) -> Patience:
    patience = Patience(until)
    patience.committed(until)
    return patience


def test_a_late_leader_is_waited_for_again_where_its_window_ends() -> None:
    patience = committing(100)
    assert patience.waits_for(1, 100)
    patience.was_late(1, 100)
    for round_ in range(101, 128):
        patience.committed(round_)
        assert not patience.waits_for(1, round_)
        assert patience.waits_for(0, round_)
    assert patience.waits_for(1, 128)


def test_windows_end_together_whenever_they_began() -> None:
    for round_ in range(WINDOW_ROUNDS, 2 * WINDOW_ROUNDS):
        patience = committing(round_)
        patience.was_late(1, round_)
        for later in range(round_ + 1, 2 * WINDOW_ROUNDS):
            patience.committed(later)
            assert not patience.waits_for(1, later)
        assert patience.waits_for(1, 2 * WINDOW_ROUNDS)


def test_windows_double_to_a_bound_until_the_leader_is_ready_by_itself() -> None:
    patience = committing(0)
    ends, round_ = [], 1
    for _ in range(5):
        patience.was_late(1, round_)
        start = round_
        # In time while nobody waits for it: no reason to wait for it any sooner.
        patience.was_ready(1, round_)
        while not patience.waits_for(1, round_):
            round_ += 1
            patience.committed(round_)
        ends.append(round_)
        assert round_ > start
    assert ends == [64, 128, 256, 512, 1_024]
    patience.was_ready(1, round_)
    patience.was_late(1, round_)
    patience.committed(round_ + WINDOW_ROUNDS)
    assert patience.waits_for(1, round_ + WINDOW_ROUNDS)


def test_without_commits_all_is_forgotten_and_nothing_noted() -> None:
    patience = committing(100)
    patience.was_late(1, 101)
    last = 100 + STALLED_ROUNDS
    assert not patience.waits_for(1, last)
    assert patience.waits_for(1, last + 1)
    patience.was_late(2, last + 1)
    patience.committed(last + 1)
    assert patience.waits_for(1, last + 1)
    assert patience.waits_for(2, last + 1)


def test_a_commit_after_a_stall_forgets_what_was_noted_before() -> None:
    patience = committing(100)
    patience.was_late(1, 101)
    patience.committed(101 + STALLED_ROUNDS)
    assert patience.waits_for(1, 101 + STALLED_ROUNDS)
