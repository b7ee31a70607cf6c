"""What stands in the place of consensus where a validator is not of the committee.

It follows the committee's ledgers from certificate to certificate, until it is elected; an observer
does so for ever.  Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from qnet_actors.rooms import (
    CatchUp,
    CaughtUp,
    CheckpointCertified,
    Effect,
    FromPeer,
    PeerUp,
    Room,
    ToPeers,
    ToRoom,
)
from qnet_actors.validators.status import ValidatorStatus
from qnet_actors.wire.committee import Committee
from qnet_actors.wire.messages import PeerStatus

FOLLOW_MS: Final = 500
"""How long after an answer the ledgers of the committee are asked again."""
ANSWER_MS: Final = 10_000
PATIENCE_MS: Final = 2_000
"""So long the first question waits for word of how far there is to go."""
BEHIND_BLOCKS_MAX: Final = 128
"""So far behind what the committee has certified an observer is still up with it: it asks twice a
second, and blocks are made all the time."""


class FollowerCore:
    """A `rooms.Core` for the room of the validator.

    It says where it stands to the committee, whose answers tell it how far it has to go: from far
    behind the ledger takes a snapshot over in the place of blocks.
    """

    def __init__(self, committee: Committee, *, observes: bool = False) -> None:
        """`observes`: it is not here to be elected."""
        self._committee: Final = committee
        self._peers: Final = tuple(range(len(committee)))
        self._observes: Final = observes
        self._said: dict[int, int] = {}
        """By member of the committee: the height that it said is certified."""
        self._due_ms = 0
        self._patient_ms: int | None = None
        self._final_height = 0

    @property
    def status(self) -> ValidatorStatus:
        """Who is to be elected is still behind, since nothing here can be proposed; an observer
        is, until it has come to where the committee is."""
        certified = self._certified_height()
        behind = certified is None or certified > self._final_height + BEHIND_BLOCKS_MAX
        return ValidatorStatus(
            certified_height=self._final_height, catching_up=behind or not self._observes
        )

    def handle(self, event: Any, now_ms: int) -> Sequence[Effect]:
        """Takes the ledger's answer, and where the committee is; nothing else concerns who has no
        part in consensus."""
        match event:
            case CaughtUp(certificate=certificate):
                self._due_ms = now_ms + FOLLOW_MS
                if certificate is None or certificate.checkpoint.height <= self._final_height:
                    return ()
                self._final_height = certificate.checkpoint.height
                return (ToRoom(Room.GATEWAY, CheckpointCertified(certificate)),)
            case PeerUp(peer=peer) if peer in self._peers:
                return (self._greeting((peer,)),)
            case FromPeer(peer=peer, message=PeerStatus() as status) if peer in self._peers:
                return self._heard(peer, status, now_ms)
        return ()

    def tick(self, now_ms: int) -> Sequence[Effect]:
        """Asks when it is time."""
        if now_ms < self._due_ms:
            return ()
        if self._patient_ms is None:
            self._patient_ms = now_ms + PATIENCE_MS
        greeting = self._greeting(self._peers)
        if self._certified_height() is None and now_ms < self._patient_ms:
            self._due_ms = now_ms + FOLLOW_MS
            return (greeting,)
        return (greeting, self._catch_up(now_ms))

    def wake_ms(self) -> int | None:
        return self._due_ms

    def _heard(self, peer: int, status: PeerStatus, now_ms: int) -> Sequence[Effect]:
        """The ledger begins as soon as it is known how far it has to go.

        What is certified in a later epoch is nothing to this committee's ledger.
        """
        if status.epoch != self._committee.epoch:
            return ()
        unknown = self._certified_height() is None
        self._said[peer] = status.final_height
        if unknown and self._certified_height() is not None:
            return (self._catch_up(now_ms),)
        return ()

    def _catch_up(self, now_ms: int) -> Effect:
        self._due_ms = now_ms + ANSWER_MS
        return ToRoom(Room.LEDGER, CatchUp(self._peers, self._certified_height() or 0))

    def _greeting(self, peers: tuple[int, ...]) -> Effect:
        status = PeerStatus(
            epoch=self._committee.epoch,
            round=0,
            commit_index=0,
            height=self._final_height,
            your_round=0,
            final_height=self._final_height,
        )
        return ToPeers(status, peers)

    def _certified_height(self) -> int | None:
        """The highest that stake with an honest validator in it says is certified; None: not so
        much stake has said anything."""
        saying: list[int] = []
        for height, peer in sorted(((h, p) for p, h in self._said.items()), reverse=True):
            saying.append(peer)
            if self._committee.stake_of(saying) >= self._committee.validity:
                return height
        return None
