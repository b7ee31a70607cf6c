"""When the ledger is asked to take blocks from peers, and how long commits wait for it."""

from __future__ import annotations

from qnet_actors.validators.catching_up import (
    CATCH_UP_MS,
    CATCH_UP_PAUSE_MS,
    STALLED_MS,
    CatchingUp,
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
        peers.said(peer, PeerStatus(0, 1, index, 0, 0, 0))
    return CatchingUp(peers)


def test_commits_go_on_after_an_answer_that_brought_nothing():
    case = catching_up(100, 100)
    assert case.ask(10, False, NOW) == (1, 2)
    assert case.waits
    case.answered(False, NOW + 40)
    assert not case.waits
    assert case.ask(10, False, NOW + 1_000) == ()
    # Not asked again at each word of a peer: commits wait a fraction of the time, not most of it.
    assert case.ask(10, False, NOW + 40 + CATCH_UP_PAUSE_MS) == (1, 2)


def test_after_an_answer_that_brought_something_more_may_be_asked_at_once():
    case = catching_up(100, 100)
    assert case.ask(10, False, NOW) == (1, 2)
    assert case.ask(10, False, NOW + 1) == ()
    case.answered(True, NOW + 40)
    assert case.ask(50, False, NOW + 41) == (1, 2)
    case.expire(NOW + 40 + CATCH_UP_MS)
    assert case.waits
    case.expire(NOW + 41 + CATCH_UP_MS)
    assert not case.waits


def test_who_is_a_little_behind_and_stands_still_takes_blocks_from_the_ledgers():
    case = catching_up(12, 11)
    assert case.ask(10, False, NOW) == ()
    assert case.ask(10, False, NOW + STALLED_MS - 1) == ()
    assert case.ask(10, False, NOW + STALLED_MS) == (1, 2)
    moving = catching_up(12, 11)
    assert moving.ask(9, False, NOW) == ()
    assert moving.ask(10, False, NOW + STALLED_MS) == ()
    # A single validator's word is not enough, and where nobody is ahead nothing lacks.
    for others in ((12,), (10, 10, 10)):
        alone = catching_up(*others)
        assert alone.ask(10, False, NOW) == alone.ask(10, False, NOW + STALLED_MS) == ()


def test_commits_that_nobody_here_knows_are_asked_of_everyone():
    assert catching_up(0, 0).ask(10, True, NOW) == (1, 2, 3)
