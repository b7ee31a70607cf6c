from __future__ import annotations

import pytest

from qnet_actors.validators.checkpoints import (
    CHECKPOINTS_MAX,
    HEIGHTS_PER_AUTHOR_MAX,
    OWN_VOTES_MAX,
    Checkpoints,
    Diverged,
)
from qnet_actors.wire.blocks import Checkpoint
from qnet_actors.wire.dag import CheckpointVote
from qnet_actors.wire.limits import DAG_BLOCK_VOTES_MAX
from tests.validators.support import make_genesis

COMMITTEE = make_genesis().committee()


def checkpoint(height: int, state: int = 0) -> Checkpoint:
    return Checkpoint(
        chain_id=bytes(32),
        height=height,
        block_hash=bytes(32),
        state_root=bytes([state]) * 32,
        commit_index=10 * height,
        commit_digest=bytes(32),
        committee=bytes(32),
        epoch=0,
        version=1,
    )


def vote(height: int, state: int = 0, author: int = 0) -> CheckpointVote:
    return CheckpointVote(height, checkpoint(height, state).digest(), bytes([author]))


def test_a_quorum_of_votes_for_an_own_checkpoint_is_a_certificate() -> None:
    checkpoints = Checkpoints(COMMITTEE)
    assert checkpoints.made(checkpoint(5))
    checkpoints.signed(2, vote(5, author=2))
    checkpoints.add(3, vote(5, author=3))
    assert checkpoints.certify() is None
    checkpoints.add(0, vote(5, author=0))
    certificate = checkpoints.certify()
    assert certificate is not None
    assert certificate.checkpoint == checkpoint(5)
    assert [(v.author, v.signature) for v in certificate.votes] == [
        (0, b"\x00"),
        (2, b"\x02"),
        (3, b"\x03"),
    ]
    assert (checkpoints.certified_height, checkpoints.certified_commit) == (5, 50)
    assert checkpoints.certify() is None
    assert not checkpoints.made(checkpoint(5))


def test_votes_that_come_before_the_execution_count() -> None:
    checkpoints = Checkpoints(COMMITTEE)
    for author in (1, 2, 3):
        checkpoints.add(author, vote(5))
    assert checkpoints.certify() is None
    checkpoints.made(checkpoint(5))
    assert checkpoints.certify() is not None


def test_an_author_votes_once_for_a_height() -> None:
    checkpoints = Checkpoints(COMMITTEE)
    checkpoints.made(checkpoint(5))
    checkpoints.add(1, vote(5))
    checkpoints.add(2, vote(5))
    checkpoints.add(2, vote(5))
    checkpoints.add(3, vote(5, state=9))
    checkpoints.add(3, vote(5))
    assert checkpoints.certify() is None


def test_the_highest_certifiable_checkpoint_is_certified_and_what_is_below_forgotten() -> None:
    checkpoints = Checkpoints(COMMITTEE)
    for height in (5, 6, 7):
        checkpoints.made(checkpoint(height))
        for author in range(4 if height < 7 else 2):
            checkpoints.add(author, vote(height))
    certificate = checkpoints.certify()
    assert certificate is not None
    assert certificate.checkpoint.height == 6
    assert checkpoints.certify() is None
    checkpoints.add(2, vote(7))
    again = checkpoints.certify()
    assert again is not None
    assert again.checkpoint.height == 7


def test_a_quorum_for_another_digest_at_an_executed_height_is_a_divergence() -> None:
    checkpoints = Checkpoints(COMMITTEE)
    for author in (1, 2, 3):
        checkpoints.add(author, vote(5, state=9))
    assert checkpoints.certify() is None
    checkpoints.made(checkpoint(5))
    with pytest.raises(Diverged, match="height 5"):
        checkpoints.certify()


def test_a_split_vote_is_noted_once_no_digest_can_win() -> None:
    checkpoints = Checkpoints(COMMITTEE)
    checkpoints.made(checkpoint(5))
    checkpoints.add(0, vote(5))
    checkpoints.add(1, vote(5, state=1))
    checkpoints.certify()
    assert checkpoints.split_height == 0
    checkpoints.add(2, vote(5, state=2))
    assert checkpoints.certify() is None
    assert checkpoints.split_height == 5


def test_stake_decides() -> None:
    committee = make_genesis((5, 4, 2, 1)).committee()
    checkpoints = Checkpoints(committee)
    checkpoints.made(checkpoint(5))
    for author in (1, 2, 3):
        checkpoints.add(author, vote(5))
    assert checkpoints.certify() is None
    checkpoints.add(0, vote(5))
    assert checkpoints.certify() is not None


def test_own_votes_are_carried_oldest_first_and_come_back_if_not_sent() -> None:
    checkpoints = Checkpoints(COMMITTEE)
    for height in range(1, 11):
        checkpoints.signed(0, vote(height))
    taken = checkpoints.take_votes()
    assert [v.height for v in taken] == list(range(1, DAG_BLOCK_VOTES_MAX + 1))
    checkpoints.return_votes(taken)
    assert [v.height for v in checkpoints.take_votes()] == [v.height for v in taken]
    assert checkpoints.has_votes_to_carry
    assert [v.height for v in checkpoints.take_votes()] == [9, 10]
    assert not checkpoints.has_votes_to_carry
    assert checkpoints.take_votes() == ()


def test_one_that_floods_votes_pushes_out_its_own_only() -> None:
    checkpoints = Checkpoints(COMMITTEE)
    checkpoints.made(checkpoint(1))
    for author in (1, 2):
        checkpoints.add(author, vote(1))
    for height in range(2, 3 * HEIGHTS_PER_AUTHOR_MAX):
        checkpoints.add(3, vote(height))
    assert sum(map(len, checkpoints._votes.values())) == 2 + HEIGHTS_PER_AUTHOR_MAX
    checkpoints.add(0, vote(1))
    assert checkpoints.certify() is not None


def test_what_is_kept_is_bounded() -> None:
    checkpoints = Checkpoints(COMMITTEE)
    for height in range(1, 300):
        checkpoints.made(checkpoint(height))
        checkpoints.signed(0, vote(height))
    assert len(checkpoints._made) == CHECKPOINTS_MAX
    assert len(checkpoints._own) == OWN_VOTES_MAX
    assert checkpoints.executed_height == 299
