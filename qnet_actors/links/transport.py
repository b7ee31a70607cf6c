"""Where byte streams come from: TCP in the clear here, TLS behind the same seam."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from qnet_actors.wire.hashing import ZERO_DIGEST


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """A connection as a pair of asyncio streams."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    binding: bytes = ZERO_DIGEST
    """32 bytes that both ends of a protected channel know and no one between them can choose (an
    exporter of TLS, RFC 9266); zeros in the clear.  The handshake signs them."""

    async def close(self) -> None:
        """Drops the connection at once: a peer that does not read cannot hold it open."""
        self.writer.transport.abort()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


class Listener(Protocol):
    """A listening end."""

    @property
    def address(self) -> tuple[str, int]:
        """The host and port on which it listens."""

    async def close(self) -> None:
        """Takes no more connections; those taken live on."""


class Transport(Protocol):
    """Opens and accepts streams; identities are proved above it."""

    async def open(self, host: str, port: int) -> Stream:
        """A stream to `host`; raises OSError."""

    async def listen(self, host: str, port: int, on_stream: Callable[[Stream], None]) -> Listener:
        """Listens; port 0 takes a free one.  Raises OSError."""


@dataclass(frozen=True, slots=True)
class _TcpListener:
    server: asyncio.Server

    @property
    def address(self) -> tuple[str, int]:
        name = self.server.sockets[0].getsockname()
        return str(name[0]), int(name[1])

    async def close(self) -> None:
        self.server.close()
        # From 3.12 on, waiting would be for the connections too, which end on their own.


@dataclass(frozen=True, slots=True)
class TcpTransport:
    """TCP in the clear: for validators of one operator, on a network that nobody else writes to."""

    read_buffer_bytes: int = 1024 * 1024

    async def open(self, host: str, port: int) -> Stream:
        # A StreamReader stops reading ahead at twice its limit.
        reader, writer = await asyncio.open_connection(
            host, port, limit=self.read_buffer_bytes // 2
        )
        return Stream(reader, writer)

    async def listen(self, host: str, port: int, on_stream: Callable[[Stream], None]) -> Listener:
        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            on_stream(Stream(reader, writer))

        return _TcpListener(
            await asyncio.start_server(connected, host, port, limit=self.read_buffer_bytes // 2)
        )
