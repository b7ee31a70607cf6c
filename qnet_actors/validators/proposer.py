"""Makes the header of the next own block."""

from __future__ import annotations

from typing import Final

from qnet_actors.validators.dag import Dag
from qnet_actors.wire.batches import BatchRef
from qnet_actors.wire.committee import Committee
from qnet_actors.wire.dag import DAG_VERSION, BlockRef, CheckpointVote, DagBlock, DagHeader


class Proposer:
    """Knows the last own block and what own blocks reference already."""

    def __init__(self, dag: Dag, committee: Committee, own: int, last: BlockRef) -> None:
        self._dag: Final = dag
        self._committee: Final = committee
        self._own: Final = own
        self.last = last
        """The last own block."""
        self._timestamp_ms = 0
        self._covered = [0] * len(committee)
        """Author -> the highest round that own blocks reference."""

    def made(self, block: DagBlock) -> None:
        """An own block is admitted."""
        if block.ref.round > self.last.round:
            self.last = block.ref
        self._timestamp_ms = max(self._timestamp_ms, block.header.timestamp_ms)
        for ref in block.header.ancestors:
            self._covered[ref.author] = max(self._covered[ref.author], ref.round)

    def header(
        self,
        round_: int,
        batches: tuple[BatchRef, ...],
        votes: tuple[CheckpointVote, ...],
        now_ms: int,
    ) -> DagHeader:
        """The header of the own block of a round whose round before holds a quorum."""
        ancestors = [self.last]
        for author in range(len(self._committee)):
            if author != self._own:
                ancestor = self._newest(author, round_ - 1)
                if ancestor is not None:
                    ancestors.append(ancestor)
        return DagHeader(
            version=DAG_VERSION,
            epoch=self._committee.epoch,
            round=round_,
            author=self._own,
            timestamp_ms=max(now_ms, self._timestamp_ms),
            ancestors=tuple(ancestors),
            batches=batches,
            votes=votes,
        )

    def _newest(self, author: int, round_: int) -> BlockRef | None:
        """The author's newest block up to a round that no own block references yet.

        Of an equivocator's variants the first one admitted: that is the vote for a leader.
        """
        if round_ == 0:
            return self._dag.genesis[author]
        latest = self._dag.latest(author)
        if latest is None:
            return None
        at = min(round_, latest.ref.round)
        while at > max(self._covered[author], self._dag.gc_round):
            blocks = self._dag.blocks_at(at, author)
            if blocks:
                return blocks[0].ref
            at -= 1
        return None
