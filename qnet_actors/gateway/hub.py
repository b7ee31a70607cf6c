"""Subscribers of a gateway and their bounded queues; no sockets here."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from qnet_actors.gateway.events import BlockEvent, CheckpointEvent
from qnet_actors.gateway.tracker import Change, Tracked, split_ids
from qnet_actors.gateway.views import header_view, status_name
from qnet_actors.wire.codes import Code, QnetError

_encode: Final = msgspec.json.Encoder().encode


class Subscriber:
    """What one connection wants, and what waits for it.

    A full queue is given up as a whole: `overflowed` is set, the queue emptied, and what would
    have come is only counted, so that the reader can be told before it is dropped.
    """

    def __init__(self, queue_max: int, queue_bytes_max: int, subscriptions_max: int) -> None:
        self.blocks = False
        self.block_transactions = False
        self.transactions: set[bytes] = set()
        self.overflowed = False
        self.missed = 0
        self._queue_max = queue_max
        self._queue_bytes_max = queue_bytes_max
        self._subscriptions_max = subscriptions_max
        self._queue: deque[bytes] = deque()
        self._queue_bytes = 0
        self._ready = asyncio.Event()

    def follow(self, transaction_id: bytes) -> None:
        """Adds a transaction; raises `QnetError(BUSY)` past the bound."""
        if len(self.transactions) >= self._subscriptions_max:
            raise QnetError(
                Code.BUSY, f"a connection follows at most {self._subscriptions_max} transactions"
            )
        self.transactions.add(transaction_id)

    def put(self, message: bytes) -> None:
        """Queues a message, or gives the queue up."""
        if self.overflowed:
            self.missed += 1
            return
        self._queue.append(message)
        self._queue_bytes += len(message)
        if len(self._queue) > self._queue_max or self._queue_bytes > self._queue_bytes_max:
            self.overflowed = True
            self.missed = len(self._queue)
            self._queue.clear()
            self._queue_bytes = 0
        self._ready.set()

    async def get(self) -> bytes | None:
        """The next message; None once the queue was given up."""
        while not self._queue:
            if self.overflowed:
                return None
            self._ready.clear()
            await self._ready.wait()
        message = self._queue.popleft()
        self._queue_bytes -= len(message)
        return message


class Hub:
    """Hands what happens to whoever wants it; a message is encoded once for all."""

    def __init__(self) -> None:
        self.subscribers: set[Subscriber] = set()
        self._height = 0

    def block(self, event: BlockEvent, final: bool) -> None:
        """Tells of a block; heights that never came (the gateway itself missed them) are named."""
        height = event.header.height
        gap = self._height and height - self._height > 1
        bare = transactions = None
        for subscriber in self.subscribers:
            if not subscriber.blocks:
                continue
            if gap:
                subscriber.put(_encode(missed_blocks(self._height + 1, height - 1)))
            if subscriber.block_transactions:
                transactions = transactions or _encode(block_message(event, final, True))
                subscriber.put(transactions)
            else:
                bare = bare or _encode(block_message(event, final, False))
                subscriber.put(bare)
        self._height = height

    def checkpoint(self, event: CheckpointEvent) -> None:
        """Tells those who want blocks up to where they are final now."""
        message = _encode(
            {
                "type": "final",
                "height": str(event.checkpoint.height),
                "block_hash": event.checkpoint.block_hash.hex(),
                "state_root": event.checkpoint.state_root.hex(),
            }
        )
        self._each(lambda subscriber: subscriber.blocks, message)

    def changes(self, changes: Iterable[Change]) -> None:
        """Tells of the transactions that somebody follows; a final word ends the following."""
        followers = [subscriber for subscriber in self.subscribers if subscriber.transactions]
        if not followers:
            return
        for transaction_id, tracked in changes:
            message = None
            for subscriber in followers:
                if transaction_id in subscriber.transactions:
                    message = message or _encode(transaction_message(transaction_id, tracked))
                    subscriber.put(message)
                    if tracked.refused or tracked.status == "final":
                        subscriber.transactions.discard(transaction_id)

    def followed(self, event: BlockEvent) -> list[bytes]:
        """The transactions of a block that somebody follows, wherever they were submitted."""
        wanted: set[bytes] = set()
        for subscriber in self.subscribers:
            wanted |= subscriber.transactions
        return [id_ for id_ in split_ids(event.ids) if id_ in wanted] if wanted else []

    def missed(self) -> None:
        """Tells everyone that the gateway itself missed events of a validator."""
        self._each(lambda _: True, _encode({"type": "missed", "messages": None}))

    def _each(self, wanted: Callable[[Subscriber], bool], message: bytes) -> None:
        for subscriber in self.subscribers:
            if wanted(subscriber):
                subscriber.put(message)


def block_message(event: BlockEvent, final: bool, with_transactions: bool) -> dict[str, Any]:
    """A block as subscribers see it."""
    message: dict[str, Any] = {
        "type": "block",
        "hash": event.block_hash.hex(),
        "final": final,
        "header": header_view(event.header),
    }
    if with_transactions:
        count = len(event.ids) // 32
        statuses = struct.unpack(f"<{count}H", event.statuses)
        gas_used = struct.unpack(f"<{count}Q", event.gas_used)
        message["transactions"] = [
            {"id": transaction_id.hex(), "code": status_name(code), "gas_used": str(gas)}
            for transaction_id, code, gas in zip(
                split_ids(event.ids), statuses, gas_used, strict=True
            )
        ]
    return message


def transaction_message(transaction_id: bytes, tracked: Tracked) -> dict[str, Any]:
    """A change of one transaction as subscribers see it."""
    message: dict[str, Any] = {
        "type": "transaction",
        "id": transaction_id.hex(),
        "status": tracked.status,
    }
    if tracked.height:
        message["block"] = {
            "height": str(tracked.height),
            "hash": tracked.block_hash.hex(),
            "index": tracked.position,
        }
        message["receipt"] = {
            "code": status_name(tracked.code),
            "gas_used": str(tracked.gas_used),
        }
    return message


def missed_blocks(first_height: int, last_height: int) -> dict[str, Any]:
    """Blocks that a subscriber has to ask for, because the gateway did not hear of them."""
    return {
        "type": "missed",
        "first_height": str(first_height),
        "last_height": str(last_height),
    }
