"""Where streams come from: TCP in the clear here, TLS behind the same seam."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from qnet_actors.links.settings import LinkSettings
from qnet_actors.links.stream import Stream


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

    read_ahead_bytes: int = LinkSettings.read_ahead_bytes

    async def open(self, host: str, port: int) -> Stream:
        loop = asyncio.get_running_loop()
        _, stream = await loop.create_connection(lambda: Stream(self.read_ahead_bytes), host, port)
        return stream

    async def listen(self, host: str, port: int, on_stream: Callable[[Stream], None]) -> Listener:
        server = await asyncio.get_running_loop().create_server(
            lambda: Stream(self.read_ahead_bytes, on_stream), host, port
        )
        return _TcpListener(server)
