"""The admitted DAG blocks above gc_round, found by digest, round and slot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from qnet_actors.wire.committee import Committee
from qnet_actors.wire.dag import BlockRef, DagBlock, genesis_refs


class _Round:
    """One round: blocks in order of admission, and by author."""

    __slots__ = ("blocks", "slots", "stake")

    def __init__(self) -> None:
        self.blocks: list[DagBlock] = []
        self.slots: dict[int, list[DagBlock]] = {}
        self.stake = 0


_EMPTY: Final = _Round()


class Dag:
    """Blocks whose ancestors above gc_round are here too.

    Memory is bounded by `collect`: nothing at or below gc_round is kept.  Rounds are bounded by
    the admission of blocks, each of which stands on a quorum of the round before.
    """

    def __init__(self, committee: Committee, gc_round: int = 0) -> None:
        self.gc_round = gc_round
        self.highest_round = gc_round
        self.quorum_round = gc_round
        """The highest round in which a quorum of stake has a block; gc_round where none has."""
        self.admitted_count = 0
        """Blocks admitted so far: it changes when the DAG grows."""
        self.genesis: Final = genesis_refs(committee.seed, len(committee))
        """The round-0 blocks, by author."""
        self._committee: Final = committee
        self._blocks: dict[bytes, DagBlock] = {}
        self._rounds: dict[int, _Round] = {}
        self._latest: dict[int, DagBlock] = {}

    def __len__(self) -> int:
        return len(self._blocks)

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._blocks

    def covers(self, ref: BlockRef) -> bool:
        """Whether a block may stand on `ref`: it is here, or at or below gc_round.

        A ref that gives the round or author of a block wrongly is of no block: it never comes.
        """
        if ref.round <= self.gc_round:
            return True
        block = self._blocks.get(ref.digest)
        return block is not None and block.ref == ref

    def add(self, block: DagBlock) -> None:
        """Admits a block that the caller has checked and whose ancestors are covered."""
        ref = block.ref
        if ref.round <= self.gc_round or ref.digest in self._blocks:
            return
        self._blocks[ref.digest] = block
        self.admitted_count += 1
        round_ = self._rounds.get(ref.round)
        if round_ is None:
            round_ = self._rounds[ref.round] = _Round()
        round_.blocks.append(block)
        variants = round_.slots.get(ref.author)
        if variants is None:
            round_.slots[ref.author] = [block]
            round_.stake += self._committee.stakes[ref.author]
            latest = self._latest.get(ref.author)
            if latest is None or latest.ref.round < ref.round:
                self._latest[ref.author] = block
        else:
            variants.append(block)
        self.highest_round = max(self.highest_round, ref.round)
        if ref.round > self.quorum_round and round_.stake >= self._committee.quorum:
            self.quorum_round = ref.round

    def block(self, digest: bytes) -> DagBlock | None:
        return self._blocks.get(digest)

    def blocks_in(self, round_: int) -> Sequence[DagBlock]:
        """The blocks of a round, in order of admission."""
        return self._rounds.get(round_, _EMPTY).blocks

    def blocks_at(self, round_: int, author: int) -> Sequence[DagBlock]:
        """The blocks of a slot, the first admitted first; two or more: their author equivocated."""
        return self._rounds.get(round_, _EMPTY).slots.get(author, ())

    def has_quorum(self, round_: int) -> bool:
        """Whether a quorum of stake has an admitted block in `round_`; of round 0 all have."""
        if round_ == 0:
            return True
        return self._rounds.get(round_, _EMPTY).stake >= self._committee.quorum

    def latest(self, author: int) -> DagBlock | None:
        """The author's block of the highest round here, the first admitted of that round."""
        return self._latest.get(author)

    def blocks(self) -> list[DagBlock]:
        """All blocks, ancestors before descendants."""
        return [block for round_ in sorted(self._rounds) for block in self._rounds[round_].blocks]

    def collect(self, gc_round: int) -> list[DagBlock]:
        """Raises gc_round; returns the blocks that are thereby dropped, by rising round."""
        if gc_round <= self.gc_round:
            return []
        dropped: list[DagBlock] = []
        old = sorted(round_ for round_ in self._rounds if round_ <= gc_round)
        for round_ in old:
            dropped.extend(self._rounds.pop(round_).blocks)
        for block in dropped:
            del self._blocks[block.digest]
            if self._latest.get(block.ref.author) is block:
                del self._latest[block.ref.author]
        self.gc_round = gc_round
        self.highest_round = max(self.highest_round, gc_round)
        self.quorum_round = max(self.quorum_round, gc_round)
        return dropped
