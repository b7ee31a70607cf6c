"""What became of transactions, remembered for a bounded time and in bounded space.

A transaction is received, batched, executed and final, in this order; or a pool gave it up:
replaced, evicted, expired, unpayable, or because its nonce or its key is not the account's any
more.  The block log knows what was executed for ever; this remembers what it does not know, and
tells who waits.  A validator and its gateways keep one each.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec
from msgspec.structs import replace

from qnet_actors.gateway.events import BlockEvent, CheckpointEvent, Event, StatusEvent

RECEIVED: Final = "received"
BATCHED: Final = "batched"
EXECUTED: Final = "executed"
FINAL: Final = "final"
STAGES: Final = {RECEIVED: 0, BATCHED: 1, EXECUTED: 2, FINAL: 3}
REFUSALS: Final = frozenset(
    {"replaced", "evicted", "expired", "unpayable", "nonce_too_low", "key_not_current"}
)

RETENTION_MS: Final = 600_000
OPEN_MAX: Final = 500_000
REFUSED_MAX: Final = 100_000


class Tracked(msgspec.Struct, frozen=True, gc=False):
    """The last that is known of a transaction."""

    status: str
    since_ms: int
    height: int = 0
    """The rest only where executed or final."""
    position: int = 0
    """Index in the block."""
    block_hash: bytes = b""
    code: int = 0
    """The receipt's."""
    gas_used: int = 0

    @property
    def refused(self) -> bool:
        return self.status in REFUSALS

    @property
    def ended(self) -> bool:
        """Whether this is the last word."""
        return self.status == FINAL or self.refused


Change = tuple[bytes, Tracked]


def split_ids(column: bytes) -> Iterator[bytes]:
    """The ids of a column of them."""
    return (column[i : i + 32] for i in range(0, len(column), 32))


class Tracker:
    """Statuses by transaction id.

    What is on its way is kept until it is final, and the oldest forgotten past `open_max`; what a
    pool gave up is kept for `retention_ms`, and the oldest forgotten past `refused_max`.  A
    final transaction is left to the block log.
    """

    def __init__(
        self,
        *,
        retention_ms: int = RETENTION_MS,
        open_max: int = OPEN_MAX,
        refused_max: int = REFUSED_MAX,
    ) -> None:
        self._retention_ms = retention_ms
        self._open_max = open_max
        self._refused_max = refused_max
        self._open: dict[bytes, Tracked] = {}
        self._refused: dict[bytes, Tracked] = {}
        self._unfinal: deque[tuple[int, list[bytes]]] = deque()
        self._unfinal_count = 0
        self.height = 0
        """Of the latest block that was applied."""
        self.final_height = 0

    def __len__(self) -> int:
        return len(self._open) + len(self._refused)

    def status(self, transaction_id: bytes) -> Tracked | None:
        """The last that is known; None: nothing, or final by now."""
        return self._open.get(transaction_id) or self._refused.get(transaction_id)

    def received(self, ids: Iterable[bytes], now_ms: int) -> list[bytes]:
        """Notes transactions that a pool took or is offered; returns those that were not open."""
        tracked = Tracked(RECEIVED, now_ms)
        added = []
        for transaction_id in ids:
            if transaction_id not in self._open:
                self._refused.pop(transaction_id, None)
                self._open[transaction_id] = tracked
                added.append(transaction_id)
        self._forget(now_ms)
        return added

    def forget(self, ids: Iterable[bytes]) -> None:
        """Drops transactions that are no further than received: the pool refused them."""
        for transaction_id in ids:
            tracked = self._open.get(transaction_id)
            if tracked is not None and tracked.status == RECEIVED:
                del self._open[transaction_id]

    def passed(self, transaction_id: bytes, height: int) -> None:
        """Drops a transaction that stands in a block applied before it was followed.

        A validator that comes back tells anew what it has batched, also what is long final; no
        event would ever move that on.
        """
        tracked = self._open.get(transaction_id)
        if tracked is not None and not tracked.height and height <= self.height:
            del self._open[transaction_id]

    def apply(self, event: Event, now_ms: int) -> list[Change]:
        """Takes an event; returns the transactions that it moved on, those now final among them.

        A block that was applied before changes nothing, so the streams of several validators may
        be mixed.  Of a block's transactions only those already known are followed.
        """
        match event:
            case StatusEvent():
                changes = self._apply_status(event, now_ms)
            case BlockEvent():
                changes = self._apply_block(event, now_ms)
            case CheckpointEvent():
                changes = self._apply_final(event.checkpoint.height, now_ms)
            case _:
                changes = []
        self._forget(now_ms)
        return changes

    def _apply_status(self, event: StatusEvent, now_ms: int) -> list[Change]:
        tracked = Tracked(event.status, now_ms)
        changes: list[Change] = []
        for transaction_id in split_ids(event.ids):
            before = self._open.get(transaction_id)
            if before is not None and before.status == EXECUTED:
                continue
            if tracked.refused:
                self._open.pop(transaction_id, None)
                # Taken out first, so that the dict stays in order of time.
                self._refused.pop(transaction_id, None)
                self._refused[transaction_id] = tracked
            elif event.status in STAGES:
                if before is not None and STAGES[before.status] >= STAGES[event.status]:
                    continue
                self._refused.pop(transaction_id, None)
                self._open[transaction_id] = tracked
            else:
                continue
            changes.append((transaction_id, tracked))
        return changes

    def _apply_block(self, event: BlockEvent, now_ms: int) -> list[Change]:
        height = event.header.height
        if height <= self.height:
            return []
        self.height = height
        changes: list[Change] = []
        count = len(event.ids) // 32
        codes = struct.unpack(f"<{count}H", event.statuses)
        gas_used = struct.unpack(f"<{count}Q", event.gas_used)
        for position, transaction_id in enumerate(split_ids(event.ids)):
            if transaction_id not in self._open and transaction_id not in self._refused:
                continue
            tracked = Tracked(
                EXECUTED,
                now_ms,
                height,
                position,
                event.block_hash,
                codes[position],
                gas_used[position],
            )
            self._refused.pop(transaction_id, None)
            self._open[transaction_id] = tracked
            changes.append((transaction_id, tracked))
        if changes:
            self._unfinal.append((height, [transaction_id for transaction_id, _ in changes]))
            self._unfinal_count += len(changes)
        if height <= self.final_height:
            changes += self._apply_final(self.final_height, now_ms)
        return changes

    def _apply_final(self, height: int, now_ms: int) -> list[Change]:
        self.final_height = max(self.final_height, height)
        changes: list[Change] = []
        while self._unfinal and self._unfinal[0][0] <= self.final_height:
            for transaction_id in self._take_unfinal():
                tracked = self._open.pop(transaction_id, None)
                if tracked is not None:
                    final = replace(tracked, status=FINAL, since_ms=now_ms)
                    changes.append((transaction_id, final))
        return changes

    def _take_unfinal(self) -> list[bytes]:
        ids = self._unfinal.popleft()[1]
        self._unfinal_count -= len(ids)
        return ids

    def _forget(self, now_ms: int) -> None:
        while self._unfinal_count > self._open_max:
            for transaction_id in self._take_unfinal():
                self._open.pop(transaction_id, None)
        while len(self._open) > self._open_max:
            del self._open[next(iter(self._open))]
        while self._refused:
            transaction_id, tracked = next(iter(self._refused.items()))
            overdue = tracked.since_ms + self._retention_ms <= now_ms
            if not overdue and len(self._refused) <= self._refused_max:
                return
            del self._refused[transaction_id]
