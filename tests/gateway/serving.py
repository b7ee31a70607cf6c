"""A gateway over fakes on a real socket, in a thread of its own, for clients that block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import msgspec

from qnet_actors.gateway.app import create_app
from qnet_actors.gateway.server import GatewayServer
from qnet_actors.gateway.settings import Settings
from tests.gateway.fakes import FakeBackend, make_backends


def free_port(settings: Settings | None) -> Settings:
    """The settings, on whichever port is free."""
    return msgspec.structs.replace(settings or Settings(), port=0)


@asynccontextmanager
async def served(
    backends: list[FakeBackend], settings: Settings | None = None
) -> AsyncIterator[GatewayServer]:
    """A gateway that listens in the running event loop."""
    chosen = free_port(settings)
    server = GatewayServer(create_app(backends, chosen), chosen)
    await server.start()
    try:
        yield server
    finally:
        await server.close()


class ThreadedWorld:
    """A gateway in another thread; what touches its fakes is run there by `call`."""

    def __init__(self, url: str, backends: list[FakeBackend], loop: Any) -> None:
        self.url = url
        self.backends = backends
        self.ledger = backends[0].ledger
        self._loop = loop

    def call(self, function: Callable[[], Any]) -> Any:
        """Runs `function` in the gateway's event loop and waits for its result."""

        async def run() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)


@contextmanager
def threaded_world(
    count: int = 1, *, auto: bool = True, settings: Settings | None = None
) -> Iterator[ThreadedWorld]:
    """A gateway over `count` fakes, reached over loopback."""
    started: list[ThreadedWorld] = []
    ready = threading.Event()
    stop: list[asyncio.Event] = []

    async def run() -> None:
        backends = make_backends(count, auto=auto)
        async with served(backends, settings) as server:
            ending = asyncio.Event()
            stop.append(ending)
            started.append(ThreadedWorld(server.url, backends, asyncio.get_running_loop()))
            ready.set()
            await ending.wait()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        assert ready.wait(20)
        yield started[0]
    finally:
        if started:
            started[0].call(stop[0].set)
        thread.join(20)
