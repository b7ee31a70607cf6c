"""Transactions that requests waited for, until they are executed.

A pool is lost with its validator, and whoever waits for what was in it would wait in vain.  What
is batched is not lost, but its author alone offers it to consensus, and what its sender sends next
waits for it.  The gateway still has the bytes, so it gives them to the validator that its senders
turn to next.
"""

from __future__ import annotations

from collections.abc import Iterable

from qnet_actors.gateway.submission import Parsed


class Held:
    """Bounded by count and bytes: past either, the oldest are without this help."""

    def __init__(self, count_max: int, size_bytes_max: int) -> None:
        self._count_max = count_max
        self._size_bytes_max = size_bytes_max
        self._items: dict[bytes, tuple[Parsed, object]] = {}
        self._size_bytes = 0

    def __len__(self) -> int:
        return len(self._items)

    def add(self, items: Iterable[Parsed]) -> set[bytes]:
        """Before they are offered, since a validator may die before it answers.

        Returns the ids of those that nobody had it hold before.
        """
        added = set()
        for item in items:
            if item.id not in self._items:
                added.add(item.id)
                self._items[item.id] = (item, None)
                self._size_bytes += len(item.data)
            while len(self._items) > self._count_max or self._size_bytes > self._size_bytes_max:
                self.drop(next(iter(self._items)))
        return added

    def took(self, item: Parsed, by: object) -> None:
        """The pool of validator `by` has it."""
        if item.id in self._items:
            self._items[item.id] = (item, by)

    def drop(self, transaction_id: bytes) -> None:
        """Nobody needs it any more."""
        found = self._items.pop(transaction_id, None)
        if found is not None:
            self._size_bytes -= len(found[0].data)

    def of(self, by: object) -> list[Parsed]:
        """What the pool of validator `by` was the last to take, in the order in which it came."""
        return [item for item, holder in self._items.values() if holder is by]
