"""Blocks that wait for what they name, and the fetching of it.

A block that waits for ancestors or batches is kept, bounded for each author; what it lacks is asked
for at once from whoever sent the block, then from all peers in turn, with back-off, until it is
obtained or falls to gc_round.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from qnet_actors.validators.dag import Dag
from qnet_actors.wire.batches import BatchRef
from qnet_actors.wire.dag import BlockRef, DagBlock

WAITING_PER_AUTHOR_MAX: Final = 512
VARIANTS_UNSOLICITED_MAX: Final = 2
HELD_BATCHES_MAX: Final = 65_536
REQUESTS_MAX: Final = 4_096
RETRY_MS: Final = 150
RETRY_MS_MAX: Final = 3_000


@dataclass(slots=True)
class _Waiting:
    block: DagBlock
    ancestors: set[BlockRef]
    batches: set[bytes]

    @property
    def named(self) -> list[BlockRef | bytes]:
        """All that it waits for."""
        return [*self.ancestors, *self.batches]


@dataclass(slots=True)
class _Request:
    """When to ask whom; `attempts` counts how often it was done."""

    peer: int
    attempts: int
    due_ms: int


class Synchronizer:
    """Admits blocks to the DAG once all that they name is there.

    Blocks that are named are known by their whole ref and not by the digest alone: a digest under
    a wrong round or author would count for a parent, or a vote, that it is not.
    """

    def __init__(self, dag: Dag, own: int, validators: int) -> None:
        self._dag: Final = dag
        self._peers: Final = tuple(peer for peer in range(validators) if peer != own)
        self._waiting: dict[bytes, _Waiting] = {}
        self._slots: dict[tuple[int, int], list[DagBlock]] = {}
        """(author, round) -> blocks that wait."""
        self._count_by_author: list[int] = [0] * validators
        self._children: dict[BlockRef | bytes, set[bytes]] = {}
        """An absent ancestor, or the digest of a batch -> digests of the blocks that wait."""
        self._absent: dict[BlockRef, None] = {}
        """Blocks that are named and not admitted, whether they wait themselves or not."""
        self._requests: dict[BlockRef, _Request] = {}
        self._backlog: set[BlockRef] = set()
        """Absent blocks that are not asked for yet, for a bound."""
        self._fetches: dict[bytes, tuple[int, BatchRef, _Request]] = {}
        self._held: OrderedDict[bytes, None] = OrderedDict()
        self._exempt: set[BlockRef] = set()
        """Blocks that are committed already, so that nobody needs their batches."""
        self._request_ms: int | None = None
        self._fetch_ms: int | None = None
        self.dropped = 0
        """Blocks refused for a bound."""

    @property
    def waiting_count(self) -> int:
        return len(self._waiting)

    @property
    def exempt_count(self) -> int:
        """How many of the blocks of the last `want` are not admitted yet."""
        return len(self._exempt)

    def knows(self, digest: bytes) -> bool:
        """Whether the block is admitted or waits."""
        return digest in self._dag or digest in self._waiting

    def is_spare(self, ref: BlockRef) -> bool:
        """Whether a valid block would be dropped: nobody asked for one more of its slot."""
        return ref not in self._absent and self._variants(ref) >= VARIANTS_UNSOLICITED_MAX

    def waiting_at(self, round_: int, author: int) -> list[DagBlock]:
        """The blocks of a slot that wait."""
        return self._slots.get((author, round_), [])

    def offer(self, block: DagBlock, peer: int, now_ms: int) -> list[DagBlock]:
        """Takes a valid block; returns what is thereby admitted, ancestors first."""
        ref = block.ref
        if ref.round <= self._dag.gc_round or self.knows(ref.digest):
            return []
        # A block that a waiting one names was asked for, so it is no unsolicited variant.
        if self.is_spare(ref):
            self.dropped += 1
            return []
        absent = [a for a in block.header.ancestors if not self._dag.covers(a)]
        batches: list[BatchRef] = []
        if ref not in self._exempt:
            batches = [b for b in block.header.batches if b.digest not in self._held]
        if not absent and not batches:
            return self._admit(block)
        if not self._make_room(ref):
            self.dropped += 1
            return []
        waiting = _Waiting(block, set(absent), {b.digest for b in batches})
        self._requests.pop(ref, None)
        self._backlog.discard(ref)
        self._waiting[ref.digest] = waiting
        self._slots.setdefault((ref.author, ref.round), []).append(block)
        self._count_by_author[ref.author] += 1
        for named in waiting.named:
            self._children.setdefault(named, set()).add(ref.digest)
        for ancestor in absent:
            self._request(ancestor, peer, now_ms)
        for batch in batches:
            if batch.digest not in self._fetches:
                self._fetches[batch.digest] = (ref.author, batch, _Request(peer, 0, now_ms))
                self._fetch_ms = now_ms
        return []

    def held(self, digests: Iterable[bytes]) -> list[DagBlock]:
        """Batches are held durably; returns the blocks that are thereby admitted."""
        admitted: list[DagBlock] = []
        for digest in digests:
            self._held[digest] = None
            self._held.move_to_end(digest)
            self._fetches.pop(digest, None)
            admitted += self._arrived(digest)
        while len(self._held) > HELD_BATCHES_MAX:
            self._held.popitem(last=False)
        return admitted

    def named(self) -> set[bytes]:
        """The batches that waiting blocks name, held or not."""
        return {ref.digest for w in self._waiting.values() for ref in w.block.header.batches}

    def dropped_batches(self, digests: Iterable[bytes]) -> None:
        """Batches are held no longer; the caller sees to it that no block here names them."""
        for digest in digests:
            self._held.pop(digest, None)

    def collected(self) -> list[DagBlock]:
        """gc_round has risen; returns the blocks that are thereby admitted."""
        gc_round = self._dag.gc_round
        for waiting in [w for w in self._waiting.values() if w.block.ref.round <= gc_round]:
            self._drop(waiting)
        admitted: list[DagBlock] = []
        for ref in [absent for absent in self._absent if absent.round <= gc_round]:
            self._forget_absent(ref)
            admitted += self._arrived(ref)
        return admitted

    def want(self, refs: Iterable[BlockRef], peer: int, now_ms: int) -> list[DagBlock]:
        """Fetches blocks that are committed already, whatever became of their batches.

        Returns the waiting ones that are thereby admitted.
        """
        refs = [ref for ref in refs if not self._dag.covers(ref)]
        self._exempt = set(refs)
        admitted: list[DagBlock] = []
        for ref in refs:
            waiting = self._waiting.get(ref.digest)
            if waiting is None:
                self._request(ref, peer, now_ms)
                continue
            for batch in waiting.batches:
                self._orphan(batch, ref.digest)
            waiting.batches.clear()
            admitted += self._release(waiting)
        return admitted

    def requests(self, now_ms: int) -> list[tuple[int, list[BlockRef]]]:
        """The blocks to ask for now: (peer, refs), refs by rising round."""
        if not self._peers:
            return []
        if self._backlog and len(self._requests) < REQUESTS_MAX:
            self._take_backlog(now_ms)
        if self._request_ms is None or self._request_ms > now_ms:
            return []
        asks: dict[int, list[BlockRef]] = {}
        for ref, request in self._requests.items():
            if request.due_ms <= now_ms:
                asks.setdefault(self._turn(request, now_ms), []).append(ref)
        self._request_ms = min((r.due_ms for r in self._requests.values()), default=None)
        return [(peer, sorted(refs)) for peer, refs in sorted(asks.items())]

    def fetches(self, now_ms: int) -> list[tuple[int, list[tuple[int, BatchRef]]]]:
        """The batches to have fetched now: (peer to ask first, (author, ref)).

        The mempool goes on asking by itself; reminding it costs little and covers a restart.
        """
        if not self._peers or self._fetch_ms is None or self._fetch_ms > now_ms:
            return []
        asks: dict[int, list[tuple[int, BatchRef]]] = {}
        for author, ref, request in self._fetches.values():
            if request.due_ms <= now_ms:
                asks.setdefault(self._turn(request, now_ms), []).append((author, ref))
                request.due_ms = now_ms + RETRY_MS_MAX
        self._fetch_ms = min((r.due_ms for _, _, r in self._fetches.values()), default=None)
        return sorted(asks.items(), key=lambda ask: ask[0])

    def wake_ms(self) -> int | None:
        """When something is to be asked for again."""
        if not self._peers:
            return None
        times = [ms for ms in (self._request_ms, self._fetch_ms) if ms is not None]
        return min(times, default=None)

    def _variants(self, ref: BlockRef) -> int:
        admitted = self._dag.blocks_at(ref.round, ref.author)
        return len(admitted) + len(self.waiting_at(ref.round, ref.author))

    def _admit(self, block: DagBlock) -> list[DagBlock]:
        """Admits a block and whatever waited for it alone."""
        admitted = [block]
        for parent in admitted:
            self._dag.add(parent)
            self._forget_absent(parent.ref)
            for digest in sorted(self._children.pop(parent.ref, ())):
                waiting = self._waiting[digest]
                waiting.ancestors.discard(parent.ref)
                if not waiting.ancestors and not waiting.batches:
                    self._forget(waiting)
                    admitted.append(waiting.block)
        return admitted

    def _arrived(self, named: BlockRef | bytes) -> list[DagBlock]:
        """What was waited for is not in the way any more."""
        admitted: list[DagBlock] = []
        for child in sorted(self._children.pop(named, ())):
            waiting = self._waiting.get(child)
            if waiting is not None:
                if isinstance(named, BlockRef):
                    waiting.ancestors.discard(named)
                else:
                    waiting.batches.discard(named)
                admitted += self._release(waiting)
        return admitted

    def _release(self, waiting: _Waiting) -> list[DagBlock]:
        if waiting.ancestors or waiting.batches:
            return []
        self._forget(waiting)
        return self._admit(waiting.block)

    def _forget(self, waiting: _Waiting) -> None:
        ref = waiting.block.ref
        del self._waiting[ref.digest]
        self._count_by_author[ref.author] -= 1
        slot = self._slots[ref.author, ref.round]
        slot.remove(waiting.block)
        if not slot:
            del self._slots[ref.author, ref.round]

    def _drop(self, waiting: _Waiting) -> None:
        """Gives a waiting block up; while others wait for it, it will be asked for again."""
        ref = waiting.block.ref
        self._forget(waiting)
        for absent in waiting.named:
            self._orphan(absent, ref.digest)
        if ref in self._absent:
            self._backlog.add(ref)

    def _orphan(self, absent: BlockRef | bytes, child: bytes) -> None:
        """`child` no longer waits for `absent`; if nobody does, it is not fetched any more."""
        children = self._children.get(absent)
        if children is None:
            return
        children.discard(child)
        if not children:
            del self._children[absent]
            if not isinstance(absent, BlockRef):
                self._fetches.pop(absent, None)
            elif absent not in self._exempt:
                self._forget_absent(absent)

    def _make_room(self, ref: BlockRef) -> bool:
        """Whether a block may wait; where its author has too many, the highest round gives way.

        What others wait for gives way last, so that an author cannot push its own history out.
        """
        if self._count_by_author[ref.author] < WAITING_PER_AUTHOR_MAX:
            return True
        own = [w for w in self._waiting.values() if w.block.ref.author == ref.author]
        last = max(own, key=lambda w: (w.block.ref not in self._absent, w.block.ref))
        rank = (ref not in self._absent, ref)
        if rank > (last.block.ref not in self._absent, last.block.ref):
            return False
        self._drop(last)
        return True

    def _request(self, ref: BlockRef, peer: int, now_ms: int) -> None:
        self._absent[ref] = None
        waiting = self._waiting.get(ref.digest)
        if ref in self._requests or (waiting is not None and waiting.block.ref == ref):
            return
        if len(self._requests) >= REQUESTS_MAX:
            self._backlog.add(ref)
            return
        self._requests[ref] = _Request(peer, 0, now_ms)
        self._request_ms = now_ms

    def _take_backlog(self, now_ms: int) -> None:
        """Takes up what was beyond the bound, the lowest rounds first."""
        refs = sorted(self._backlog)
        for ref in refs[: REQUESTS_MAX - len(self._requests)]:
            self._backlog.discard(ref)
            self._request(ref, ref.author, now_ms)

    def _forget_absent(self, ref: BlockRef) -> None:
        self._absent.pop(ref, None)
        self._requests.pop(ref, None)
        self._backlog.discard(ref)
        self._exempt.discard(ref)

    def _turn(self, request: _Request, now_ms: int) -> int:
        """Whom to ask now; sets the time to ask the next one."""
        peers = self._peers
        first = peers.index(request.peer) if request.peer in peers else 0
        peer = peers[(first + request.attempts) % len(peers)]
        request.due_ms = now_ms + min(RETRY_MS << min(request.attempts, 8), RETRY_MS_MAX)
        request.attempts += 1
        return peer
