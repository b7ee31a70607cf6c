"""Commits: a committed leader and what it newly orders, as a hash chain."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

from qnet_actors.validators.dag import Dag
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.committee import Committee
from qnet_actors.wire.dag import GENESIS_COMMIT_DIGEST, BlockRef, Commit, DagBlock


class Linearizer:
    """Turns committed leaders, in order, into commits.

    gc_round is the round of the last committed leader less the depth: it is fixed by the commit
    before, so all validators leave out the same blocks.
    """

    def __init__(
        self,
        dag: Dag,
        committee: Committee,
        gc_depth: int,
        genesis_timestamp_ms: int,
        commits: Sequence[Commit] = (),
    ) -> None:
        """`commits`: the last ones, oldest first, at least back to gc_round; empty at genesis."""
        self._dag: Final = dag
        self._committee: Final = committee
        self._gc_depth: Final = gc_depth
        self._genesis_timestamp_ms: Final = genesis_timestamp_ms
        self._committed: dict[int, set[bytes]] = {}
        self._recent: list[Commit] = []
        self.index = 0
        """The index of the last commit; 0: none yet."""
        self.round = 0
        """The round of the last committed leader."""
        self.gc_round = 0
        self.digest = GENESIS_COMMIT_DIGEST
        self._timestamp_ms = genesis_timestamp_ms
        self.restart(commits)

    @property
    def recent(self) -> tuple[Commit, ...]:
        """The last commits, oldest first, that hold blocks above gc_round."""
        return tuple(self._recent)

    def is_committed(self, ref: BlockRef) -> bool:
        """Whether a block above gc_round is in a commit."""
        return ref.digest in self._committed.get(ref.round, ())

    def committed(self) -> list[BlockRef]:
        """The committed blocks above gc_round."""
        own = (commit for commit in self._recent if commit.epoch == self._committee.epoch)
        return [ref for commit in own for ref in self._above(commit.blocks)]

    def restart(self, commits: Sequence[Commit]) -> None:
        """Goes on after `commits`, a chain whose last is the newest; empty: changes nothing.

        Of another epoch's commits only the chain goes on: rounds begin anew with each epoch.

        Raises `QnetError(DATA_CORRUPT)` where they are no chain.
        """
        if not commits:
            return
        for before, after in pairwise(commits):
            if after.index != before.index + 1 or after.previous != before.digest():
                raise QnetError(Code.DATA_CORRUPT, f"commit {after.index} does not follow")
        self._committed.clear()
        self._recent.clear()
        for commit in commits:
            self._append(commit, commit.digest())

    def commit(self, leader: DagBlock) -> Commit:
        """The next commit: `leader` and its uncommitted ancestors above gc_round."""
        refs = sorted(block.ref for block in self._uncommitted(leader))
        commit = Commit(
            epoch=self._committee.epoch,
            index=self.index + 1,
            previous=self.digest,
            timestamp_ms=max(self._timestamp_ms, self._median_timestamp_ms(leader)),
            leader=leader.ref,
            blocks=tuple(refs),
        )
        self._append(commit, commit.digest())
        return commit

    def _append(self, commit: Commit, digest: bytes) -> None:
        self.index, self.digest, self._timestamp_ms = commit.index, digest, commit.timestamp_ms
        if commit.epoch != self._committee.epoch:
            self._recent[:] = [commit]
            return
        self.round = commit.leader.round
        self.gc_round = max(self.gc_round, commit.leader.round - self._gc_depth)
        for ref in commit.blocks:
            self._committed.setdefault(ref.round, set()).add(ref.digest)
        for old in [round_ for round_ in self._committed if round_ <= self.gc_round]:
            del self._committed[old]
        self._recent.append(commit)
        # Blocks of a commit are at or below its leader.
        keep = next(
            (i for i, kept in enumerate(self._recent) if self._is_live(kept)),
            len(self._recent) - 1,
        )
        del self._recent[:keep]

    def _is_live(self, commit: Commit) -> bool:
        return commit.epoch == self._committee.epoch and commit.leader.round > self.gc_round

    def _above(self, refs: Iterable[BlockRef]) -> list[BlockRef]:
        return [ref for ref in refs if ref.round > self.gc_round]

    def _uncommitted(self, leader: DagBlock) -> list[DagBlock]:
        """The leader and its history down to what is committed or at or below gc_round.

        What a commit leaves out it leaves out for ever: ancestors of a committed block are in its
        commit, in an earlier one, or at or below the gc_round of that time.
        """
        found = [leader]
        seen = {leader.digest}
        for block in found:
            for ref in block.header.ancestors:
                if ref.digest in seen or ref.round <= self.gc_round or self.is_committed(ref):
                    continue
                seen.add(ref.digest)
                ancestor = self._dag.block(ref.digest)
                if ancestor is None:
                    raise AssertionError(f"an ancestor of an admitted block is missing: {ref}")
                found.append(ancestor)
        return found

    def _median_timestamp_ms(self, leader: DagBlock) -> int:
        """The stake-weighted median over the leader's parents in the round before its own.

        The lower median: the first timestamp at which half of the parents' stake is reached.
        """
        below = leader.ref.round - 1
        if below == 0:
            return self._genesis_timestamp_ms
        stakes = self._committee.stakes
        weighted: list[tuple[int, int]] = []
        for ref in leader.header.ancestors:
            if ref.round == below:
                parent = self._dag.block(ref.digest)
                if parent is None:
                    raise AssertionError(f"a parent of a committed leader is missing: {ref}")
                weighted.append((parent.header.timestamp_ms, stakes[ref.author]))
        weighted.sort()
        half = sum(stake for _, stake in weighted)
        reached = 0
        for timestamp_ms, stake in weighted:
            reached += 2 * stake
            if reached >= half:
                return timestamp_ms
        raise AssertionError("a valid block has parents in the round before")
