"""What stands in the consensus journal, and its format.

Every write begins a frame; the first entry of a segment is a snapshot, which says the format.
Formats 1 and 2 are of builds that signed DAG blocks otherwise: none of their blocks holds now, so
there is nothing to migrate.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from qnet_actors.wire.batches import BatchRef
from qnet_actors.wire.codec import U16, Codec, Digest, Struct, Unsigned
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.dag import BlockRef, Commit
from qnet_actors.wire.evidence import Equivocation
from qnet_actors.wire.limits import DAG_BLOCK_SIZE_BYTES_MAX

JOURNAL_VERSION: Final = 3
FRAME_SIZE_BYTES_MAX: Final = 1 << 30


class BlockEntry(Struct, frozen=True, tag=1):
    """An admitted block, in its canonical bytes."""

    block: Annotated[bytes, msgspec.Meta(max_length=DAG_BLOCK_SIZE_BYTES_MAX)]


class PendingCommit(Struct, frozen=True):
    """A commit that the ledger had not executed, with its batches as (author, ref)."""

    commit: Commit
    batches: tuple[tuple[U16, BatchRef], ...]


class SnapshotEntry(Struct, frozen=True, tag=2):
    """All that is needed to go on, but for what comes after it in the journal.

    First of all that is the admitted blocks above gc_round, ancestors first, in the same write.
    """

    version: Unsigned
    chain_id: Digest
    epoch: Unsigned
    author: U16
    own: BlockRef
    """The author's last own block; of round 0 where there is none."""
    round_min: Unsigned
    """Nothing may be signed below."""
    executed_index: Unsigned
    commits: tuple[Commit, ...]
    """The last ones, oldest first, back to gc_round."""
    pending: tuple[PendingCommit, ...]
    evidence: tuple[Equivocation, ...]


class RoundMinEntry(Struct, frozen=True, tag=3):
    """Memory was lost: nothing may be signed below this round."""

    round_min: Unsigned


class EvidenceEntry(Struct, frozen=True, tag=4):
    """A checked proof of an equivocation."""

    equivocation: Equivocation


Entry = BlockEntry | SnapshotEntry | RoundMinEntry | EvidenceEntry


class _Version(msgspec.Struct, array_like=True, tag=2):
    """Of a snapshot, whatever comes after it."""

    version: Unsigned


_CODEC: Final = Codec[tuple[Entry, ...]](tuple[Entry, ...], FRAME_SIZE_BYTES_MAX)
_RAW: Final = msgspec.msgpack.Decoder(tuple[msgspec.Raw, ...])
_VERSION: Final = msgspec.msgpack.Decoder(_Version)


def decode_entries(payload: bytes) -> tuple[Entry, ...]:
    """The entries of a frame.

    Raises `QnetError`: DATA_VERSION where a snapshot begins it that is of another format, whatever
    else it holds; what `Codec.decode` raises.
    """
    version = _snapshot_version(payload)
    if version is not None and version != JOURNAL_VERSION:
        raise QnetError(
            Code.DATA_VERSION,
            f"the journal has format {version}, this release knows {JOURNAL_VERSION}; start the "
            "release that wrote it",
        )
    return _CODEC.decode(payload)


def _snapshot_version(payload: bytes) -> int | None:
    """The format that a frame's snapshot names; None where the frame begins with none."""
    try:
        return _VERSION.decode(_RAW.decode(payload)[0]).version
    except (msgspec.DecodeError, IndexError, RecursionError):
        return None
