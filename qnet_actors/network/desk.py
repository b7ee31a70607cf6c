"""Where a validator meets its gateways: submissions that wait, events, and what is remembered."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

from qnet_actors.gateway import (
    Answer,
    BlockEvent,
    CheckpointEvent,
    EventLog,
    Query,
    Result,
    StatusEvent,
    block_event,
)
from qnet_actors.network.answers import Answers
from qnet_actors.rooms import (
    BlockExecuted,
    CheckpointCertified,
    Joined,
    JoinProgress,
    StatusChanged,
    Submit,
    SubmitResult,
)
from qnet_actors.wire.codes import Code, QnetError

logger = logging.getLogger(__name__)

SUBMISSIONS_MAX: Final = 256
"""Calls of gateways that wait for the mempool; one more is told `busy`."""
CHECKPOINTS_KEPT: Final = 256


class EpochOverError(Exception):
    """The mempool that was to answer is no more; another one begins."""


class Desk:
    """Belongs to one event loop; the same whether rooms share the process or not."""

    def __init__(self, index: int) -> None:
        self._index: Final = index
        self._requests = itertools.count(1)
        self._submissions: dict[int, asyncio.Future[list[Result]]] = {}
        self._events = EventLog(first=time.time_ns() // 1_000)
        self._roots: deque[tuple[int, bytes]] = deque(maxlen=CHECKPOINTS_KEPT)
        self.answers: Answers | None = None
        self.stopped: str | None = None
        """Why the validator stopped; None where it did not."""
        self.joining: JoinProgress | None = None
        """How much of a snapshot is here; None: none is being fetched."""
        self.disk_low = False
        """Whether it takes no work for want of room on its disk."""
        self.silent = False
        """Whether one of its processes has not answered for a while."""

    async def submit(
        self, transactions: list[bytes], hand_over: Callable[[Submit], None]
    ) -> list[Result]:
        """Hands transactions to a mempool shard and waits for its answer.

        Raises `QnetError`: BUSY, or NOT_READY where the validator stopped; EpochOverError.
        """
        self.check_running()
        if len(self._submissions) >= SUBMISSIONS_MAX:
            raise QnetError(Code.BUSY)
        request = next(self._requests)
        answer: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
        self._submissions[request] = answer
        try:
            hand_over(Submit(request, tuple(transactions)))
            return await answer
        finally:
            self._submissions.pop(request, None)

    async def submit_to_next(
        self,
        transactions: list[bytes],
        ready: Callable[[], Awaitable[Callable[[Submit], None]]],
    ) -> list[Result]:
        """The same; where the epoch ends meanwhile, the mempool of the next one answers.

        `ready` waits until there is a mempool, and gives what hands over to it.
        """
        again = False
        while True:
            hand_over = await ready()
            try:
                results = await self.submit(transactions, hand_over)
            except EpochOverError:
                again = True
                continue
            return [_taken(result) for result in results] if again else results

    async def query(self, request: Query) -> Answer:
        """See `gateway.backend.Backend`."""
        if self.answers is None:
            raise QnetError(Code.NOT_READY)
        return await self.answers.answer(
            request,
            ready=self.stopped is None,
            joining=self.joining,
            disk_low=self.disk_low,
        )

    async def poll(self, after: int, timeout_ms: int) -> tuple[int, list[bytes]]:
        """See `gateway.backend.Backend`.  Raises `QnetError(NOT_READY)` as `check_answering`."""
        self.check_answering()
        return await self._events.poll(after, timeout_ms)

    def state_roots(self) -> list[tuple[int, bytes]]:
        """(height, state root) of the newest checkpoints executed here, oldest first."""
        return list(self._roots)

    def check_running(self) -> None:
        """Raises `QnetError(NOT_READY)` where the validator stopped."""
        if self.stopped is not None:
            raise QnetError(Code.NOT_READY, f"validator {self._index} stopped: {self.stopped}")

    def check_answering(self) -> None:
        """Raises `QnetError(NOT_READY)` while a process of the validator does not answer.

        What such a one was given waits in it, so gateways turn to another validator, with that too.
        """
        if self.silent:
            raise QnetError(Code.NOT_READY, "one of its processes does not answer")

    def on_event(self, event: Any) -> None:
        """Takes what the rooms have for the gateway."""
        match event:
            case SubmitResult(request=request, results=results):
                if self.answers is not None:
                    self.answers.received([r[1] for r in results if r[0] == Code.SUCCESS])
                waiting = self._submissions.get(request)
                if waiting is not None and not waiting.done():
                    waiting.set_result(list(results))
            case StatusChanged(status=status, ids=ids):
                self._publish(StatusEvent(status, b"".join(ids)))
            case BlockExecuted(record=record, block_hash=block_hash):
                if record.checkpoint is not None:
                    self._roots.append((record.header.height, record.checkpoint.state_root))
                self._publish(block_event(record, block_hash))
            case Joined(record=record, block_hash=block_hash):
                logger.info(
                    "validator %d goes on from the snapshot at block %d",
                    self._index,
                    record.header.height,
                )
                self.joining = None
                self.on_event(BlockExecuted(record, block_hash, (), ()))
            case JoinProgress(height=0):
                self.joining = None
            case JoinProgress():
                self.joining = event
                logger.info(
                    "validator %d joins at block %d: %d of %d parts of the snapshot",
                    self._index,
                    event.height,
                    event.parts,
                    event.parts_total,
                )
            case CheckpointCertified(certificate=certificate):
                self._publish(CheckpointEvent(certificate.checkpoint))

    def renew(self) -> None:
        """The epoch is over: what its mempool has not answered is to be submitted to the next."""
        for waiting in self._submissions.values():
            if not waiting.done():
                waiting.set_exception(EpochOverError)

    def end(self, reason: str) -> None:
        """The validator stopped; the first reason stands."""
        if self.stopped is None:
            self.stopped = reason
        for waiting in self._submissions.values():
            if not waiting.done():
                waiting.set_exception(QnetError(Code.NOT_READY, "the validator stopped"))

    def _publish(self, event: BlockEvent | StatusEvent | CheckpointEvent) -> None:
        self._events.append(event)
        if self.answers is not None:
            self.answers.note(event)


def _taken(result: Result) -> Result:
    """What the mempool before had taken over already is no duplicate of its sender's making."""
    code, id_, detail = result
    return (Code.SUCCESS, id_, "") if code == Code.DUPLICATE else (code, id_, detail)
