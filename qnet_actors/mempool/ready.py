"""What is ready to be batched, best gas price first, a sender's nonces in order."""

from __future__ import annotations

import heapq
from typing import Final

from qnet_actors.mempool.entries import Entry

_STALE_SPARE: Final = 1_024


class Ready:
    """The ready entries of one scheme by falling rank, then by rising ticket.

    An entry's rank is never above, and its ticket never below, that of the sender's entry before
    it, so entries come out in nonce order.  Leaving costs nothing: what stays in the heap without
    an entry is passed over, and the heap is built anew once that outweighs the rest.
    """

    __slots__ = ("_heap", "_waiting", "size_bytes")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int]] = []
        self._waiting: dict[int, Entry] = {}
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, entry: Entry) -> None:
        """`entry` with its rank and a ticket that no other has had."""
        self._waiting[entry.ticket] = entry
        self.size_bytes += entry.size_bytes
        heapq.heappush(self._heap, (-entry.rank, entry.ticket))

    def remove(self, entry: Entry) -> None:
        del self._waiting[entry.ticket]
        self.size_bytes -= entry.size_bytes
        entry.ticket = 0
        if len(self._heap) > 2 * len(self._waiting) + _STALE_SPARE:
            self._heap = [(-e.rank, e.ticket) for e in self._waiting.values()]
            heapq.heapify(self._heap)

    def pop(self) -> int:
        """Takes out what `first` has just found; the ticket that it had."""
        entry = self._waiting[heapq.heappop(self._heap)[1]]
        ticket = entry.ticket
        self.remove(entry)
        return ticket

    def replace(self, old: Entry, new: Entry) -> None:
        """`new`, which pays more, takes the place of `old` among the sender's entries."""
        new.rank, new.ticket = old.rank, old.ticket
        self._waiting[new.ticket] = new
        self.size_bytes += new.size_bytes - old.size_bytes
        old.ticket = 0

    def first(self) -> Entry | None:
        """The entry that is batched next."""
        heap, waiting = self._heap, self._waiting
        while heap:
            entry = waiting.get(heap[0][1])
            if entry is not None:
                return entry
            heapq.heappop(heap)
        return None
