"""What is to be journalled next, and when a new segment is due."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from qnet_actors.rooms import Persist
from qnet_actors.validators.journal_entries import BlockEntry, SnapshotEntry
from qnet_actors.wire.dag import DagBlock

SEGMENT_BYTES_MIN: Final = 128 * 1024
UNJOURNALLED_MAX: Final = 1_024


class JournalWriter:
    """Gathers admitted blocks between two writes.

    A segment grows to a few times its snapshot, so that writing snapshots costs a fraction of
    writing blocks and a replay is short.
    """

    def __init__(
        self,
        snapshot: Callable[[], SnapshotEntry],
        blocks: Callable[[], Sequence[DagBlock]],
        *,
        is_new: bool,
    ) -> None:
        """`blocks`: all admitted ones above gc_round, ancestors first."""
        self._snapshot: Final = snapshot
        self._all_blocks: Final = blocks
        self._blocks: list[DagBlock] = []
        self._segment_bytes = 0
        self._snapshot_bytes = 0
        self._snapshot_due = is_new

    @property
    def is_due(self) -> bool:
        """Whether to write without waiting for an own block or a commit."""
        return self._snapshot_due or len(self._blocks) > UNJOURNALLED_MAX

    def add(self, blocks: Iterable[DagBlock]) -> None:
        """Blocks were admitted."""
        self._blocks.extend(blocks)

    def request_snapshot(self) -> None:
        """The next write begins a new segment: the journal so far does not lead to here."""
        self._snapshot_due = True

    def flush(self) -> list[Persist]:
        """The write that makes all admitted blocks durable; none where all are."""
        entries = tuple(BlockEntry(block.encoded) for block in self._blocks)
        self._segment_bytes += sum(len(entry.block) for entry in entries)
        self._blocks.clear()
        if self._segment_bytes > max(SEGMENT_BYTES_MIN, 3 * self._snapshot_bytes):
            self._snapshot_due = True
        if self._snapshot_due:
            self._snapshot_due = False
            kept = tuple(BlockEntry(block.encoded) for block in self._all_blocks())
            self._snapshot_bytes = self._segment_bytes = sum(len(entry.block) for entry in kept)
            return [Persist((self._snapshot(), *kept))]
        return [Persist(entries)] if entries else []
