"""When the ledger is asked to take blocks from peers, and how long commits wait for it."""

from __future__ import annotations

from qnet_actors.validators.catching_up import (
    CATCH_UP_MS,
    CATCH_UP_PAUSE_MS,
    STALLED_MS,
    CatchingUp,
    Standing,
)
from qnet_actors.validators.dag import Dag
from qnet_actors.validators.peers import Archive, Peers
from qnet_actors.wire.messages import PeerStatus
from tests.validators.support import make_genesis

COMMITTEE = make_genesis().committee()
NOW = 50_000


def catching_up(*commit_indices: int) -> CatchingUp:
    """Of validator 0, whose peers stand at these commits."""
    peers = Peers(Dag(COMMITTEE), Archive(8), COMMITTEE, 0, 64)
    for peer, index in enumerate(commit_indices, 1):
        peers.said(peer, PeerStatus(0, 1, index, 0, 0, index))
    return CatchingUp(peers)


def ask(
    case: CatchingUp, index: int, now_ms: int, *, executed: int | None = None, gap: bool = False
) -> tuple[int, ...]:
    executed = index if executed is None else executed
    asked = case.ask(Standing(index, executed, executed, gap), now_ms)
    return () if asked is None else asked.peers


def test_commits_go_on_after_an_answer_that_brought_nothing():
    case = catching_up(100, 100)
    assert ask(case, 10, NOW) == (1, 2)
    assert case.waits
    case.answered(False, NOW + 40)
    assert not case.waits
    assert ask(case, 10, NOW + 1_000) == ()
    # Not asked again at each word of a peer: commits wait a fraction of the time, not most of it.
    assert ask(case, 10, NOW + 40 + CATCH_UP_PAUSE_MS) == (1, 2)


def test_after_an_answer_that_brought_something_more_may_be_asked_at_once():
    case = catching_up(100, 100)
    assert ask(case, 10, NOW) == (1, 2)
    assert ask(case, 10, NOW + 1) == ()
    case.answered(True, NOW + 40)
    assert ask(case, 50, NOW + 41) == (1, 2)
    case.expire(NOW + 40 + CATCH_UP_MS)
    assert case.waits
    case.expire(NOW + 41 + CATCH_UP_MS)
    assert not case.waits


def test_who_is_a_little_behind_and_stands_still_takes_blocks_from_the_ledgers():
    case = catching_up(12, 11)
    assert ask(case, 10, NOW) == ()
    assert ask(case, 10, NOW + STALLED_MS - 1) == ()
    assert ask(case, 10, NOW + STALLED_MS) == (1, 2)
    moving = catching_up(12, 11)
    assert ask(moving, 9, NOW) == ()
    assert ask(moving, 10, NOW + STALLED_MS) == ()
    # A single validator's word is not enough, and where nobody is ahead nothing lacks.
    for others in ((12,), (10, 10, 10)):
        alone = catching_up(*others)
        assert ask(alone, 10, NOW) == ask(alone, 10, NOW + STALLED_MS) == ()


def test_who_is_left_behind_in_an_epoch_asks_those_that_have_gone_on():
    case = catching_up(10, 10, 10)
    case.left(3)
    assert ask(case, 10, NOW) == (), "one may lie, and commits would wait"
    assert ask(case, 10, NOW + STALLED_MS) == (3,)
    over = catching_up(10, 10, 10)
    over.left(3)
    asked = over.ask(Standing(10, 10, 0, False, is_over=True), NOW)
    assert asked is not None
    assert asked.peers == (3,)
    believed = catching_up(10, 10, 10)
    believed.left(3)
    believed.left(1)
    assert ask(believed, 10, NOW) == (1, 3)


def test_commits_that_nobody_here_knows_are_asked_of_everyone():
    assert ask(catching_up(0, 0), 10, NOW, gap=True) == (1, 2, 3)


def test_a_ledger_that_waits_for_batches_nobody_has_takes_blocks():
    case = catching_up(10, 10)
    assert ask(case, 10, NOW, executed=3) == ()
    assert ask(case, 11, NOW + STALLED_MS, executed=4) == ()
    assert ask(case, 12, NOW + 2 * STALLED_MS, executed=4) == (1, 2)
    # One that has nothing to do may stand for as long as it likes.
    idle = catching_up(10, 10)
    assert ask(idle, 3, NOW) == ask(idle, 4, NOW + STALLED_MS) == ()
    assert ask(idle, 5, NOW + 3 * STALLED_MS, executed=4) == ()


def test_the_ledger_hears_how_high_peers_are_certified_as_far_as_that_is_sure():
    case = catching_up(100, 100, 100)
    for peer, height in enumerate((500, 70, 60), 1):
        case._peers.said(peer, PeerStatus(0, 1, 100, 0, 0, height))
    asked = case.ask(Standing(10, 10, 0, False), NOW)
    assert asked is not None
    assert asked.height == 70
