"""Following: how far there is to go is believed of a stake that holds an honest validator."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from qnet_actors.rooms import CatchUp, Effect, FromPeer, PeerUp, Room, ToPeers, ToRoom
from qnet_actors.validators import FollowerCore
from qnet_actors.validators.follower import BEHIND_BLOCKS_MAX, FOLLOW_MS, PATIENCE_MS
from qnet_actors.wire.committee import Committee, Member
from qnet_actors.wire.messages import PeerStatus

PEERS = (0, 1, 2, 3)


@pytest.fixture
def committee() -> Committee:
    members = (Member(2, bytes([i]) * 1_952, 1, bytes(32)) for i in PEERS)
    return Committee(members, 0, bytes(32))


def status(final_height: int, epoch: int = 0) -> PeerStatus:
    return PeerStatus(epoch, 9, 9, final_height, 0, final_height)


def asked(effects: Sequence[Effect]) -> list[int]:
    """The heights with which the ledger is told to catch up."""
    return [
        effect.event.height
        for effect in effects
        if isinstance(effect, ToRoom)
        and effect.room is Room.LEDGER
        and isinstance(effect.event, CatchUp)
    ]


def test_the_ledger_begins_once_a_stake_with_an_honest_validator_has_spoken(committee: Committee):
    core = FollowerCore(committee)
    assert not asked(core.tick(1_000))
    assert not asked(core.handle(FromPeer(3, status(10**9)), 1_001))
    assert asked(core.handle(FromPeer(0, status(5_000)), 1_002)) == [5_000]
    assert not asked(core.handle(FromPeer(1, status(5_001)), 1_003))


def test_strangers_and_later_epochs_say_nothing(committee: Committee):
    core = FollowerCore(committee)
    core.tick(0)
    for peer, said in ((4, status(7)), (5, status(7)), (0, status(7, 1)), (1, status(7, 1))):
        assert not core.handle(FromPeer(peer, said), 1)
    assert core.status.catching_up


def test_it_begins_without_word_after_a_while(committee: Committee):
    core = FollowerCore(committee)
    core.tick(0)
    assert core.wake_ms() == FOLLOW_MS
    assert not asked(core.tick(PATIENCE_MS - 1))
    assert asked(core.tick(core.wake_ms() or 0)) == [0]


def test_each_member_that_comes_up_is_told_where_it_stands(committee: Committee):
    core = FollowerCore(committee)
    (effect,) = core.handle(PeerUp(2), 0)
    assert isinstance(effect, ToPeers)
    assert effect.peers == (2,)
    assert isinstance(effect.message, PeerStatus)
    assert not core.handle(PeerUp(4), 0)


@pytest.mark.parametrize(
    ("observes", "height", "behind"),
    [(True, BEHIND_BLOCKS_MAX, False), (True, BEHIND_BLOCKS_MAX + 1, True), (False, 0, True)],
)
def test_only_an_observer_is_ever_up_with_the_committee(
    committee: Committee, observes: bool, height: int, behind: bool
):
    core = FollowerCore(committee, observes=observes)
    assert core.status.catching_up
    for peer in PEERS:
        core.handle(FromPeer(peer, status(height)), 0)
    assert core.status.catching_up is behind
