"""Which batches may not be let go yet: those on their way from a block to their execution."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from qnet_actors.validators.dag import Dag
from qnet_actors.validators.ordering import Ordering
from qnet_actors.validators.outbox import OwnBatches
from qnet_actors.validators.synchronizer import Synchronizer
from qnet_actors.wire.batches import BatchRef
from qnet_actors.wire.dag import DagBlock


class Custody:
    """The admitted blocks with batches that are not committed, and the own batches among these."""

    def __init__(
        self, dag: Dag, ordering: Ordering, synchronizer: Synchronizer, author: int
    ) -> None:
        self._dag: Final = dag
        self._ordering: Final = ordering
        self._synchronizer: Final = synchronizer
        self._author: Final = author
        self._loaded: set[bytes] = set()
        """Admitted blocks with batches that are not committed."""
        self.own: Final = OwnBatches()

    @property
    def is_empty(self) -> bool:
        """Nothing waits for a block or for a commit."""
        return not (len(self.own) or self._loaded)

    def admitted(self, block: DagBlock) -> None:
        if not block.header.batches or self._ordering.linearizer.is_committed(block.ref):
            return
        self._loaded.add(block.digest)
        if block.ref.author == self._author:
            self.own.proposed(block)

    def committed(self, blocks: Iterable[DagBlock]) -> None:
        """Blocks are in commits: what they carry is on its way no more."""
        for block in blocks:
            self._loaded.discard(block.digest)
            if block.ref.author == self._author:
                self.own.committed(block.header.batches)

    def ready(self, ref: BatchRef) -> None:
        """An own batch is to be proposed: at once, or again once its naming has lapsed."""
        round_ = self._ordering.named_round(self._author, ref)
        if round_ is None:
            self.own.ready(ref)
        else:
            self.own.wait((ref,), round_)

    def caught_up(self, blocks: Iterable[DagBlock]) -> None:
        """Blocks are in commits that the ledger took from a peer.

        Blocks of the ledger do not say which batches they took, nor what they left out of them, so
        the mempool is offered the own ones again as soon as they can be executed anew.
        """
        for block in blocks:
            self._loaded.discard(block.digest)
            if block.ref.author == self._author:
                self.own.wait(block.header.batches, block.ref.round)

    def collected(self, dropped: Iterable[DagBlock], gc_round: int) -> tuple[BatchRef, ...]:
        """Blocks fell to gc_round; returns the own batches that were lost with them."""
        self._loaded.difference_update(block.digest for block in dropped)
        return self.own.collect(gc_round)

    def release(self, digests: Iterable[bytes]) -> tuple[bytes, ...]:
        """Lets go batches, but for those that a block names which may yet be executed.

        An author may name a batch again long after it was executed.  If it were dropped then,
        with the block admitted, nobody could ever execute the commit.
        """
        named = self.named()
        released = tuple(d for d in digests if d not in named and d not in self.own)
        self._synchronizer.dropped_batches(released)
        return released

    def named(self) -> set[bytes]:
        """What blocks name that are not committed, or commits that are not executed."""
        named = self._synchronizer.named()
        blocks = (self._dag.block(digest) for digest in self._loaded)
        named.update(ref.digest for b in blocks if b is not None for ref in b.header.batches)
        unexecuted = self._ordering.queue.unexecuted
        named.update(ref.digest for c in unexecuted for _, ref in c.batches)
        return named
