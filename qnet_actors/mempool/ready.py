"""What is ready to be batched, best gas price first, a sender's nonces in order."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from qnet_actors.mempool.entries import Entry

_STALE_SPARE: Final = 1_024


class Ready:
    """The ready entries of one scheme by falling rank, then by rising ticket.

    An entry's rank is never above, and its ticket never below, that of the sender's entry before
    it, so entries come out in nonce order.  Tickets of one rank stand in a line: most pools hold
    few ranks, and a line costs less than a heap.  Leaving costs nothing: a ticket that stays in its
    line without an entry is passed over, and all is built anew once those outweigh the rest.
    """

    __slots__ = (
        "_kept",
        "_kept_nonces",
        "_lines",
        "_lowest",
        "_ranks",
        "_tickets",
        "_waiting",
        "size_bytes",
    )

    def __init__(self) -> None:
        self._lines: dict[int, deque[int]] = {}
        self._ranks: list[int] = []
        """A heap of the negated ranks that have a line, and of some that have none any more: each
        end of the order takes out what it passes from its own heap alone."""
        self._lowest: list[int] = []
        """The same, not negated."""
        self._kept: dict[int, list[int]] = {}
        """By rank, heaps of tickets that `last` has passed and taken out of their lines, so that it
        passes none of them twice; `first` puts them back."""
        self._kept_nonces: dict[bytes, int] = {}
        """Sender -> the highest nonce that it has among those."""
        self._tickets = 0
        """How many stand in the lines, or were taken out of them so."""
        self._waiting: dict[int, Entry] = {}
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, entry: Entry) -> None:
        """`entry` with its rank and a ticket above all that were given out."""
        self._trim()
        self._waiting[entry.ticket] = entry
        self.size_bytes += entry.size_bytes
        self._tickets += 1
        line = self._lines.get(entry.rank)
        if line is None:
            line = self._line(entry.rank)
        line.append(entry.ticket)

    def extend(
        self, entries: Sequence[Entry], tickets: Sequence[int], ranks: Sequence[int]
    ) -> None:
        """`add` of several, whose tickets and ranks these are."""
        self._trim()
        self._waiting.update(zip(tickets, entries, strict=True))
        self.size_bytes += sum([entry.size_bytes for entry in entries])
        self._tickets += len(entries)
        distinct = set(ranks)
        for rank in distinct:
            line = self._lines.get(rank)
            if line is None:
                line = self._line(rank)
            if len(distinct) == 1:
                line.extend(tickets)
        if len(distinct) > 1:
            for ticket, rank in zip(tickets, ranks, strict=True):
                self._lines[rank].append(ticket)

    def _line(self, rank: int) -> deque[int]:
        heapq.heappush(self._ranks, -rank)
        heapq.heappush(self._lowest, rank)
        line = self._lines[rank] = deque()
        return line

    def put_back(self, entries: Iterable[tuple[Entry, int]]) -> None:
        """Entries with the tickets that `pop` gave, in the order in which it took them out."""
        self._trim()
        for entry, ticket in reversed(list(entries)):
            entry.ticket = ticket
            self._waiting[ticket] = entry
            self.size_bytes += entry.size_bytes
            self._tickets += 1
            line = self._lines.get(entry.rank)
            (self._line(entry.rank) if line is None else line).appendleft(ticket)

    def remove(self, entry: Entry) -> None:
        del self._waiting[entry.ticket]
        self.size_bytes -= entry.size_bytes
        entry.ticket = 0
        if self._tickets > 2 * len(self._waiting) + _STALE_SPARE:
            self._rebuild()

    def _trim(self) -> None:
        """Bounds all by what waits; before anything is added, whose line is not there yet."""
        held = max(len(self._ranks), len(self._lowest), len(self._kept_nonces))
        if held > 2 * len(self._waiting) + _STALE_SPARE:
            self._rebuild()

    def _rebuild(self) -> None:
        self._lines, self._ranks, self._lowest = {}, [], []
        self._kept, self._kept_nonces = {}, {}
        self._tickets = len(self._waiting)
        for ticket in sorted(self._waiting):
            rank = self._waiting[ticket].rank
            line = self._lines.get(rank)
            (self._line(rank) if line is None else line).append(ticket)

    def pop(self) -> int:
        """Takes out what `first` has just found; the ticket that it had."""
        ticket = self._lines[-self._ranks[0]].popleft()
        self._tickets -= 1
        self.remove(self._waiting[ticket])
        return ticket

    def first(self) -> Entry | None:
        """The entry that is batched next."""
        waiting = self._waiting
        while self._ranks:
            rank = -self._ranks[0]
            line = self._lines.get(rank)
            entry = None
            while line and (entry := waiting.get(line[0])) is None:
                line.popleft()
                self._tickets -= 1
            if self._kept:
                entry = self._put_back_kept(rank, entry)
            if entry is not None:
                return entry
            self._lines.pop(-heapq.heappop(self._ranks), None)
        return None

    def last(self) -> Entry | None:
        """The entry that is batched last of those that may give way.

        What is promised may not, nor what is ready before a promised one of its sender.  The
        sender of this one has nothing ready behind it.
        """
        waiting = self._waiting
        while self._lowest:
            rank = self._lowest[0]
            line = self._lines.get(rank)
            while line:
                entry = waiting.get(line[-1])
                if entry is None:
                    self._tickets -= 1
                elif entry.promised or entry.nonce < self._kept_nonces.get(entry.sender, 0):
                    nonce = max(entry.nonce, self._kept_nonces.get(entry.sender, 0))
                    self._kept_nonces[entry.sender] = nonce
                    heapq.heappush(self._kept.setdefault(rank, []), line[-1])
                else:
                    return entry
                line.pop()
            self._lines.pop(heapq.heappop(self._lowest), None)
        return None

    def _put_back_kept(self, rank: int, entry: Entry | None) -> Entry | None:
        """The first of a rank: `entry`, the first of its line, or what `last` took out of that,
        which then is the line's first again."""
        kept = self._kept.get(rank)
        if kept is None:
            return entry
        while kept and (entry is None or kept[0] < entry.ticket):
            found = self._waiting.get(heapq.heappop(kept))
            if found is None:
                self._tickets -= 1
                continue
            line = self._lines.get(rank)
            if line is None:
                # Its rank is still in the other heap: there it was found.
                heapq.heappush(self._lowest, rank)
                line = self._lines[rank] = deque()
            line.appendleft(found.ticket)
            entry = found
            break
        if not kept:
            del self._kept[rank]
            if not self._kept:
                self._kept_nonces.clear()
        return entry
