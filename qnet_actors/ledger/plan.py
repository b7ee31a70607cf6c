"""When a snapshot of the state is made."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from qnet_actors.ledger.outcome import LedgerState
from qnet_actors.ledger.recovery import trim_commits
from qnet_actors.ledger.writes import SnapshotWrite
from qnet_actors.wire.blocks import BlockRecord
from qnet_actors.wire.dag import Commit


@dataclass(frozen=True, slots=True)
class SnapshotSettings:
    """When snapshots are made and taken over."""

    every_bytes: int = 64 * 1024 * 1024
    """After so many bytes of blocks one is made at the next checkpoint."""
    ahead_blocks_min: int = 2_048
    """Fewer blocks are taken one after the other: their history is then here too."""


class SnapshotPlan:
    """Counts what was executed; belongs to whoever changes the state, but for `certified`.

    Records are the same everywhere, so validators make theirs at the same heights, and whoever
    joins gets sections of one snapshot from all of them.
    """

    def __init__(
        self, every_bytes: int, gc_depth: int, bytes_since: int, commits: Iterable[Commit]
    ) -> None:
        self._every_bytes: Final = every_bytes
        self._gc_depth: Final = gc_depth
        self._bytes_since = bytes_since
        self._commits = deque(commits)
        self._unproved_height = 0
        self._again = False

    @property
    def bytes_since(self) -> int:
        """Of blocks since the newest snapshot."""
        return self._bytes_since

    def executed(
        self, record: BlockRecord, size_bytes: int, state: LedgerState
    ) -> SnapshotWrite | None:
        """The snapshot to keep after a block, whose record has `size_bytes`."""
        self._bytes_since += size_bytes
        self._commits.extend(record.commits)
        trim_commits(self._commits, self._gc_depth)
        checkpoint = record.checkpoint
        if checkpoint is None:
            return None
        if self._bytes_since >= self._every_bytes:
            self._bytes_since = 0
        elif not self._again:
            return None
        self._again = False
        self._unproved_height = checkpoint.height
        return SnapshotWrite(
            checkpoint.height, checkpoint.state_root, tuple(self._commits), state.snapshot()
        )

    def joined(self, commits: Iterable[Commit]) -> None:
        """The state was taken over from a snapshot with these commits."""
        self._bytes_since = 0
        self._commits = deque(commits)

    def certified(self, height: int) -> None:
        """A checkpoint is certified.

        Where it is above that of the newest snapshot, nobody can prove that one: another is made.
        """
        if height > self._unproved_height > 0:
            self._again = True
        if height >= self._unproved_height:
            self._unproved_height = 0
