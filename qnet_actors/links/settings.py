"""The bounds and times of links; local to a validator, no part of the protocol."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LinkSettings:
    """Bounds and times; the defaults suit one machine as well as a wide-area network."""

    handshake_timeout_ms: int = 5_000
    """From the connection to the last proof."""
    keepalive_ms: int = 2_000
    """A link on which nothing was sent for so long sends an empty frame."""
    idle_timeout_ms: int = 10_000
    """A link on which not a byte came for so long is closed."""
    write_timeout_ms: int = 10_000
    """A link that took not a byte for so long, while some waited, is closed."""
    backoff_ms: int = 50
    """The pause before the second dial; it doubles at each failure."""
    backoff_ms_max: int = 5_000
    """The longest pause; a link that stood for so long starts again from `backoff_ms`."""
    queue_frames_max: int = 4_096
    """Frames that wait to be sent to one peer."""
    queue_bytes_max: int = 32 * 1024 * 1024
    read_ahead_bytes: int = 128 * 1024
    """What is read from one peer before it is wanted; what is more stays with the sender."""
    handshakes_max: int = 64
    """Connections that have not proved who they are; one more drops the oldest of them."""
