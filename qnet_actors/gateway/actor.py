"""The Gateway actor, and validators behind Ray actor handles."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from qnet_actors.gateway.app import create_app
from qnet_actors.gateway.backend import Backend, FramedBackend
from qnet_actors.gateway.server import GatewayServer
from qnet_actors.gateway.settings import Settings
from qnet_actors.wire.codes import Code, QnetError


async def _answer(index: int, call: Awaitable[bytes]) -> bytes:
    try:
        return await call
    except RayError as error:
        raise QnetError(
            Code.NODE_UNREACHABLE, f"validator {index}: {type(error).__name__}"
        ) from None


def ray_backend(index: int, handle: Any) -> Backend:
    """The validator behind an actor handle that has the methods of `backend.BackendFrames`.

    Awaiting a Ray call that fails raises; `asyncio.timeout` around it cancels the call.
    """
    return FramedBackend(
        index,
        submit=lambda frame: _answer(index, handle.submit.remote(frame)),
        query=lambda frame: _answer(index, handle.query.remote(frame)),
        poll=lambda after, timeout_ms: _answer(index, handle.poll.remote(after, timeout_ms)),
    )


class Gateway:
    """A gateway in a process of its own, in front of the validators of one operator."""

    def __init__(self, validators: Sequence[tuple[int, Any]], settings: Settings) -> None:
        """`validators`: (index in the committee, actor handle)."""
        backends = [ray_backend(index, handle) for index, handle in validators]
        self._server = GatewayServer(create_app(backends, settings), settings)

    async def start(self) -> str:
        """Listens; returns the URL.  Raises `QnetError(PORT_IN_USE)`."""
        await self._server.start()
        return self._server.url

    async def healthy(self) -> bool:
        """Answers at all: what a supervisor asks."""
        await asyncio.sleep(0)
        return True

    async def close(self) -> None:
        await self._server.close()


GatewayActor = ray.remote(max_restarts=0, max_task_retries=0)(Gateway)
"""The remote class; options (name, placement, resources) are the caller's."""
