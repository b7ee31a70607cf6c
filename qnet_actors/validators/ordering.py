"""From the DAG to the ledger's queue: decide, linearise, name the batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from qnet_actors.validators.catching_up import Standing
from qnet_actors.validators.committer import Committer
from qnet_actors.validators.dag import Dag
from qnet_actors.validators.linearizer import Linearizer
from qnet_actors.validators.outbox import LedgerQueue, Naming
from qnet_actors.validators.recovery import Recovered
from qnet_actors.wire.batches import BatchRef
from qnet_actors.wire.committee import Committee
from qnet_actors.wire.dag import BlockRef, Commit, DagBlock
from qnet_actors.wire.genesis import Genesis


class Ordering:
    """The commit chain of one validator and where it stands."""

    def __init__(
        self, genesis: Genesis, committee: Committee, dag: Dag, recovered: Recovered
    ) -> None:
        parameters = genesis.parameters
        self._dag: Final = dag
        self.linearizer: Final = Linearizer(
            dag, committee, parameters.gc_depth, genesis.timestamp_ms, recovered.commits
        )
        self.committer: Final = Committer(dag, committee)
        self.queue: Final = LedgerQueue(parameters.commit_lag, recovered.executed_index)
        self.decided_round = self.linearizer.round
        """Slots up to this round are committed or skipped."""
        self._looked_at = (-1, 0)
        self._naming: Final = Naming()
        self._is_named = False

    @property
    def is_naming(self) -> bool:
        """Whether all that committed blocks above gc_round name is known."""
        return self._is_named

    @property
    def is_ready(self) -> bool:
        """Whether a commit may follow: the ledger keeps up, and what is named is known."""
        return self._is_named and not self.queue.is_full

    @property
    def is_over(self) -> bool:
        """Whether all commits of the epoch are made: blocks go on for votes, and carry nothing."""
        end = self.queue.epoch_end
        return end is not None and self.linearizer.index >= end

    def standing(self, executed_height: int) -> Standing:
        """Where consensus and the ledger are; `executed_height` is the newest checkpoint's."""
        queue = self.queue
        return Standing(
            self.linearizer.index,
            queue.executed_index,
            executed_height,
            queue.has_gap,
            self.is_over,
        )

    def named_round(self, author: int, ref: BatchRef) -> int | None:
        """The highest round above gc_round of a committed block of the author that names the batch.

        None: there is none.
        """
        return self._naming.named_round(author, ref)

    def missing(self) -> list[BlockRef]:
        """Committed blocks above gc_round that are not here, though what they name must be known.

        None: naming starts from those that are here.
        """
        committed = self.linearizer.committed()
        missing = [ref for ref in committed if ref.digest not in self._dag]
        self._is_named = not missing
        if not missing:
            blocks = (self._dag.block(ref.digest) for ref in committed)
            self._naming.restart(block for block in blocks if block is not None)
        return missing

    def next_leaders(self) -> list[DagBlock]:
        """The leaders to commit now, in order.  Raises `BrokenAssumption`."""
        if self._looked_at == (self._dag.admitted_count, self.decided_round):
            return []
        self._looked_at = (self._dag.admitted_count, self.decided_round)
        decisions = self.committer.decide(self.decided_round)
        if decisions:
            self.decided_round = decisions[-1].round
            self.committer.forget(self.decided_round)
        return [decision.leader for decision in decisions if decision.leader is not None]

    def commit(self, leader: DagBlock) -> list[DagBlock]:
        """Commits a leader; returns the commit's blocks."""
        gc_round = self.linearizer.gc_round
        commit = self.linearizer.commit(leader)
        found = (self._dag.block(ref.digest) for ref in commit.blocks)
        blocks = [block for block in found if block is not None]
        self.queue.add(commit, self._naming.commit(blocks, gc_round))
        return blocks

    def restart(self, commits: Sequence[Commit]) -> None:
        """Goes on behind commits that others made."""
        self.linearizer.restart(commits)
        self.decided_round = self.linearizer.round
        self.committer.forget(self.decided_round)
