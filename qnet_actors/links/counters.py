"""What links count: labels come from fixed sets, so a hostile peer cannot make more of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Reason(StrEnum):
    """Why a connection ended, or never became a link."""

    CLOSED = "closed"
    """By this side, in order."""
    LOST = "lost"
    """By the other side or the network."""
    REPLACED = "replaced"
    """By a newer connection of the same peer."""
    IDLE = "idle"
    WRITE_TIMEOUT = "write_timeout"
    OVERSIZED_FRAME = "oversized_frame"
    BAD_MESSAGE = "bad_message"
    FAULT = "fault"
    """Of this node: its consumer, its signer or its verifier raised."""
    TOO_SOON = "too_soon"
    """A proved peer that comes back faster than the shortest pause."""

    UNREACHABLE = "unreachable"
    HANDSHAKE_TIMEOUT = "handshake_timeout"
    BAD_HELLO = "bad_hello"
    WRONG_VERSION = "wrong_version"
    WRONG_CHAIN = "wrong_chain"
    WRONG_PEER = "wrong_peer"
    """Not known as a validator, not the one dialled, or this very validator."""
    BAD_PROOF = "bad_proof"
    CROWDED_OUT = "crowded_out"
    """Too many connections had not proved who they are, and this was the oldest."""


@dataclass(slots=True)
class PeerCounters:
    """Totals of one peer over all its connections."""

    frames_in: int = 0
    frames_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    ups: int = 0
    """Links that came to stand; all but the first are reconnects."""
    dials: int = 0
    dropped_frames: int = 0
    """Queued and then given up: by a full queue, or by the end of the link."""
    refused_frames: int = 0
    """Never queued: no link stood, or the frame was over its limit."""
    ends: dict[Reason, int] = field(default_factory=dict)

    def ended(self, reason: Reason) -> None:
        """Counts the end of a connection or of an attempt."""
        self.ends[reason] = self.ends.get(reason, 0) + 1
