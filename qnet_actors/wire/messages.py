"""What validators say to each other over a link, once it stands."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from qnet_actors.wire.blocks import Certificate
from qnet_actors.wire.codec import U8, U32, Codec, Digest, Struct, Unsigned
from qnet_actors.wire.dag import BlockRef
from qnet_actors.wire.evidence import Equivocation
from qnet_actors.wire.limits import (
    FRAME_SIZE_BYTES_MAX,
    MESSAGE_BATCHES_MAX,
    MESSAGE_DAG_BLOCKS_MAX,
    MESSAGE_DIGESTS_MAX,
    MESSAGE_EQUIVOCATIONS_MAX,
    MESSAGE_KEYS_MAX,
    MESSAGE_LEDGER_BLOCKS_MAX,
    SNAPSHOT_PART_SIZE_BYTES_MAX,
)

Digests = Annotated[tuple[Digest, ...], msgspec.Meta(min_length=1, max_length=MESSAGE_DIGESTS_MAX)]


class Batches(Struct, frozen=True, tag=1):
    """Batches, each in its canonical bytes: pushed by the author, or the answer to a request."""

    batches: Annotated[
        tuple[bytes, ...], msgspec.Meta(min_length=1, max_length=MESSAGE_BATCHES_MAX)
    ]


class BatchAcks(Struct, frozen=True, tag=2):
    """The sender has verified these batches and holds them durably."""

    digests: Digests


class BatchRequest(Struct, frozen=True, tag=3):
    digests: Digests


class PublicKey(Struct, frozen=True):
    scheme: U8
    public_key: Annotated[bytes, msgspec.Meta(max_length=8_192)]


class Keys(Struct, frozen=True, tag=4):
    """Public keys; their key ids are computed, never believed."""

    keys: Annotated[tuple[PublicKey, ...], msgspec.Meta(max_length=MESSAGE_KEYS_MAX)]


class KeyRequest(Struct, frozen=True, tag=5):
    key_ids: Annotated[tuple[Digest, ...], msgspec.Meta(min_length=1, max_length=MESSAGE_KEYS_MAX)]


class DagBlocks(Struct, frozen=True, tag=6):
    """DAG blocks, each in its canonical bytes."""

    blocks: Annotated[
        tuple[bytes, ...], msgspec.Meta(min_length=1, max_length=MESSAGE_DAG_BLOCKS_MAX)
    ]


class DagRequest(Struct, frozen=True, tag=7):
    refs: Annotated[
        tuple[BlockRef, ...], msgspec.Meta(min_length=1, max_length=MESSAGE_DAG_BLOCKS_MAX)
    ]


class PeerStatus(Struct, frozen=True, tag=8):
    """Where the sender stands; sent when a link comes up and about once a second."""

    epoch: Unsigned
    round: Unsigned
    commit_index: Unsigned
    height: Unsigned
    your_round: Unsigned
    """The highest round of the receiver's own blocks that the sender has: a validator that lost
    its memory learns from this what it has signed."""
    final_height: Unsigned


class LedgerRequest(Struct, frozen=True, tag=9):
    """Asks for executed blocks from `first_height` on."""

    first_height: Unsigned
    count_max: U32


class LedgerBlocks(Struct, frozen=True, tag=10):
    """Consecutive block records, and the newest certificate that the sender has."""

    records: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=MESSAGE_LEDGER_BLOCKS_MAX)]
    certificate: Certificate | None


class Evidence(Struct, frozen=True, tag=11):
    """Proofs of equivocations that the sender has verified and keeps."""

    equivocations: Annotated[
        tuple[Equivocation, ...], msgspec.Meta(min_length=1, max_length=MESSAGE_EQUIVOCATIONS_MAX)
    ]


class SnapshotRequest(Struct, frozen=True, tag=12):
    """Asks for part of a snapshot: 0 is the manifest, n the n-th section that is not empty."""

    height: Unsigned
    """0: that of the newest snapshot."""
    part: U32


class SnapshotPart(Struct, frozen=True, tag=13):
    """Part of a snapshot; no bytes: the sender does not have it."""

    height: Unsigned
    part: U32
    data: Annotated[bytes, msgspec.Meta(max_length=SNAPSHOT_PART_SIZE_BYTES_MAX)]
    """A `SnapshotManifest`, or a `WriteSet` with the accounts of a section."""


Message = (
    Batches
    | BatchAcks
    | BatchRequest
    | Keys
    | KeyRequest
    | DagBlocks
    | DagRequest
    | PeerStatus
    | LedgerRequest
    | LedgerBlocks
    | Evidence
    | SnapshotRequest
    | SnapshotPart
)

MESSAGE_CODEC: Final = Codec[Message](Message, FRAME_SIZE_BYTES_MAX)
