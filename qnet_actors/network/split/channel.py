"""Calls from one process of a validator to another: a queue, and one call in flight.

Concurrent calls to an async actor are reordered, and one that nobody awaits vanishes with its
actor.  So each sender has one channel to each receiver, whose one call carries everything queued
and is awaited with a timeout.  What fails is a fault of the validator: nothing is sent twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from qnet_actors.wire.codec import Struct, encode
from qnet_actors.wire.codes import Code, QnetError

CALL_TIMEOUT_SECONDS: Final = 60.0
FRAME_BYTES_MAX: Final = 8 * 1024 * 1024
"""An item over it travels alone."""
BUSY_BYTES: Final = 32 * 1024 * 1024
"""From here on the channel is busy: what may be refused is, and peers are read no more."""
QUEUE_BYTES_MAX: Final = 512 * 1024 * 1024
QUEUE_ITEMS_MAX: Final = 262_144


class PortFault(Exception):
    """A partition or executor did not answer, or the state jumped: all rooms start again."""


class Frame(Struct, frozen=True):
    """What one call carries."""

    incarnation: int
    sender: str
    sequence: int
    items: tuple[bytes, ...]


_FRAME: Final[msgspec.msgpack.Decoder[Frame]] = msgspec.msgpack.Decoder(Frame)


class Channel:
    """From this process to one other.  All methods belong to one event loop.

    `call` carries a frame over and returns the receiver's answer, which `on_answer` gets.
    `on_fault` is called once, with the reason, where a call fails or does not end in time.
    """

    def __init__(
        self,
        sender: str,
        incarnation: int,
        call: Callable[[bytes], Awaitable[Any]],
        on_fault: Callable[[str], None],
        on_answer: Callable[[Any], None] | None = None,
        timeout_seconds: float = CALL_TIMEOUT_SECONDS,
    ) -> None:
        self._sender: Final = sender
        self._incarnation: Final = incarnation
        self._call = call
        self._on_fault = on_fault
        self._on_answer = on_answer
        self._timeout: Final = timeout_seconds
        self._queue: deque[bytes] = deque()
        self._size_bytes = 0
        self._sequence = 0
        self._wanted = asyncio.Event()
        self._calm = asyncio.Event()
        self._calm.set()
        self._task = asyncio.get_running_loop().create_task(self._run())

    @property
    def busy(self) -> bool:
        return self._size_bytes >= BUSY_BYTES

    def put(self, item: bytes) -> None:
        """Queues an item.  Raises `QnetError(INTERNAL)` over the bounds: somebody does not stop."""
        if len(self._queue) >= QUEUE_ITEMS_MAX or self._size_bytes >= QUEUE_BYTES_MAX:
            raise QnetError(Code.INTERNAL, f"the queue of {self._sender} is full")
        self._queue.append(item)
        self._size_bytes += len(item)
        if self.busy:
            self._calm.clear()
        self._wanted.set()

    def nudge(self) -> None:
        """Makes a call even if nothing is queued."""
        self._wanted.set()

    async def calm(self) -> None:
        """Until the channel is not busy."""
        await self._calm.wait()

    async def close(self) -> None:
        """Ends; what is queued is dropped."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        try:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                await self._carry(self._take())
                while self._queue:
                    await self._carry(self._take())
        except Exception as error:  # noqa: BLE001 - handed on
            # The message of a remote error holds its whole traceback; the last line says what.
            what = (str(error).strip().splitlines() or [""])[-1][:500]
            self._on_fault(f"{self._sender}: {type(error).__name__}: {what}")
        finally:
            self._calm.set()

    async def _carry(self, items: tuple[bytes, ...]) -> None:
        self._sequence += 1
        frame = encode(Frame(self._incarnation, self._sender, self._sequence, items))
        async with asyncio.timeout(self._timeout):
            answer = await self._call(frame)
        if self._on_answer is not None:
            self._on_answer(answer)

    def _take(self) -> tuple[bytes, ...]:
        """Everything queued, up to the size of a frame."""
        items: list[bytes] = []
        size = 0
        while self._queue and (not items or size + len(self._queue[0]) <= FRAME_BYTES_MAX):
            items.append(self._queue.popleft())
            size += len(items[-1])
        self._size_bytes -= size
        if not self.busy:
            self._calm.set()
        return tuple(items)


class Receiver:
    """Takes frames of one incarnation of the validator, each sender's in order and once."""

    def __init__(self, incarnation: int) -> None:
        self._incarnation: Final = incarnation
        self._sequences: dict[str, int] = {}

    def items(self, data: Any) -> tuple[bytes, ...]:
        """The items of a frame (bytes or a buffer of them).  Raises `QnetError(INTERNAL)`."""
        frame = _FRAME.decode(data)
        if frame.incarnation != self._incarnation:
            raise QnetError(Code.INTERNAL, f"a frame of incarnation {frame.incarnation}")
        due = self._sequences.get(frame.sender, 0) + 1
        if frame.sequence != due:
            raise QnetError(
                Code.INTERNAL, f"frame {frame.sequence} of {frame.sender}, {due} is due"
            )
        self._sequences[frame.sender] = due
        return frame.items
