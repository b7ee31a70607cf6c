"""From the block log to what a ledger starts from."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar, overload

from qnet_actors.ledger.blocks import Tip, genesis_tip, is_checkpoint, next_tip
from qnet_actors.ledger.outcome import LedgerState
from qnet_actors.ledger.writes import BlockLog, HeldSnapshot, all_parts
from qnet_actors.state import State, genesis_write_set
from qnet_actors.wire.blocks import (
    BLOCK_HEADER_CODEC,
    BLOCK_RECORD_CODEC,
    BlockRecord,
    Certificate,
    Checkpoint,
)
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.dag import Commit
from qnet_actors.wire.genesis import Genesis

_CHUNK_RECORDS: Final = 64
_CHUNK_BYTES: Final = 16 * 1024 * 1024


S = TypeVar("S", bound=LedgerState)
S_co = TypeVar("S_co", bound=LedgerState, covariant=True)


@dataclass(frozen=True, slots=True)
class Recovered(Generic[S_co]):
    """What a `LedgerCore` is constructed with."""

    state: S_co
    tip: Tip
    commits: tuple[Commit, ...]
    """The newest executed commits, oldest first: see `trim_commits`."""
    checkpoint: Checkpoint | None
    """The newest one executed."""
    certificate: Certificate | None
    """The newest one stored."""
    bytes_since_snapshot: int


@overload
def recover(log: BlockLog, genesis: Genesis) -> Recovered[State]: ...


@overload
def recover(log: BlockLog, genesis: Genesis, new_state: Callable[[], S]) -> Recovered[S]: ...


def recover(
    log: BlockLog, genesis: Genesis, new_state: Callable[[], Any] = State
) -> Recovered[Any]:
    """Rebuilds the state from the newest good snapshot, or genesis, and the write sets since.

    Every block must name the one before it as its parent and hold the write set of its header, and
    the state root is compared at the last checkpoint: it covers all that was applied before, and a
    root for each one passed would take most of the time.  Raises `QnetError(DATA_CORRUPT)` where
    something does not fit.  `new_state` gives an empty state; what an earlier call gave is not used
    any more.
    """
    last_checkpoint = _last_checkpoint(log, genesis)
    state, tip, checkpoint, commits = _base(log, genesis, new_state)
    size = 0
    for encoded in _records(log, tip.height + 1):
        record = BLOCK_RECORD_CODEC.decode(encoded)
        header = record.header
        if header.height != tip.height + 1 or header.parent != tip.block_hash:
            raise QnetError(
                Code.DATA_CORRUPT, f"block {header.height} in the log does not follow {tip.height}"
            )
        if record.write_set.digest() != header.write_set_digest:
            raise QnetError(Code.DATA_CORRUPT, f"the write set of block {header.height} is damaged")
        state.apply(header.height, record.write_set)
        checkpoint = record.checkpoint or checkpoint
        if header.height == last_checkpoint:
            _compare(state, record)
        tip = next_tip(tip, record)
        commits.extend(record.commits)
        trim_commits(commits, genesis.parameters.gc_depth)
        size += len(encoded)
    if tip.height and log.height_of(tip.block_hash) != tip.height:
        raise QnetError(Code.DATA_CORRUPT, f"block {tip.height} in the log has another hash")
    return Recovered(state, tip, tuple(commits), checkpoint, log.newest_certificate(), size)


def _last_checkpoint(log: BlockLog, genesis: Genesis) -> int:
    """The height of the last checkpoint by the headers; 0: none."""
    first, end = log.first_height(), log.last_height()
    while end >= first:
        start = max(first, end - _CHUNK_RECORDS)
        headers = [BLOCK_HEADER_CODEC.decode(data) for data in log.headers(start, end - start + 1)]
        for before, header in zip(headers[-2::-1], headers[:0:-1], strict=True):
            if is_checkpoint(before.timestamp_ms, header.timestamp_ms):
                return header.height
        if start == first:
            # What a log begins with, but for the first block, is the checkpoint of a snapshot.
            alone = first > 1 or is_checkpoint(genesis.timestamp_ms, headers[0].timestamp_ms)
            return first if headers and alone else 0
        end = start
    return 0


def trim_commits(commits: deque[Commit], gc_depth: int) -> None:
    """Drops the commits that nobody needs any more.

    Whoever goes on from a checkpoint needs those back to its gc_round; the newest certified one
    lags behind the tip, so twice the depth is kept.
    """
    if not commits:
        return
    # Of the epochs before, one commit is enough: the chain goes on from it.
    while len(commits) > 1 and commits[1].epoch < commits[-1].epoch:
        commits.popleft()
    if commits[0].epoch < commits[-1].epoch:
        return
    round_min = commits[-1].leader.round - 2 * gc_depth
    while commits[0].leader.round < round_min:
        commits.popleft()


def _base(
    log: BlockLog, genesis: Genesis, new_state: Callable[[], S]
) -> tuple[S, Tip, Checkpoint | None, deque[Commit]]:
    """The newest snapshot that proves right against the log, else genesis."""
    state = new_state()
    for height in log.snapshot_heights():
        snapshot = log.snapshot(height)
        checkpoint = None if snapshot is None else _loaded(log, snapshot, state)
        if snapshot is not None and checkpoint is not None:
            # A checkpoint never holds only a part of a commit, so what comes before is no matter.
            tip = next_tip(genesis_tip(genesis), _record(log, height))
            return state, tip, checkpoint, deque(snapshot.commits)
    if log.first_height() > 1:
        raise QnetError(
            Code.DATA_CORRUPT,
            f"the log begins at block {log.first_height()} and no snapshot of the state there "
            "can be read; resync this validator",
        )
    state = new_state()
    state.load(0, genesis_write_set(genesis))
    return state, genesis_tip(genesis), None, deque()


def _loaded(log: BlockLog, snapshot: HeldSnapshot, state: LedgerState) -> Checkpoint | None:
    """Loads a snapshot; None where it is not what the log's checkpoint says: it is derived data."""
    if not log.first_height() <= snapshot.height <= log.last_height():
        return None
    checkpoint = _record(log, snapshot.height).checkpoint
    if checkpoint is None or not is_chain(snapshot.commits, checkpoint):
        return None
    try:
        state.replace(snapshot.height, all_parts(snapshot.part, snapshot.sections))
    except QnetError:
        return None
    return checkpoint if state.root() == checkpoint.state_root else None


def is_chain(commits: Sequence[Commit], checkpoint: Checkpoint) -> bool:
    """Whether commits follow one another and end with the checkpoint's."""
    if not commits:
        return False
    digests = [commit.digest() for commit in commits]
    for before, digest, after in zip(commits, digests, commits[1:], strict=False):
        if (
            (after.index, after.previous) != (before.index + 1, digest)
            # Rounds begin anew with each epoch.
            or (after.epoch, after.leader.round) <= (before.epoch, before.leader.round)
            or after.timestamp_ms < before.timestamp_ms
        ):
            return False
    return (commits[-1].index, digests[-1]) == (checkpoint.commit_index, checkpoint.commit_digest)


def _record(log: BlockLog, height: int) -> BlockRecord:
    records = log.records(height, 1, _CHUNK_BYTES)
    if not records:
        raise QnetError(Code.DATA_CORRUPT, f"block {height} is missing from the log")
    return BLOCK_RECORD_CODEC.decode(records[0])


def _records(log: BlockLog, first_height: int) -> Iterator[bytes]:
    """The records from a height to the end, a chunk in memory at a time."""
    while records := log.records(first_height, _CHUNK_RECORDS, _CHUNK_BYTES):
        yield from records
        first_height += len(records)


def _compare(state: LedgerState, record: BlockRecord) -> None:
    checkpoint, height = record.checkpoint, record.header.height
    if checkpoint is None:
        raise QnetError(Code.DATA_CORRUPT, f"block {height} in the log lacks its checkpoint")
    root = state.root()
    if root != checkpoint.state_root:
        raise QnetError(
            Code.DATA_CORRUPT,
            f"the state root after block {height} is {root.hex()}, the log says "
            f"{checkpoint.state_root.hex()}; resync this validator",
        )
