"""What stands in the place of consensus where a validator is not of the committee.

It follows the committee's ledgers from certificate to certificate, until it is elected.  Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from qnet_actors.rooms import CatchUp, CaughtUp, CheckpointCertified, Effect, Room, ToRoom
from qnet_actors.validators.status import ValidatorStatus

FOLLOW_MS: Final = 500
"""How long after an answer the ledgers of the committee are asked again."""
ANSWER_MS: Final = 10_000


class FollowerCore:
    """A `rooms.Core` for the room of the validator."""

    def __init__(self, peers: Sequence[int]) -> None:
        """`peers`: the committee."""
        self._peers: Final = tuple(peers)
        self._due_ms = 0
        self._final_height = 0

    @property
    def status(self) -> ValidatorStatus:
        """Of somebody who is still behind, since nothing here can be proposed."""
        return ValidatorStatus(certified_height=self._final_height, catching_up=True)

    def handle(self, event: Any, now_ms: int) -> Sequence[Effect]:
        """Takes the ledger's answer; nothing else concerns who has no part in consensus."""
        if not isinstance(event, CaughtUp):
            return ()
        self._due_ms = now_ms + FOLLOW_MS
        certificate = event.certificate
        if certificate is None or certificate.checkpoint.height <= self._final_height:
            return ()
        self._final_height = certificate.checkpoint.height
        return (ToRoom(Room.GATEWAY, CheckpointCertified(certificate)),)

    def tick(self, now_ms: int) -> Sequence[Effect]:
        """Asks when it is time."""
        if now_ms < self._due_ms:
            return ()
        self._due_ms = now_ms + ANSWER_MS
        return (ToRoom(Room.LEDGER, CatchUp(self._peers)),)

    def wake_ms(self) -> int | None:
        return self._due_ms
