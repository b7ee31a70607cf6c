"""What can be said of DAG blocks without their history: form, rules of one block, signatures.

All of it runs off the core's thread, many blocks a job.  It is a function of the bytes alone, so
that honest validators never disagree on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.committee import Committee
from qnet_actors.wire.dag import (
    DAG_VERSION,
    CheckpointVote,
    DagBlock,
    decode_dag_block,
    genesis_refs,
)
from qnet_actors.wire.evidence import Equivocation, check_equivocation
from qnet_actors.wire.limits import SHARDS_MAX
from qnet_actors.wire.schemes import CONTEXT_CHECKPOINT, Scheme, Verifier, dag_context


@dataclass(frozen=True, slots=True)
class Received:
    """A block as it came: from whom, and its bytes."""

    peer: int
    data: bytes
    block: DagBlock | None = None
    """What `data` decodes to, where that is known already."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What is worth checking now: rounds above `gc_round` and up to `round_max`, and votes for
    heights above `certified_height`.  Blocks by `own` always are: they tell of lost memory."""

    own: int
    gc_round: int
    round_max: int
    certified_height: int

    def includes(self, block: DagBlock) -> bool:
        in_range = self.gc_round < block.ref.round <= self.round_max
        return in_range or block.ref.author == self.own


@dataclass(frozen=True, slots=True)
class Checked:
    """The verdict on one block: `block` where it is valid, with its valid votes in scope."""

    received: Received
    block: DagBlock | None
    votes: tuple[CheckpointVote, ...]
    code: Code
    """SUCCESS, the rule that the block breaks, or NOT_READY where its round is out of scope."""


class BlockRules:
    """The rules of one epoch; immutable, safe to use from any thread."""

    def __init__(self, committee: Committee, verifier: Verifier, chain_id: bytes) -> None:
        self._committee: Final = committee
        self._verifier: Final = verifier
        self._context: Final = dag_context(chain_id)
        self._genesis: Final = genesis_refs(committee.seed, len(committee))

    def check(self, received: Sequence[Received], scope: Scope) -> list[Checked]:
        """Verdicts on blocks in order.  One bad block never spoils another."""
        blocks: list[DagBlock | None] = []
        codes: list[Code] = []
        for item in received:
            block, code = None, Code.SUCCESS
            try:
                block = decode_dag_block(item.data) if item.block is None else item.block
                self.check_form(block)
            except QnetError as error:
                block, code = None, error.code
            if block is not None and not scope.includes(block):
                block, code = None, Code.NOT_READY
            blocks.append(block)
            codes.append(code)
        formed = [(i, block) for i, block in enumerate(blocks) if block is not None]
        good = self.verify(block for _, block in formed)
        for (i, _), verdict in zip(formed, good, strict=True):
            if not verdict:
                blocks[i], codes[i] = None, Code.BAD_SIGNATURE
        votes = self._votes([block for block in blocks if block is not None], scope)
        return [
            Checked(item, block, votes.get(block.digest, ()) if block else (), code)
            for item, block, code in zip(received, blocks, codes, strict=True)
        ]

    def check_form(self, block: DagBlock) -> None:
        """All rules of a block but its signature.

        Raises `QnetError`: UNSUPPORTED_VERSION, WRONG_EPOCH, UNKNOWN_AUTHOR, BAD_ANCESTORS,
        BAD_SEQUENCE, MALFORMED.
        """
        header = block.header
        if header.version != DAG_VERSION:
            raise QnetError(Code.UNSUPPORTED_VERSION, f"DAG block version {header.version}")
        if header.epoch != self._committee.epoch:
            raise QnetError(Code.WRONG_EPOCH, f"epoch {header.epoch}")
        if header.author >= len(self._committee):
            raise QnetError(Code.UNKNOWN_AUTHOR, f"author {header.author}")
        if header.round < 1:
            raise QnetError(Code.MALFORMED, "a DAG block of round 0")
        self._check_ancestors(block)
        last: dict[int, int] = {}
        for ref in header.batches:
            if ref.shard >= SHARDS_MAX:
                raise QnetError(Code.MALFORMED, f"shard {ref.shard}")
            if ref.sequence <= last.get(ref.shard, -1):
                raise QnetError(Code.BAD_SEQUENCE, "batches of a shard are out of order")
            last[ref.shard] = ref.sequence
        heights = [vote.height for vote in header.votes]
        if len(set(heights)) != len(heights):
            raise QnetError(Code.MALFORMED, "two votes for one height")

    def _check_ancestors(self, block: DagBlock) -> None:
        header, stakes = block.header, self._committee.stakes
        if not header.ancestors or header.ancestors[0].author != header.author:
            raise QnetError(Code.BAD_ANCESTORS, "the first ancestor is not the author's own block")
        authors: set[int] = set()
        parents = 0
        for ref in header.ancestors:
            if ref.author >= len(stakes) or ref.author in authors:
                raise QnetError(Code.BAD_ANCESTORS, "an author is unknown or stands there twice")
            authors.add(ref.author)
            if ref.round >= header.round:
                raise QnetError(Code.BAD_ANCESTORS, "an ancestor is not of a lower round")
            if ref.round == 0 and ref != self._genesis[ref.author]:
                raise QnetError(Code.BAD_ANCESTORS, "an ancestor of round 0 is not a genesis block")
            if ref.round == header.round - 1:
                parents += stakes[ref.author]
        if parents < self._committee.quorum:
            raise QnetError(Code.BAD_ANCESTORS, "the round before carries less than a quorum")

    def verify(self, blocks: Iterable[DagBlock]) -> list[bool]:
        """Which blocks carry a good signature of their author."""
        rows = [(block.ref.author, block.digest, block.signature) for block in blocks]
        return self._verify(rows, self._context)

    def proven(self, equivocations: Sequence[Equivocation]) -> list[Equivocation]:
        """Those of them that prove something against a member of this epoch's committee."""
        formed: list[Equivocation] = []
        for item in equivocations:
            slot = item.first.slot
            if slot.version != DAG_VERSION or slot.epoch != self._committee.epoch:
                continue
            if slot.author >= len(self._committee):
                continue
            try:
                check_equivocation(item)
            except QnetError:
                continue
            formed.append(item)
        rows = [(item.author, *row) for item in formed for row in item.rows()]
        good = self._verify(rows, self._context)
        return [item for at, item in enumerate(formed) if good[2 * at] and good[2 * at + 1]]

    def _votes(
        self, blocks: Sequence[DagBlock], scope: Scope
    ) -> dict[bytes, tuple[CheckpointVote, ...]]:
        """The good votes of valid blocks, by block; those that change nothing are not checked."""
        named = [
            (block, vote)
            for block in blocks
            for vote in block.header.votes
            if vote.height > scope.certified_height
        ]
        rows = [(block.ref.author, vote.digest, vote.signature) for block, vote in named]
        votes: dict[bytes, tuple[CheckpointVote, ...]] = {}
        for (block, vote), good in zip(named, self._verify(rows, CONTEXT_CHECKPOINT), strict=True):
            if good:
                votes[block.digest] = (*votes.get(block.digest, ()), vote)
        return votes

    def _verify(self, rows: Sequence[tuple[int, bytes, bytes]], context: bytes) -> list[bool]:
        """Verdicts on (author, message, signature), one call a scheme."""
        verdicts = [False] * len(rows)
        members = self._committee.members
        for scheme in {members[author].scheme for author, _, _ in rows}:
            picked = [i for i, row in enumerate(rows) if members[row[0]].scheme == scheme]
            answer = self._verifier.verify(
                [members[rows[i][0]].public_key for i in picked],
                [rows[i][1] for i in picked],
                [rows[i][2] for i in picked],
                context,
                Scheme(scheme),
            )
            for i, good in zip(picked, answer.tolist(), strict=True):
                verdicts[i] = good
        return verdicts
