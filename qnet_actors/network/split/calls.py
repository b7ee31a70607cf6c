"""Frames over Ray: small ones inline, large ones through the object store without a copy."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt
import ray
from ray.exceptions import RayError

from qnet_actors.network.split.channel import CALL_TIMEOUT_SECONDS, Channel, PortFault
from qnet_actors.rooms import AccountColumns
from qnet_actors.wire.codes import Code, QnetError

logger = logging.getLogger(__name__)

INLINE_BYTES_MAX: Final = 100_000
_FAULT_STATUS: Final = 70


def argument(frame: bytes) -> Any:
    """A frame as an argument of a call."""
    if len(frame) <= INLINE_BYTES_MAX:
        return frame
    # Nested, a reference is not resolved before the call is sent; arrays arrive without a copy.
    return [ray.put(np.frombuffer(frame, dtype=np.uint8))]


def result(frame: bytes) -> Any:
    """A frame as the result of a call."""
    return frame if len(frame) <= INLINE_BYTES_MAX else np.frombuffer(frame, dtype=np.uint8)


def received(value: Any) -> Any:
    """The frame in an argument, bytes or a buffer of them; waits in a sync actor."""
    return ray.get(value[0], timeout=CALL_TIMEOUT_SECONDS) if isinstance(value, list) else value


async def received_async(value: Any) -> Any:
    """The same in an async actor."""
    return await value[0] if isinstance(value, list) else value


def caller(handle: Any) -> Callable[[bytes], Awaitable[Any]]:
    """What carries the frames of a `Channel` to an actor's `receive`."""

    async def call(frame: bytes) -> Any:
        return await handle.receive.remote(argument(frame))

    return call


class RayPort:
    """A `state.Port` behind an actor handle.  Its answers raise `PortFault`, or what the server
    raised."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def call(self, request: bytes) -> Callable[[], bytes]:
        reference = self._handle.handle.remote(argument(request))

        def wait() -> bytes:
            try:
                answer: bytes = ray.get(reference, timeout=CALL_TIMEOUT_SECONDS)
            except RayError as error:
                if isinstance(error.__cause__, QnetError):
                    raise error.__cause__ from None
                raise PortFault(type(error).__name__) from error
            return answer

        return wait


class ShardAccounts:
    """Accounts as a mempool shard has them, for who reads few and seldom, in a thread."""

    def __init__(self, shard: Any, timeout_s: float) -> None:
        self._shard: Final = shard
        self._timeout_s: Final = timeout_s

    def read(self, addresses: npt.NDArray[np.uint8]) -> AccountColumns:
        """See `rooms.AccountReader`.  Raises `QnetError(NOT_READY)` where it does not answer."""
        calls = [self._shard.account.remote(row.tobytes()) for row in addresses]
        try:
            rows = ray.get(calls, timeout=self._timeout_s)
        except RayError as error:
            raise QnetError(
                Code.NOT_READY, f"a shard does not answer: {type(error).__name__}"
            ) from None
        keys = b"".join(key_id for _, _, _, key_id, _ in rows)
        return AccountColumns(
            nonces=np.array([nonce for _, nonce, _, _, _ in rows], dtype=np.uint64),
            balances=np.array([balance for _, _, balance, _, _ in rows], dtype=np.uint64),
            key_ids=np.frombuffer(keys, dtype=np.uint8).reshape(-1, 32),
        )


class Courier:
    """The channels of a single-threaded actor, on an event loop in a thread beside it."""

    def __init__(self, sender: str, incarnation: int) -> None:
        self._sender = sender
        self._incarnation = incarnation
        self._loop = asyncio.new_event_loop()
        self._channels: dict[str, Channel] = {}
        self._thread = threading.Thread(target=self._loop.run_forever, name="courier", daemon=True)
        self._thread.start()

    def connect(self, receivers: dict[str, Any]) -> None:
        """Opens a channel to each of these actors."""

        async def open_() -> None:
            for name, handle in receivers.items():
                self._channels[name] = Channel(
                    f"{self._sender}>{name}", self._incarnation, caller(handle), die
                )

        asyncio.run_coroutine_threadsafe(open_(), self._loop).result()

    def close(self) -> None:
        """Ends its channels and its thread; what is queued is dropped."""

        async def close_() -> None:
            for channel in self._channels.values():
                await channel.close()

        asyncio.run_coroutine_threadsafe(close_(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def put(self, receiver: str, item: bytes) -> None:
        """Queues an item; a queue that is over its bounds ends the process."""
        self._loop.call_soon_threadsafe(self._put, receiver, item)

    def _put(self, receiver: str, item: bytes) -> None:
        try:
            self._channels[receiver].put(item)
        except QnetError as error:
            die(error.detail)


def die(reason: str) -> NoReturn:
    """Ends this process at once: its validator notices, and starts again whole."""
    logger.error("this process ends: %s", reason)
    os._exit(_FAULT_STATUS)
