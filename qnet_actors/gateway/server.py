"""uvicorn around the application, on one port."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from typing import Final

import uvicorn
from fastapi import FastAPI

from qnet_actors.gateway.guards import guarded_protocols
from qnet_actors.gateway.settings import Settings
from qnet_actors.wire.codes import Code, QnetError

_BACKLOG: Final = 1_024
_KEEP_ALIVE_S: Final = 30
_SHUTDOWN_S: Final = 3
# A peer that takes nothing for so long is cut off, whatever is still queued for it.
_UNACKNOWLEDGED_MS: Final = 30_000


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
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                **guarded_protocols(settings),
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
