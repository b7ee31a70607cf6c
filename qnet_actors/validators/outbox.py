"""What leaves consensus: each batch once, commits at the ledger's pace, own batches to the end."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from qnet_actors.rooms import CommitReady
from qnet_actors.wire.batches import BatchRef
from qnet_actors.wire.dag import Commit, DagBlock
from qnet_actors.wire.limits import DAG_BLOCK_BATCHES_MAX

OWN_BATCHES_MAX: Final = 65_536
"""Own batches that wait for a block; the mempool's bounds keep far below."""


class Naming:
    """Which batches a commit brings: those that no earlier committed block above gc_round named.

    A function of the commit chain and the blocks above gc_round, so a validator that starts anew
    names the same.  A naming counts with its author and sequence: a batch that another than its
    author names, or under another sequence, is not thereby named by its author.
    """

    def __init__(self) -> None:
        self._named: dict[tuple[int, BatchRef], int] = {}
        """(author, ref) -> the highest round of a committed block that named it."""

    def restart(self, blocks: Iterable[DagBlock]) -> None:
        """Goes on from the committed blocks above gc_round."""
        self._named.clear()
        for block in blocks:
            self._name(block)

    def named_round(self, author: int, ref: BatchRef) -> int | None:
        """The highest round of a committed block of the author that names the batch."""
        return self._named.get((author, ref))

    def commit(self, blocks: Sequence[DagBlock], gc_round: int) -> tuple[tuple[int, BatchRef], ...]:
        """The (author, ref) of each new batch of a commit, in order.

        `gc_round` is that of the commit before.
        """
        for old in [named for named, round_ in self._named.items() if round_ <= gc_round]:
            del self._named[old]
        fresh: list[tuple[int, BatchRef]] = []
        for block in blocks:
            fresh += self._name(block)
        return tuple(fresh)

    def _name(self, block: DagBlock) -> list[tuple[int, BatchRef]]:
        fresh: list[tuple[int, BatchRef]] = []
        for ref in block.header.batches:
            named = (block.ref.author, ref)
            known = self._named.get(named)
            if known is None:
                fresh.append(named)
            self._named[named] = max(known or 0, block.ref.round)
        return fresh


class LedgerQueue:
    """Commits on their way to the ledger: commit c waits until commit c - lag is executed.

    They are kept until they are executed, since the journal must not forget them before.
    """

    def __init__(self, lag: int, executed_index: int) -> None:
        self._lag: Final = lag
        self._unexecuted: deque[CommitReady] = deque()
        self.executed_index = executed_index
        self.emitted_index = 0
        """The last commit that was handed to the ledger in this life."""
        self.emitted_count = 0
        self.loaded_index = 0
        """The last commit with batches."""
        self.epoch_end: int | None = None
        """The last commit of the epoch, once it is known: none after it is handed over."""

    @property
    def unexecuted(self) -> tuple[CommitReady, ...]:
        """The commits that the ledger has not executed, handed over or not, oldest first."""
        return tuple(self._unexecuted)

    @property
    def is_full(self) -> bool:
        """The ledger is so far behind that nothing more should be committed."""
        return self._newest_index >= self.executed_index + 3 * self._lag

    @property
    def is_lagging(self) -> bool:
        """Commits wait for the ledger."""
        return self._newest_index > self.executed_index + self._lag

    @property
    def _newest_index(self) -> int:
        return self._unexecuted[-1].commit.index if self._unexecuted else 0

    @property
    def has_gap(self) -> bool:
        """The ledger lacks commits that are not known here any more."""
        first = self._unexecuted[0].commit.index if self._unexecuted else 0
        return first > self.executed_index + 1

    def add(self, commit: Commit, batches: tuple[tuple[int, BatchRef], ...]) -> None:
        if batches:
            self.loaded_index = commit.index
        self._unexecuted.append(CommitReady(commit, batches))

    def executed(self, index: int) -> None:
        """All commits up to `index` are executed and durable."""
        self.executed_index = max(self.executed_index, index)
        while self._unexecuted and self._unexecuted[0].commit.index <= index:
            self._unexecuted.popleft()

    def take(self) -> list[CommitReady]:
        """What may go to the ledger now, in order of index."""
        if self._newest_index <= self.emitted_index or self.has_gap:
            return []
        limit = self.executed_index + self._lag
        if self.epoch_end is not None:
            limit = min(limit, self.epoch_end)
        ready: list[CommitReady] = []
        for item in self._unexecuted:
            if item.commit.index > limit:
                break
            if item.commit.index > self.emitted_index:
                ready.append(item)
        if ready:
            self.emitted_index = ready[-1].commit.index
            self.emitted_count += len(ready)
        return ready


class OwnBatches:
    """Own batches from the mempool's word that a quorum holds them to their commit."""

    def __init__(self) -> None:
        self._queue: deque[BatchRef] = deque()
        self._queued: set[bytes] = set()
        self._proposed: dict[bytes, tuple[BatchRef, int]] = {}
        """Digest -> ref and round of the newest own block that names it."""

    def __len__(self) -> int:
        return len(self._queue)

    def __contains__(self, digest: object) -> bool:
        """Whether a batch waits for a block, or stands in an own one that is not committed."""
        return digest in self._queued or digest in self._proposed

    def ready(self, ref: BatchRef) -> None:
        """A batch is to be proposed; one that waits or stands in a live own block is not twice."""
        if ref.digest in self:
            return
        if len(self._queue) >= OWN_BATCHES_MAX:
            raise AssertionError("the mempool proposes more batches than it may hold")
        self._queued.add(ref.digest)
        self._queue.append(ref)

    def take(self) -> tuple[BatchRef, ...]:
        """Batches for the next block: the oldest ones, in sequence order within a shard."""
        taken: list[BatchRef] = []
        sequences: set[tuple[int, int]] = set()
        while self._queue and len(taken) < DAG_BLOCK_BATCHES_MAX:
            ref = self._queue[0]
            if (ref.shard, ref.sequence) in sequences:
                break
            sequences.add((ref.shard, ref.sequence))
            taken.append(self._queue.popleft())
            self._queued.discard(ref.digest)
        return tuple(sorted(taken, key=lambda ref: (ref.shard, ref.sequence)))

    def put_back(self, refs: Iterable[BatchRef]) -> None:
        """Batches whose block was not made after all."""
        for ref in reversed(tuple(refs)):
            if ref.digest not in self:
                self._queued.add(ref.digest)
                self._queue.appendleft(ref)

    def proposed(self, block: DagBlock) -> None:
        """An own block is made."""
        for ref in block.header.batches:
            self._proposed[ref.digest] = (ref, block.ref.round)

    def committed(self, refs: Iterable[BatchRef]) -> None:
        """Own blocks that named these batches are committed."""
        for ref in refs:
            self._proposed.pop(ref.digest, None)
            if ref.digest in self._queued:
                self._queued.discard(ref.digest)
                self._queue = deque(kept for kept in self._queue if kept.digest != ref.digest)

    def wait(self, refs: Iterable[BatchRef], round_: int) -> None:
        """A committed own block of this round names the batches, and the mempool may still have
        them: named again they count only once it fell to gc_round, and then `collect` gives them.
        """
        refs = tuple(refs)
        self.committed(refs)
        for ref in refs:
            self._proposed[ref.digest] = (ref, round_)

    def collect(self, gc_round: int) -> tuple[BatchRef, ...]:
        """The batches whose own blocks fell to gc_round uncommitted, or that waited for that."""
        lost = [ref for ref, round_ in self._proposed.values() if round_ <= gc_round]
        for ref in lost:
            del self._proposed[ref.digest]
        return tuple(lost)
