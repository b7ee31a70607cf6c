"""Frames on a connection: a big-endian u32 of the length, then so many bytes; 0 keeps alive.

A protocol of asyncio's buffered kind: the payload of a large frame is received straight into its
own buffer.  Batches are megabytes, and each copy of one costs as much as sending it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, cast

from qnet_actors.links.counters import Reason
from qnet_actors.wire.hashing import ZERO_DIGEST

LENGTH_BYTES: Final = 4
Payload = bytes | bytearray


class Ended(Exception):
    """A connection that cannot go on, and why."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


def length_prefix(payload: Payload) -> bytes:
    """What stands before `payload` on the stream."""
    return len(payload).to_bytes(LENGTH_BYTES, "big")


class Stream(asyncio.BufferedProtocol):
    """Reads and writes frames on a transport of asyncio; one reader and one writer at a time.

    At most `read_ahead_bytes` are received before they are asked for.  `binding` is 32 bytes that
    both ends of a protected channel know and no one between them can choose (an exporter of TLS,
    RFC 9266); zeros in the clear.  The handshake signs it.
    """

    def __init__(
        self,
        read_ahead_bytes: int,
        on_connected: Callable[[Stream], None] = lambda _: None,
        binding: bytes = ZERO_DIGEST,
    ) -> None:
        self.binding: Final = binding
        self.on_bytes: Callable[[], None] = lambda: None
        """Called whenever anything comes."""
        self._on_connected = on_connected
        self._ahead = memoryview(bytearray(max(read_ahead_bytes, 2 * LENGTH_BYTES)))
        self._start = self._end = 0
        # The rest of the payload that is being received, if it does not fit what was read ahead.
        self._rest: memoryview | None = None
        self._paused = False
        self._over = False
        self._wake: asyncio.Event = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._lost = asyncio.Event()
        self._transport: asyncio.Transport | None = None

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._on_connected(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._rest is not None:
            return self._rest
        if self._end == len(self._ahead) and self._start:
            unread = self._end - self._start
            self._ahead[:unread] = self._ahead[self._start : self._end]
            self._start, self._end = 0, unread
        return self._ahead[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        self.on_bytes()
        if self._rest is not None:
            self._rest = self._rest[nbytes:]
            if not len(self._rest):
                self._rest = None
                self._pause()
                self._wake.set()
            return
        self._end += nbytes
        if self._end - self._start == len(self._ahead):
            self._pause()
        self._wake.set()

    def eof_received(self) -> bool:
        self._over = True
        self._wake.set()
        # The reader closes, once it has had what came before the end.
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._over = True
        self._wake.set()
        self._writable.set()
        self._lost.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # What a link calls.

    @property
    def waiting_bytes(self) -> int:
        """What was written and not yet taken by the system; 0 once the connection is over."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return 0
        return transport.get_write_buffer_size()

    async def read_frame(self, size_bytes_max: int) -> Payload:
        """The next frame's payload.

        A length over `size_bytes_max` raises `Ended(OVERSIZED_FRAME)` before anything is set aside
        for it; the end of the stream raises `Ended(LOST)`.
        """
        while self._end - self._start < LENGTH_BYTES:
            await self._more()
        start = self._start + LENGTH_BYTES
        size = int.from_bytes(self._ahead[self._start : start], "big")
        if size > size_bytes_max:
            raise Ended(Reason.OVERSIZED_FRAME)
        if self._end - start >= size:
            payload: Payload = bytes(self._ahead[start : start + size])
            self._start = start + size
        else:
            payload = bytearray(size)
            target = memoryview(payload)
            here = self._end - start
            target[:here] = self._ahead[start : self._end]
            self._start = self._end
            self._rest = target[here:]
            while self._rest is not None:
                await self._more()
        if self._start == self._end:
            self._start = self._end = 0
        return payload

    async def _more(self) -> None:
        if self._over:
            raise Ended(Reason.LOST)
        self._wake.clear()
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        await self._wake.wait()

    def _pause(self) -> None:
        """Leaves what comes next with the system, and so with the sender, until it is wanted."""
        if not self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def write(self, payloads: Sequence[Payload]) -> int:
        """Hands frames to the transport in one write; returns the bytes.  Raises `Ended(LOST)`."""
        transport = self._transport
        if transport is None or transport.is_closing():
            raise Ended(Reason.LOST)
        parts = [part for payload in payloads for part in (length_prefix(payload), payload)]
        transport.writelines(parts)
        return sum(map(len, parts))

    async def drain(self) -> None:
        """Waits until the transport wants more."""
        await self._writable.wait()

    async def close(self) -> None:
        """Drops the connection at once: a peer that does not read cannot hold it open."""
        if self._transport is not None:
            self._transport.abort()
            await self._lost.wait()
