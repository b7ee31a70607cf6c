"""What is to be journalled next, and when a new segment is due."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from msgspec.structs import replace

from qnet_actors.rooms import Persist
from qnet_actors.validators.journal_entries import BlockEntry, PendingCommit, SnapshotEntry
from qnet_actors.validators.ordering import Ordering
from qnet_actors.wire.dag import BlockRef, DagBlock
from qnet_actors.wire.evidence import Equivocation

SEGMENT_BYTES_MIN: Final = 128 * 1024
UNJOURNALLED_MAX: Final = 1_024


def snapshot_of(
    first: SnapshotEntry,
    ordering: Ordering,
    last: BlockRef,
    round_min: int,
    evidence: tuple[Equivocation, ...],
) -> SnapshotEntry:
    """What a segment begins with: where consensus stands but for the blocks.

    `first`: the snapshot of an empty journal of the same validator; `last`: its last own block;
    `round_min`: below it no round may be signed.
    """
    queue = ordering.queue
    return replace(
        first,
        own=last,
        round_min=round_min,
        executed_index=queue.executed_index,
        commits=ordering.linearizer.recent,
        pending=tuple(PendingCommit(item.commit, item.batches) for item in queue.unexecuted),
        evidence=evidence,
    )


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
