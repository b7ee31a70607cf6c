"""The Ray actor around a validator, packed or split, or around an observer."""

from __future__ import annotations

import asyncio
import os
from typing import Any, Final

import msgspec
import ray

from qnet_actors.crypto import development_key, require_development
from qnet_actors.gateway import BackendFrames, CallServer, Door
from qnet_actors.network.development import OBSERVER, VALIDATOR
from qnet_actors.network.directory import Endpoint
from qnet_actors.network.host import ValidatorHost
from qnet_actors.network.memory import keep_freed_memory
from qnet_actors.network.orphan import end_with_parent
from qnet_actors.network.settings import HostSettings
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.genesis import GENESIS_CODEC

FORMER_WAIT_SECONDS: Final = 20.0
POLL_SECONDS: Final = 0.5


class ValidatorActor:
    """A validator of a development network: all of it, or its consensus and links.

    It starts at once, without being told to, so a copy that Ray makes of a dead one does too: its
    data directory knows its peers.
    """

    def __init__(self, genesis: bytes, settings: HostSettings) -> None:
        end_with_parent()
        keep_freed_memory()
        decoded = GENESIS_CODEC.decode(genesis)
        require_development(decoded.development)
        role = OBSERVER if settings.observer else VALIDATOR
        key = development_key(role, settings.index)
        if not settings.link_host:
            here = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
            settings = msgspec.structs.replace(settings, link_host=here)
        self._host = ValidatorHost(decoded, key, settings)
        self._frames = BackendFrames(self._host)
        self._calls = CallServer(self._host)
        loop = asyncio.get_running_loop()
        # Gateways are answered, if only that it is not ready, before recovery ends.
        self._door = loop.create_task(self._calls.start(settings.link_host))
        self._start = loop.create_task(self._begin())

    async def _begin(self) -> Endpoint:
        """Starts; waits for a former copy of it that is still ending."""
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + FORMER_WAIT_SECONDS
        while True:
            try:
                return await self._host.start()
            except QnetError as error:
                if error.code != Code.DATA_DIRECTORY_LOCKED or loop.time() >= give_up_s:
                    raise
            await asyncio.sleep(POLL_SECONDS)

    async def start(self) -> Endpoint:
        """Where its links listen, once it is recovered."""
        return await self._start

    async def connect(self, endpoints: list[Endpoint]) -> None:
        self._host.connect(endpoints)

    async def wait_ready(self) -> None:
        await self._host.wait_ready()

    async def receive(self, frame: Any) -> None:
        """A frame of events from another process of a split validator."""
        await self._host.receive(frame)

    async def door(self) -> Door:
        """Where gateways call it."""
        return await self._door

    async def query(self, frame: bytes) -> bytes:
        """For who holds the handle and needs one answer; see `gateway.BackendFrames`."""
        return await self._frames.query(frame)

    async def state_roots(self) -> list[tuple[int, bytes]]:
        return self._host.state_roots()

    async def measurements(self) -> dict[str, int]:
        return self._host.measurements()

    async def failure(self) -> str | None:
        """Why it does not run; None where it does, or is still starting."""
        error = self._start.exception() if self._start.done() else None
        return self._host.failure if error is None else str(error)

    async def process_id(self) -> int:
        return os.getpid()

    async def room_process_ids(self) -> dict[str, int]:
        """Of a split validator's rooms that live apart, by name."""
        return await self._host.processes()

    async def stop(self) -> None:
        await self._calls.close()
        await self._host.stop()


ValidatorHostActor: Any = ray.remote(ValidatorActor)
"""The remote class; options (name, placement, restarts) are the caller's."""
