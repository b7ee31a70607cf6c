"""Frames on a stream: a big-endian u32 of the length, then so many bytes; length 0 keeps alive."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from qnet_actors.links.counters import Reason

LENGTH_BYTES: Final = 4
_CHUNK_BYTES: Final = 256 * 1024


class Ended(Exception):
    """A connection that cannot go on, and why."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


def length_prefix(payload: bytes) -> bytes:
    """What stands before `payload` on the stream."""
    return len(payload).to_bytes(LENGTH_BYTES, "big")


async def read_frame(
    reader: asyncio.StreamReader,
    size_bytes_max: int,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> bytes:
    """The next frame's payload; `on_bytes` hears of each part as it comes.

    A length over `size_bytes_max` raises `Ended(OVERSIZED_FRAME)` before anything is set aside for
    it; the end of the stream raises `Ended(LOST)`.
    """
    try:
        size = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
        on_bytes(LENGTH_BYTES)
        if size > size_bytes_max:
            raise Ended(Reason.OVERSIZED_FRAME)
        parts = []
        while size:
            part = await reader.read(min(size, _CHUNK_BYTES))
            if not part:
                raise Ended(Reason.LOST)
            on_bytes(len(part))
            parts.append(part)
            size -= len(part)
    except (asyncio.IncompleteReadError, OSError):
        raise Ended(Reason.LOST) from None
    return parts[0] if len(parts) == 1 else b"".join(parts)


class FrameQueue:
    """Payloads that wait for a peer, bounded in number and bytes.

    A full queue drops the oldest: what is newest says most about where the sender stands, and the
    rooms ask again for what they miss.
    """

    def __init__(self, frames_max: int, bytes_max: int) -> None:
        self._frames_max = frames_max
        self._bytes_max = bytes_max
        self._payloads: deque[bytes] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._payloads)

    def push(self, payload: bytes) -> int:
        """Adds a payload; returns how many older ones made room for it."""
        dropped = 0
        self._payloads.append(payload)
        self._bytes += len(payload)
        while len(self._payloads) > 1 and (
            len(self._payloads) > self._frames_max or self._bytes > self._bytes_max
        ):
            self._bytes -= len(self._payloads.popleft())
            dropped += 1
        return dropped

    def take(self) -> list[bytes]:
        """All that wait, oldest first; the queue is empty afterwards."""
        payloads = list(self._payloads)
        self._payloads.clear()
        self._bytes = 0
        return payloads
