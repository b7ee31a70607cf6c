"""What waits to be sent to a peer."""

from __future__ import annotations

from collections import deque


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
