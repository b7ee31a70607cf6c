"""The Gateway actor, which finds its validators by the names of their actors."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any, Final

import msgspec
import ray
import uvloop
from ray.exceptions import RayError

from qnet_actors.gateway.app import create_app
from qnet_actors.gateway.backend import FramedBackend
from qnet_actors.gateway.calls import CallClient, Door
from qnet_actors.gateway.server import GatewayServer
from qnet_actors.gateway.settings import Settings
from qnet_actors.wire.codes import Code, QnetError

_START_TIMEOUT_S: Final = 30.0
_STOP_TIMEOUT_S: Final = 8.0


async def locate(index: int, name: str) -> Door:
    """Where the validator in the actor of that name takes calls of gateways, once it lives.

    Raises `QnetError(NODE_UNREACHABLE)`.
    """
    handle: Any
    try:
        handle = await asyncio.to_thread(ray.get_actor, name)
    except ValueError:
        raise QnetError(Code.NODE_UNREACHABLE, f"validator {index} does not run yet") from None
    try:
        door: Door = await handle.door.remote()
    except RayError as error:
        raise QnetError(
            Code.NODE_UNREACHABLE, f"validator {index}: {type(error).__name__}"
        ) from None
    return door


class Gateway:
    """A gateway in a process of its own, in front of the validators of one operator.

    It runs in a thread with an event loop of its own (uvloop) and listens from its beginning, so a
    copy that Ray makes of a dead one needs nobody to tell it to.
    """

    def __init__(
        self,
        validators: Mapping[int, str],
        host: str | None = None,
        port: int | None = None,
        settings: Settings | None = None,
    ) -> None:
        """`validators`: names of their actors in this namespace, by index; some may come later.

        `host` and `port` come before those of `settings`.

        Raises `QnetError(CONFIGURATION_INVALID)`.
        """
        chosen = settings or Settings()
        self._settings = msgspec.structs.replace(
            chosen,
            host=chosen.host if host is None else host,
            port=chosen.port if port is None else port,
        )
        self._clients = {
            index: CallClient(partial(locate, index, name)) for index, name in validators.items()
        }
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Event | None = None
        self._started: Future[str] = Future()
        self._listen()

    def start(self) -> str:
        """The URL, once it listens.  Raises `QnetError(PORT_IN_USE)`."""
        return self._started.result(_START_TIMEOUT_S)

    def _listen(self) -> None:
        self._thread = threading.Thread(target=self._run, name="gateway", daemon=True)
        self._thread.start()

    def process_id(self) -> int:
        """The process that the gateway lives in."""
        return os.getpid()

    def stop(self) -> None:
        """Answers what has begun, for a few seconds at most, and ends."""
        if self._thread is None or self._loop is None or self._ending is None:
            return
        self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(_STOP_TIMEOUT_S)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ending = asyncio.Event()
        try:
            backends = [FramedBackend(index, one.call) for index, one in self._clients.items()]
            server = GatewayServer(create_app(backends, self._settings), self._settings)
            await server.start()
        except QnetError as error:
            self._started.set_exception(error)
            return
        except BaseException as error:
            self._started.set_exception(error)
            raise
        self._started.set_result(server.url)
        await self._ending.wait()
        await server.close()
        for client in self._clients.values():
            await client.close()


GatewayActor: Any = ray.remote(Gateway)
"""The remote class; options (name, placement, restarts) are the caller's."""
