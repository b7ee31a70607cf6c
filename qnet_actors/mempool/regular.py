"""The entries of regular senders: a run of nonces without a gap, all by the account's one key.

They stand by slot and nonce, beside their senders' columns.  Whatever is not plain makes a
`SenderQueue` of its sender, until a block finds it regular again.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from qnet_actors.mempool.columns import SenderColumns
from qnet_actors.mempool.entries import Entry, rows_of
from qnet_actors.mempool.senders import Account, SenderQueue
from qnet_actors.wire.limits import U64_MAX

_PLACE: Final = struct.Struct("=QQ")


class RegularSenders:
    """Part of `Pool`, which counts the entries and knows them by id."""

    def __init__(self, columns: SenderColumns) -> None:
        self._columns = columns
        self._by_place: dict[bytes, Entry] = {}

    def run(self, sender: bytes) -> tuple[int, int] | None:
        """(first nonce, nonce behind the last) that the pool has of a regular sender, if any."""
        columns, slot = self._columns, self._columns.get(sender)
        if slot is None:
            return None
        first, frontier = int(columns.firsts[slot]), int(columns.frontiers[slot])
        return None if first == frontier else (first, frontier)

    def cost_of(self, sender: bytes) -> int:
        """What the entries of a regular sender can take."""
        slot = self._columns.get(sender)
        if slot is None or self.run(sender) is None:
            return 0
        return int(self._columns.pending[slot])

    def before(self, entry: Entry) -> Entry | None:
        """The sender's entry with the nonce before."""
        slot = self._columns.get(entry.sender)
        if slot is None or not entry.nonce:
            return None
        return self._by_place.get(_PLACE.pack(slot, entry.nonce - 1))

    def extend(self, entries: Sequence[Entry], places: npt.NDArray[np.uint64]) -> None:
        """Entries that are in the columns already; `places` uint64[n, 2]: slot and nonce."""
        keys = rows_of(places.view(np.uint8).reshape(len(entries), _PLACE.size))
        self._by_place.update(zip(keys, entries, strict=True))

    def note_ranks(self, slots: npt.NDArray[np.int64], prices: npt.NDArray[np.uint64]) -> None:
        """Brings ranks up to date where a row pays more than what it follows.

        A rank bounds that of the next entry for as long as its own entry is not batched.
        """
        columns = self._columns
        above = columns.ranks[slots] < prices
        if not above.any():
            return
        for slot in np.unique(slots[above]).tolist():
            frontier = int(columns.frontiers[slot])
            before = self._by_place.get(_PLACE.pack(slot, frontier - 1)) if frontier else None
            if before is not None:
                columns.ranks[slot] = before.rank

    def advance(self, sender: bytes, nonce: int) -> list[Entry]:
        """The account's next nonce is `nonce`: the entries before it, which are taken out."""
        run, slot = self.run(sender), self._columns.slot(sender)
        if run is None or nonce <= run[0]:
            return []
        columns, (first, frontier) = self._columns, run
        spent = [
            self._by_place.pop(_PLACE.pack(slot, at)) for at in range(first, min(nonce, frontier))
        ]
        columns.firsts[slot], columns.frontiers[slot] = nonce, max(nonce, frontier)
        columns.pending[slot] = int(columns.pending[slot]) - sum(entry.cost for entry in spent)
        if nonce >= frontier:
            columns.release((sender,))
        return spent

    def open(self, sender: bytes) -> SenderQueue | None:
        """Makes a queue of a regular sender of whom there is anything."""
        run = self.run(sender)
        if run is None:
            return None
        columns, slot = self._columns, self._columns.slot(sender)
        queue = SenderQueue(sender, Account(run[0], 0, columns.keys[slot].tobytes()))
        for nonce in range(*run):
            entry = queue.entries[nonce] = self._by_place.pop(_PLACE.pack(slot, nonce))
            queue.cost += entry.cost
        queue.frontier = run[1]
        self.refuse(sender)
        return queue

    def refuse(self, sender: bytes) -> None:
        """`sender` has a queue from now on."""
        slot = self._columns.slot(sender)
        self._columns.irregular[slot] = True
        self._columns.frontiers[slot] = self._columns.firsts[slot]

    def forget(self, sender: bytes) -> None:
        """`sender` has no queue any more, and nothing in the pool."""
        self._columns.irregular[self._columns.slot(sender)] = False
        self._columns.release((sender,))

    def close(self, queue: SenderQueue) -> bool:
        """Takes over what is in `queue` if that is regular, and says whether it was."""
        first, frontier, entries = queue.nonce, queue.frontier, queue.entries
        if queue.rotations or len(entries) != frontier - first or queue.cost > U64_MAX:
            return False
        columns, slot = self._columns, self._columns.slot(queue.address)
        for nonce in range(first, frontier):
            self._by_place[_PLACE.pack(slot, nonce)] = entries[nonce]
        last = entries[frontier - 1]
        columns.firsts[slot], columns.frontiers[slot] = first, frontier
        columns.pending[slot] = queue.cost
        columns.ranks[slot] = last.rank
        columns.keys[slot] = np.frombuffer(queue.key_id, dtype=np.uint64)
        columns.irregular[slot] = False
        return True
