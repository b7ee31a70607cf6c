"""The commit rule of Mysticeti-C (arXiv 2310.14821, section 3.2), one leader slot a round.

A slot is (round, leader of the round).  Blocks of round r + 1 vote, blocks of round r + 2 certify:

- vote: the first ancestor of a block of r + 1 that stands in the slot;
- certificate: a block of r + 2 whose ancestors hold votes of a quorum for one leader block;
- direct skip: a quorum has blocks in r + 1 that reference no block of the slot;
- direct commit: a quorum has blocks in r + 2 that certify one leader block;
- indirect: the anchor is the first slot at or above r + 3 that is not skipped; if it is committed,
  the leader block with a certificate in the anchor's history is committed, without one the slot is
  skipped; if it is undecided, so is the slot.

All of it is a function of the DAG.  What is remembered here only saves work: a vote, a certificate
and a decision never change once they can be told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from qnet_actors.wire.committee import Committee
from qnet_actors.wire.dag import DagBlock

_Says: TypeAlias = Callable[[DagBlock], bytes | None]


class DagView(Protocol):
    """What the rule sees of the DAG."""

    @property
    def highest_round(self) -> int: ...

    def block(self, digest: bytes) -> DagBlock | None: ...

    def blocks_in(self, round_: int) -> Sequence[DagBlock]: ...

    def blocks_at(self, round_: int, author: int) -> Sequence[DagBlock]: ...


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of the slot of a round: its leader block, or None where it is skipped."""

    round: int
    leader: DagBlock | None


class BrokenAssumption(Exception):
    """Two leader blocks of one slot carry a quorum: S/3 of the stake or more is Byzantine."""


class _Tally:
    """The stake of the distinct authors behind each thing that blocks say; None: nothing.

    The blocks of a round only become more, so each is counted once however often this is asked.
    """

    __slots__ = ("_counted", "_length", "stakes")

    def __init__(self) -> None:
        self._counted: set[tuple[bytes | None, int]] = set()
        self._length = 0
        self.stakes: dict[bytes | None, int] = {}

    def extend(self, blocks: Sequence[DagBlock], says: _Says, stakes: Sequence[int]) -> _Tally:
        """Counts what stands in `blocks` behind those counted before."""
        if len(blocks) == self._length:
            return self
        for block in blocks[self._length :]:
            said, author = says(block), block.ref.author
            if (said, author) not in self._counted:
                self._counted.add((said, author))
                self.stakes[said] = self.stakes.get(said, 0) + stakes[author]
        self._length = len(blocks)
        return self

    def reaching(self, quorum: int) -> list[bytes]:
        """What a quorum says, but for nothing."""
        return [d for d, stake in self.stakes.items() if d is not None and stake >= quorum]


class _Memo:
    """What is known of one round's blocks: by digest, and counted."""

    __slots__ = ("certificates", "certified", "votes", "voting")

    def __init__(self) -> None:
        self.voting: dict[bytes, bytes | None] = {}
        self.certified: dict[bytes, bytes | None] = {}
        self.votes = _Tally()
        self.certificates = _Tally()


class Committer:
    """Decides slots in order of their rounds."""

    def __init__(self, dag: DagView, committee: Committee) -> None:
        self._dag: Final = dag
        self._committee: Final = committee
        self._leaders: dict[int, int] = {}
        self._memos: dict[int, _Memo] = {}
        self._decided: dict[int, Decision] = {}

    def leader(self, round_: int) -> int:
        """The author whose block may lead `round_`."""
        leader = self._leaders.get(round_)
        if leader is None:
            leader = self._leaders[round_] = self._committee.leader(round_)
        return leader

    def decide(self, after: int) -> list[Decision]:
        """The longest decided prefix of the slots above round `after`, which is decided already.

        Idempotent: the same DAG gives the same answer.  Raises `BrokenAssumption`.
        """
        for round_ in range(self._dag.highest_round - 1, after, -1):
            if round_ not in self._decided:
                decision = self._direct(round_) or self._indirect(round_)
                if decision is not None:
                    self._decided[round_] = decision
        prefix: list[Decision] = []
        while (decision := self._decided.get(after + 1)) is not None:
            prefix.append(decision)
            after += 1
        return prefix

    def settled(self, round_: int) -> bool:
        """Whether the leader block of `round_` has a quorum of votes, or its slot the skip pattern.

        The pacemaker waits for this, so that a certificate or a skip is in the next block.
        """
        return max(self._votes_in(round_ + 1).stakes.values(), default=0) >= self._committee.quorum

    def forget(self, round_: int) -> None:
        """Drops what is remembered of slots at or below `round_`; none of them is asked again."""
        for old in [known for known in self._leaders if known <= round_]:
            del self._leaders[old]
        for old in [known for known in self._memos if known <= round_]:
            del self._memos[old]
        for old in [known for known in self._decided if known <= round_]:
            del self._decided[old]

    def _direct(self, round_: int) -> Decision | None:
        quorum = self._committee.quorum
        if self._votes_in(round_ + 1).stakes.get(None, 0) >= quorum:
            return Decision(round_, None)
        return self._one(round_, self._certificates_in(round_ + 2).reaching(quorum))

    def _indirect(self, round_: int) -> Decision | None:
        anchor = self._anchor(round_)
        if anchor is None:
            return None
        found = {self._certified(block) for block in self._history(anchor, round_ + 2)}
        found.discard(None)
        return self._one(round_, [d for d in found if d is not None]) or Decision(round_, None)

    def _anchor(self, round_: int) -> DagBlock | None:
        """The committed anchor of a slot; None where the anchor is undecided."""
        at = round_ + 3
        while (decision := self._decided.get(at)) is not None:
            if decision.leader is not None:
                return decision.leader
            at += 1
        return None

    def _history(self, block: DagBlock, round_: int) -> list[DagBlock]:
        """The blocks of `round_` among the ancestors of `block`, however far away."""
        reached: dict[bytes, DagBlock] = {}
        seen = {block.digest}
        level = [block]
        while level:
            below: list[DagBlock] = []
            for descendant in level:
                for ref in descendant.header.ancestors:
                    if ref.round < round_ or ref.digest in seen:
                        continue
                    seen.add(ref.digest)
                    ancestor = self._dag.block(ref.digest)
                    if ancestor is None:
                        continue
                    if ref.round == round_:
                        reached[ref.digest] = ancestor
                    else:
                        below.append(ancestor)
            level = below
        return list(reached.values())

    def _vote(self, block: DagBlock) -> bytes | None:
        """The digest of the leader block of the round before that `block` votes for."""
        memo = self._memo(block.ref.round).voting
        digest = block.digest
        if digest not in memo:
            below = block.ref.round - 1
            leader = self.leader(below)
            memo[digest] = next(
                (
                    ref.digest
                    for ref in block.header.ancestors
                    if ref.author == leader and ref.round == below
                ),
                None,
            )
        return memo[digest]

    def _certified(self, block: DagBlock) -> bytes | None:
        """The digest of the leader block, two rounds before, that `block` is a certificate of."""
        memo = self._memo(block.ref.round).certified
        digest = block.digest
        if digest not in memo:
            below = block.ref.round - 1
            voters = [
                voter
                for ref in block.header.ancestors
                if ref.round == below and (voter := self._dag.block(ref.digest)) is not None
            ]
            votes = _Tally().extend(voters, self._vote, self._committee.stakes)
            memo[digest] = next(iter(votes.reaching(self._committee.quorum)), None)
        return memo[digest]

    def _votes_in(self, round_: int) -> _Tally:
        """What the blocks of `round_` vote for."""
        blocks = self._dag.blocks_in(round_)
        return self._memo(round_).votes.extend(blocks, self._vote, self._committee.stakes)

    def _certificates_in(self, round_: int) -> _Tally:
        """What the blocks of `round_` certify."""
        blocks = self._dag.blocks_in(round_)
        return self._memo(round_).certificates.extend(
            blocks, self._certified, self._committee.stakes
        )

    def _one(self, round_: int, digests: list[bytes]) -> Decision | None:
        """The commit of the only leader block among `digests`; None where there is none."""
        if len(digests) > 1:
            raise BrokenAssumption(
                f"two leader blocks of round {round_} are committed: "
                + ", ".join(sorted(digest.hex() for digest in digests))
            )
        if not digests:
            return None
        leader = self._dag.block(digests[0])
        if leader is None:
            raise AssertionError(f"the certified leader block of round {round_} is missing")
        return Decision(round_, leader)

    def _memo(self, round_: int) -> _Memo:
        memo = self._memos.get(round_)
        if memo is None:
            memo = self._memos[round_] = _Memo()
        return memo
