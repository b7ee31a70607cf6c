"""The bounded pool: queues of nonces by sender, replacement, eviction, and what is ready.

All checks that depend on the pool or on accounts are here; see `refusal`.  The pool holds three
kinds of entries: pending, batched by this validator, and seen in another author's batch.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from qnet_actors.mempool.columns import SenderColumns
from qnet_actors.mempool.entries import BATCHED, PENDING, SEEN, UNRANKED, Entry, Rows
from qnet_actors.mempool.ready import Ready
from qnet_actors.mempool.regular import RegularSenders
from qnet_actors.mempool.senders import Account, AccountRows, SenderQueue
from qnet_actors.mempool.settings import MempoolSettings
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.hashing import ZERO_DIGEST
from qnet_actors.wire.limits import U64_MAX

_STALE_SPARE: Final = 1_024
_EVICTIONS_MAX: Final = 64
"""A transaction that would displace more than this is refused."""


class Added(NamedTuple):
    """What `Pool.add` did; `replaced` and `evicted` have left the pool."""

    code: Code
    detail: str = ""
    replaced: Entry | None = None
    evicted: tuple[Entry, ...] = ()


class Pool:
    """Bounded by count and bytes, and by count for each sender."""

    def __init__(self, settings: MempoolSettings) -> None:
        self._settings = settings
        self._by_id: dict[bytes, Entry] = {}
        self.columns: Final = SenderColumns()
        self._regular = RegularSenders(self.columns)
        # Of all other senders.
        self._queues: dict[bytes, SenderQueue] = {}
        self.ready: Final[dict[int, Ready]] = {}
        self.size_bytes = 0
        self._order = 0
        self._ticket = 0
        # A heap of (gas price, -order, entry): pending entries, the worst-paying first, the newest
        # first among equals.  None until the pool is full for the first time, and whenever it is
        # far from it again.
        self._worst: list[tuple[int, int, Entry]] | None = None
        self._expiring: list[tuple[int, bytes]] = []

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, id_: bytes) -> bool:
        return id_ in self._by_id

    def has_none_of(self, ids: Iterable[bytes]) -> bool:
        return self._by_id.keys().isdisjoint(ids)

    def get(self, id_: bytes) -> Entry | None:
        return self._by_id.get(id_)

    def unbatched(self) -> list[Entry]:
        """What is in no batch of this validator, by rising nonce."""
        waiting = [entry for entry in self._by_id.values() if entry.state != BATCHED]
        return sorted(waiting, key=lambda entry: entry.nonce)

    def before(self, entry: Entry) -> Entry | None:
        """The sender's entry with the nonce before."""
        queue = self._queues.get(entry.sender)
        if queue is None:
            return self._regular.before(entry)
        return queue.entries.get(entry.nonce - 1)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._by_id.values())

    def senders(self) -> set[bytes]:
        """Whoever has something here."""
        return {entry.sender for entry in self._by_id.values()}

    def has_sender(self, sender: bytes) -> bool:
        """Whether the pool has anything of `sender`."""
        return sender in self._queues or self._regular.run(sender) is not None

    def cost_of(self, sender: bytes) -> int:
        """What all that the pool has of `sender` can take."""
        queue = self._queues.get(sender)
        return self._regular.cost_of(sender) if queue is None else queue.cost

    def queue(self, sender: bytes) -> SenderQueue | None:
        """The queue of `sender`, who is irregular from now on, if the pool has anything of it."""
        queue = self._queues.get(sender)
        if queue is None:
            queue = self._regular.open(sender)
            if queue is not None:
                self._queues[sender] = queue
        return queue

    def _new_queue(self, sender: bytes, account: Account) -> SenderQueue:
        self._regular.refuse(sender)
        queue = self._queues[sender] = SenderQueue(sender, account)
        return queue

    def _drop_queue(self, queue: SenderQueue) -> None:
        """Nothing is left in `queue`."""
        del self._queues[queue.address]
        self._regular.forget(queue.address)

    # Admission.

    def refusal(self, entry: Entry, account: Account, end: int) -> tuple[Code, str] | None:
        """Why `entry` may not be added, cheapest check first; None: it may, if there is room.

        `end` is the first nonce at which the sender has nothing, on its way or in the pool.
        """
        settings = self._settings
        if entry.id in self._by_id:
            return Code.DUPLICATE, ""
        nonce = entry.nonce
        if nonce < account.nonce:
            return Code.NONCE_TOO_LOW, f"the account's next nonce is {account.nonce}"
        if nonce == U64_MAX:
            # The accounts of the registry have it, and some name a key that somebody holds.
            return Code.NONCE_TOO_FAR, "no transaction with the last nonce is ever included"
        if nonce > end + settings.nonce_window:
            return Code.NONCE_TOO_FAR, f"the first nonce missing is {end}"
        queue = self.queue(entry.sender)
        if queue is None:
            key = entry.sender if account.key_id == ZERO_DIGEST else account.key_id
            pending = 0
        else:
            key = queue.key_at(nonce, account.key_id)
            pending = queue.cost_from(account.nonce)
            old = queue.entries.get(nonce)
            if old is not None:
                if old.state != PENDING or old.promised:
                    return Code.NONCE_TOO_LOW, "the transaction with this nonce is batched already"
                if entry.gas_price * 100 < old.gas_price * (100 + settings.replacement_percent):
                    return Code.REPLACEMENT_UNDERPRICED, f"its gas price is {old.gas_price}"
                pending -= old.cost
            elif len(queue.entries) >= settings.sender_transactions_max:
                return Code.SENDER_LIMIT, ""
        if entry.key_id != key:
            return Code.KEY_NOT_CURRENT, ""
        if pending + entry.cost > account.balance:
            return Code.INSUFFICIENT_FUNDS, f"{pending} pending, balance {account.balance}"
        if self.is_full(entry) and not self._pays_for_room(entry):
            return Code.POOL_FULL, ""
        return None

    def end_of(self, sender: bytes, nonce: int) -> int:
        """The first nonce at or after the account's `nonce` at which the pool holds nothing."""
        queue = self._queues.get(sender)
        if queue is None:
            run = self._regular.run(sender)
            return nonce if run is None else max(nonce, run[1])
        if nonce <= queue.frontier:
            return queue.frontier
        while nonce in queue.entries:
            nonce += 1
        return nonce

    def is_full(self, entry: Entry) -> bool:
        settings = self._settings
        return (
            len(self._by_id) >= settings.pool_transactions_max
            or self.size_bytes + entry.size_bytes > settings.pool_size_bytes_max
        )

    def _pays_for_room(self, entry: Entry) -> bool:
        worst = self._worst_entry()
        return worst is not None and worst.gas_price < entry.gas_price

    def add(self, entry: Entry, account: Account) -> Added:
        """Adds a verified entry if no rule is against it, displacing what pays less if need be."""
        refused = self.refusal(entry, account, self.end_of(entry.sender, account.nonce))
        if refused is not None:
            return Added(*refused)
        queue = self._queues.get(entry.sender)
        old = None if queue is None else queue.entries.get(entry.nonce)
        evicted: list[Entry] = []
        if old is None or self.size_bytes - old.size_bytes + entry.size_bytes > (
            self._settings.pool_size_bytes_max
        ):
            room = self._make_room(entry, old)
            if room is None:
                return Added(Code.POOL_FULL)
            evicted = room
            queue = self._queues.get(entry.sender)
        if queue is None:
            queue = self._new_queue(entry.sender, account)
        if old is not None:
            self._replace(queue, old, entry)
        else:
            self._insert(queue, entry)
        return Added(Code.SUCCESS, "", old, tuple(evicted))

    def add_rows(self, rows: Rows, accounts: AccountRows) -> dict[int, Added]:
        """`add` of verified entries; what it did, by row, of those that were not simply added.

        Where there is room for all, senders do not concern each other: plain rows are added all at
        once, and the others, with what follows them of the same sender, one by one after them.
        """
        entries, columns = rows.entries, self.columns
        room = self.has_room(len(entries), int(rows.sizes.sum()))
        slots = columns.slots([entry.sender for entry in entries])
        self._regular.note_ranks(slots, rows.prices)
        taken, ranks, places = columns.add(
            slots,
            rows.nonces,
            rows.costs,
            rows.prices,
            accounts,
            rows.plain & accounts.current if room else np.zeros(len(entries), dtype=np.bool_),
            self._settings.sender_transactions_max,
        )
        if taken.all():
            self._add_plain(entries, ranks, places)
            return {}
        self._add_plain(list(compress(entries, taken.tolist())), ranks[taken], places[taken])
        others: dict[int, Added] = {}
        for row in np.flatnonzero(~taken).tolist():
            added = self.add(entries[row], accounts.account(row))
            if added.code != Code.SUCCESS:
                # What is verified behind it does not follow it.
                columns.ends[slots[row]] = 0
            if added.code != Code.SUCCESS or added.replaced is not None or added.evicted:
                others[row] = added
        columns.release([entries[row].sender for row in others])
        return others

    def _add_plain(
        self,
        entries: Sequence[Entry],
        ranks: npt.NDArray[np.uint64],
        places: npt.NDArray[np.uint64],
    ) -> None:
        """Entries that are in their senders' columns already: pending, at their frontiers."""
        if not entries:
            return
        first = self._ticket + 1
        row_ranks = ranks.tolist()
        expiring = False
        size_bytes = 0
        for entry, rank in zip(entries, row_ranks, strict=True):
            self._ticket += 1
            entry.ticket, entry.rank, entry.order = self._ticket, rank, self._order + self._ticket
            size_bytes += entry.size_bytes
            expiring = expiring or entry.valid_until > 0
        self._order += self._ticket
        self.size_bytes += size_bytes
        self._by_id.update(zip([entry.id for entry in entries], entries, strict=True))
        self._regular.extend(entries, places)
        if expiring:
            for entry in entries:
                if entry.valid_until:
                    self._expire(entry)
        schemes = {entry.scheme for entry in entries}
        for scheme in schemes:
            if scheme not in self.ready:
                self.ready[scheme] = Ready()
        if len(schemes) == 1:
            self.ready[scheme].extend(entries, range(first, self._ticket + 1), row_ranks)
        else:
            for entry in entries:
                self.ready[entry.scheme].add(entry)

    def has_room(self, count: int, size_bytes: int) -> bool:
        """Whether so much more fits without displacing anything."""
        settings = self._settings
        return (
            self._worst is None
            and len(self._by_id) + count <= settings.pool_transactions_max
            and self.size_bytes + size_bytes <= settings.pool_size_bytes_max
        )

    def adopt(self, entry: Entry, account: Account) -> bool:
        """Takes back an entry of an own batch after a restart, whatever the bounds; False: spent.

        Its place must be free: own batches never hold two transactions with one nonce, unless one
        of them is not executed any more.
        """
        if entry.nonce < account.nonce or entry.id in self._by_id:
            return False
        queue = self.queue(entry.sender)
        if queue is None:
            queue = self._new_queue(entry.sender, account)
        if entry.nonce in queue.entries:
            return False
        self._insert(queue, entry)
        return True

    def _make_room(self, entry: Entry, spared: Entry | None) -> list[Entry] | None:
        """Evicts the worst-paying pending entries until `entry` fits, or none at all."""
        settings = self._settings
        count = len(self._by_id) + (spared is None)
        size = self.size_bytes + entry.size_bytes - (spared.size_bytes if spared else 0)
        victims: list[Entry] = []
        taken: list[tuple[int, int, Entry]] = []
        enough = True
        while count > settings.pool_transactions_max or size > settings.pool_size_bytes_max:
            worst = self._worst_entry()
            if worst is None or worst.gas_price >= entry.gas_price or len(taken) > _EVICTIONS_MAX:
                enough = False
                break
            taken.append(heapq.heappop(self._worst_heap()))
            if worst is not spared:
                victims.append(worst)
                count -= 1
                size -= worst.size_bytes
        for item in taken:
            heapq.heappush(self._worst_heap(), item)
        if not enough:
            return None
        for victim in victims:
            self._remove(victim)
        return victims

    def _worst_heap(self) -> list[tuple[int, int, Entry]]:
        if self._worst is None:
            pending = (e for e in self._by_id.values() if e.state == PENDING)
            self._worst = [(e.gas_price, -e.order, e) for e in pending]
            heapq.heapify(self._worst)
        return self._worst

    def _worst_entry(self) -> Entry | None:
        worst = self._worst_heap()
        while worst:
            _, order, entry = worst[0]
            if (
                entry.order == -order
                and entry.state == PENDING
                and self._by_id.get(entry.id) is entry
            ):
                return entry
            heapq.heappop(worst)
        return None

    def _insert(self, queue: SenderQueue, entry: Entry) -> None:
        self._index(queue, entry)
        if entry.nonce == queue.frontier:
            self._expose(queue)

    def _replace(self, queue: SenderQueue, old: Entry, new: Entry) -> None:
        """`new` stands where its own price puts it, and what follows it may move up with it."""
        self._forget(queue, old)
        self._index(queue, new)
        if new.nonce < queue.frontier:
            self._rewind(queue, new.nonce)
            self._expose(queue)

    def _index(self, queue: SenderQueue, entry: Entry) -> None:
        self._by_id[entry.id] = entry
        queue.entries[entry.nonce] = entry
        queue.cost += entry.cost
        if entry.nonce < queue.ahead_nonce:
            queue.ahead_nonce = 0
        self.size_bytes += entry.size_bytes
        if entry.rotates_to:
            queue.rotations[entry.nonce] = entry.rotates_to
        if entry.valid_until:
            self._expire(entry)
        if entry.state == PENDING:
            self._make_evictable(entry)

    def _expire(self, entry: Entry) -> None:
        heapq.heappush(self._expiring, (entry.valid_until, entry.id))
        if len(self._expiring) > 2 * len(self._by_id) + _STALE_SPARE:
            self._expiring = [(e.valid_until, e.id) for e in self._by_id.values()]
            self._expiring = [item for item in self._expiring if item[0]]
            heapq.heapify(self._expiring)

    def _make_evictable(self, entry: Entry) -> None:
        # A number of its own each time: what an earlier one left in the heap stays without effect.
        self._order += 1
        entry.order = self._order
        if self._worst is not None:
            heapq.heappush(self._worst, (entry.gas_price, -entry.order, entry))
            if len(self._worst) > 2 * len(self._by_id) + _STALE_SPARE:
                self._worst = None

    # What is ready.

    def _expose(self, queue: SenderQueue) -> None:
        """Makes ready what follows the frontier without a gap, and moves the frontier past it."""
        entries, nonce = queue.entries, queue.frontier
        before = entries.get(nonce - 1)
        while (entry := entries.get(nonce)) is not None:
            # What is batched, or left to another's batch, may follow what is pending again: it
            # hands on the rank of that.
            rank = UNRANKED if before is None else before.rank
            entry.rank = rank if entry.state == BATCHED else min(rank, entry.gas_price)
            if entry.state == PENDING:
                self._ticket += 1
                entry.ticket = self._ticket
                ready = self.ready.get(entry.scheme)
                if ready is None:
                    ready = self.ready[entry.scheme] = Ready()
                ready.add(entry)
            before = entry
            nonce += 1
        queue.frontier = nonce

    def _rewind(self, queue: SenderQueue, nonce: int) -> None:
        """What is ready at or after `nonce` is so no more, until `_expose`."""
        for at in range(nonce, queue.frontier):
            entry = queue.entries.get(at)
            if entry is not None and entry.ticket:
                self.ready[entry.scheme].remove(entry)
        queue.frontier = min(queue.frontier, nonce)

    def batched(self, entries: Iterable[Entry], digest: bytes) -> None:
        """`entries`, taken from `ready` in order, are in the own batch `digest`."""
        for entry in entries:
            entry.state, entry.batch, entry.rank = BATCHED, digest, UNRANKED
            if entry.ticket:
                self.ready[entry.scheme].remove(entry)

    def seen(self, ids: Iterable[bytes], digest: bytes) -> list[Entry]:
        """Another author's batch carries `ids`: those pending here are left to it, once."""
        left = []
        for id_ in ids:
            entry = self._by_id.get(id_)
            if entry is not None and entry.state == PENDING and not entry.seen:
                entry.state, entry.batch, entry.seen = SEEN, digest, True
                if entry.ticket:
                    self.ready[entry.scheme].remove(entry)
                left.append(entry)
        return left

    def restore(self, entries: Iterable[Entry]) -> None:
        """`entries` are pending again; those that left the pool meanwhile are passed over."""
        lowest: dict[bytes, int] = {}
        for entry in entries:
            if self._by_id.get(entry.id) is not entry or entry.state == PENDING:
                continue
            entry.state, entry.batch = PENDING, b""
            self._make_evictable(entry)
            lowest[entry.sender] = min(lowest.get(entry.sender, entry.nonce), entry.nonce)
        for sender, nonce in lowest.items():
            queue = self.queue(sender)
            if queue is not None and nonce < queue.frontier:
                self._rewind(queue, nonce)
                self._expose(queue)

    # Leaving.

    def remove(self, entry: Entry) -> None:
        """Takes `entry` out; what follows it waits until its nonce is filled."""
        if self._by_id.get(entry.id) is entry:
            self._remove(entry)

    def _remove(self, entry: Entry) -> None:
        queue = self.queue(entry.sender)
        if queue is None:
            raise QnetError(Code.INTERNAL, "an entry of the pool has no sender there")
        if entry.nonce < queue.frontier:
            self._rewind(queue, entry.nonce)
        self._forget(queue, entry)
        if not queue.entries:
            self._drop_queue(queue)

    def _forget(self, queue: SenderQueue, entry: Entry) -> None:
        self._leave(entry)
        del queue.entries[entry.nonce]
        queue.cost -= entry.cost
        queue.ahead_nonce = 0
        queue.rotations.pop(entry.nonce, None)

    def _leave(self, entry: Entry) -> None:
        if entry.ticket:
            self.ready[entry.scheme].remove(entry)
        del self._by_id[entry.id]
        self.size_bytes -= entry.size_bytes
        if self._worst is not None:
            settings = self._settings
            if (
                2 * len(self._by_id) < settings.pool_transactions_max
                and 2 * self.size_bytes < settings.pool_size_bytes_max
            ):
                self._worst = None

    def advance(self, sender: bytes, account: Account) -> tuple[list[Entry], list[Entry]]:
        """The sender's account as a block left it: (entries with spent nonces, with a stale key).

        Both have left the pool, the latter only where they were pending.
        """
        slot = self.columns.get(sender)
        if slot is None:
            return [], []
        if not self.columns.irregular[slot] and (
            self.columns.keys[slot].tobytes() == account.key_id
        ):
            spent = self._regular.advance(sender, account.nonce)
            for entry in spent:
                self._leave(entry)
            return spent, []
        queue = self.queue(sender)
        if queue is None or account.nonce < queue.nonce:
            return [], []
        if account.nonce - queue.nonce > len(queue.entries):
            nonces = sorted(nonce for nonce in queue.entries if nonce < account.nonce)
        else:
            passed = range(queue.nonce, account.nonce)
            nonces = [nonce for nonce in passed if nonce in queue.entries]
        spent = [queue.entries[nonce] for nonce in nonces]
        for entry in spent:
            self._forget(queue, entry)
        queue.nonce = account.nonce
        if queue.frontier < account.nonce:
            queue.frontier = account.nonce
            self._expose(queue)
        if not queue.entries:
            self._drop_queue(queue)
            return spent, []
        stale: list[Entry] = []
        if account.key_id != queue.key_id:
            queue.key_id = account.key_id
            stale = self._remove_stale_keys(queue)
        if queue.entries and self._regular.close(queue):
            del self._queues[sender]
        return spent, stale

    def unpayable(self, sender: bytes, account: Account) -> list[Entry]:
        """Removes the sender's last pending entries until the rest can be paid from `account`."""
        queue = self.queue(sender)
        if queue is None:
            return []
        cost = queue.cost_from(account.nonce)
        removed: list[Entry] = []
        if cost > account.balance:
            for nonce in sorted(queue.entries, reverse=True):
                entry = queue.entries[nonce]
                if entry.state == PENDING and nonce >= account.nonce:
                    removed.append(entry)
                    cost -= entry.cost
                    if cost <= account.balance:
                        break
        for entry in removed:
            self._remove(entry)
        return removed

    def _remove_stale_keys(self, queue: SenderQueue) -> list[Entry]:
        removed = [
            entry
            for nonce, entry in queue.entries.items()
            if entry.state == PENDING and entry.key_id != queue.key_at(nonce, queue.key_id)
        ]
        for entry in removed:
            self._remove(entry)
        return removed

    def expired(self, height: int) -> list[Entry]:
        """Removes what is not batched and may not be included above `height`."""
        removed = []
        while self._expiring and self._expiring[0][0] <= height:
            entry = self._by_id.get(heapq.heappop(self._expiring)[1])
            if entry is not None and entry.state != BATCHED:
                removed.append(entry)
        for entry in removed:
            self.remove(entry)
        return removed
