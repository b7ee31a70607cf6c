"""Requests that wait until a transaction has come far enough."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from qnet_actors.gateway.metrics import Metrics
from qnet_actors.gateway.tracker import STAGES, Change, Tracked
from qnet_actors.wire.codes import Code, QnetError

WAIT_TARGETS: Final = ("batched", "executed", "final")


def reached(tracked: Tracked, target: str) -> bool:
    """Whether waiting for `target` is over: it was reached, or never will be."""
    return tracked.refused or STAGES[tracked.status] >= STAGES[target]


class Waits:
    """Who waits for which transaction, bounded in all."""

    def __init__(self, waits_max: int, metrics: Metrics) -> None:
        self._waits_max = waits_max
        self._metrics = metrics
        self._waiting: dict[bytes, list[tuple[str, asyncio.Future[Tracked | None]]]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    async def wait(self, transaction_id: bytes, target: str, timeout_s: float) -> Tracked | None:
        """The transaction once it is as far as `target` or given up.

        None where the time is over, or events were missed and the caller should look for itself.
        Raises `QnetError(BUSY)` where too many wait.
        """
        if self._count >= self._waits_max:
            raise QnetError(Code.BUSY, "too many requests wait; ask without ?wait and poll")
        future: asyncio.Future[Tracked | None] = asyncio.get_running_loop().create_future()
        entry = (target, future)
        self._waiting.setdefault(transaction_id, []).append(entry)
        self._changed(+1)
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            return None
        finally:
            entries = self._waiting[transaction_id]
            entries.remove(entry)
            if not entries:
                del self._waiting[transaction_id]
            self._changed(-1)

    def waited_for(self, transaction_id: bytes) -> bool:
        """Whether somebody waits for it."""
        return transaction_id in self._waiting

    def resolve(self, changes: Iterable[Change]) -> None:
        """Wakes those whose transaction came far enough."""
        if not self._waiting:
            return
        for transaction_id, tracked in changes:
            for target, future in self._waiting.get(transaction_id, ()):
                if reached(tracked, target) and not future.done():
                    future.set_result(tracked)

    def wake_all(self) -> None:
        """Has every waiter look for itself: events were missed."""
        for entries in self._waiting.values():
            for _, future in entries:
                if not future.done():
                    future.set_result(None)

    def _changed(self, by: int) -> None:
        self._count += by
        self._metrics.waits.set(self._count)
