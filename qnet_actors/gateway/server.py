"""uvicorn around the application: one port, bounded connections, heads that must arrive in time."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from typing import Any, Final, cast

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from qnet_actors.gateway.problems import PROBLEM_TYPE
from qnet_actors.gateway.settings import RETRY_AFTER_S, Settings
from qnet_actors.gateway.sockets import REQUEST_SIZE_BYTES_MAX
from qnet_actors.wire.codes import Code, QnetError

_BACKLOG: Final = 1_024
_KEEP_ALIVE_S: Final = 30
_SHUTDOWN_S: Final = 3
# A peer that takes nothing for so long is cut off, whatever is still queued for it.
_UNACKNOWLEDGED_MS: Final = 30_000


def _overloaded() -> bytes:
    body = (
        b'{"type":"urn:qnet:problem:busy","status":503,"code":"busy",'
        b'"title":"Too many connections","detail":"Too many connections; try again later."}'
    )
    return b"\r\n".join(
        (
            b"HTTP/1.1 503 Service Unavailable",
            b"content-type: " + PROBLEM_TYPE.encode(),
            b"retry-after: %d" % RETRY_AFTER_S,
            b"connection: close",
            b"content-length: %d" % len(body),
            b"",
            body,
        )
    )


def guarded_protocol(settings: Settings) -> type[asyncio.Protocol]:
    """uvicorn's HTTP protocol with bounds that it lacks: connections, size and time of a head.

    uvicorn takes a class, so a subclass is the one way in.
    """

    class GuardedHttp(HttpToolsProtocol):
        _head_bytes = 0
        _head_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            # A cast: uvloop's transports do not derive from asyncio's.
            super().connection_made(cast(asyncio.Transport, transport))
            if len(self.connections) > settings.connections_max:
                self.transport.write(_overloaded())
                self.transport.close()
                return
            self._expect_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._head_done()
            super().connection_lost(exc)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            if self._head_timer is None:
                self._expect_head()

        def on_url(self, url: bytes) -> None:
            self._count_head(len(url))
            super().on_url(url)

        def on_header(self, name: bytes, value: bytes) -> None:
            self._count_head(len(name) + len(value))
            super().on_header(name, value)

        def on_headers_complete(self) -> None:
            self._head_done()
            super().on_headers_complete()

        def _expect_head(self) -> None:
            self._head_bytes = 0
            self._head_timer = self.loop.call_later(
                settings.header_timeout_ms / 1_000, self.transport.close
            )

        def _count_head(self, size_bytes: int) -> None:
            self._head_bytes += size_bytes
            if self._head_bytes > settings.header_bytes_max:
                # The parser answers 400 to whatever a callback raises, and closes.
                raise ValueError("the head of the request is too large")

        def _head_done(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

    return GuardedHttp


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; raises `QnetError(PORT_IN_USE)` or `QnetError(CONFIGURATION_INVALID)`."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise QnetError(Code.CONFIGURATION_INVALID, f"gateway host {host}: {error}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit both.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise QnetError(Code.PORT_IN_USE, f"{host}:{port} is taken") from None
        raise QnetError(Code.CONFIGURATION_INVALID, f"gateway {host}:{port}: {error}") from None
    listener.setblocking(False)
    return listener


class GatewayServer:
    """An application listening on a port, inside the event loop that runs already."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        self.app = app
        self._settings = settings
        protocol: Any = guarded_protocol(settings)
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=protocol,
                ws="websockets-sansio",
                ws_max_size=REQUEST_SIZE_BYTES_MAX,
                ws_per_message_deflate=False,
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=bool(settings.trusted_proxies),
                forwarded_allow_ips=list(settings.trusted_proxies),
                backlog=_BACKLOG,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=_SHUTDOWN_S,
            )
        )
        # The process's signals belong to whoever hosts the gateway.
        self._server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
        self._task: asyncio.Task[None] | None = None
        self.port = 0
        """The port that is listened on, once started."""

    @property
    def url(self) -> str:
        """Where a client on this machine, or one that can reach the host, finds it."""
        host = self._settings.host
        if host in ("0.0.0.0", "::", ""):
            host = "127.0.0.1"
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    async def start(self) -> None:
        """Listens and answers; raises `QnetError(PORT_IN_USE)`."""
        listener = bind(self._settings.host, self._settings.port)
        self.port = listener.getsockname()[1]
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]))
        while not self._server.started:
            done, _ = await asyncio.wait([self._task], timeout=0.005)
            if done:
                await self._task
                raise QnetError(Code.INTERNAL, "the gateway ended while it started")

    async def wait(self) -> None:
        """Returns when the gateway has ended."""
        if self._task is not None:
            await self._task

    async def close(self) -> None:
        """Answers what has begun, for a few seconds at most, and ends."""
        self._server.should_exit = True
        await self.wait()
