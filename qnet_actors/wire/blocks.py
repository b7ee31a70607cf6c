"""Ledger blocks, receipts, checkpoints and their certificates."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from qnet_actors.wire.codec import U8, U16, U32, Address, Codec, Digest, Struct, Unsigned, encode
from qnet_actors.wire.dag import Commit, Signature
from qnet_actors.wire.hashing import BLOCK, CHECKPOINT, RECEIPT, WRITE_SET, hash32
from qnet_actors.wire.limits import (
    BLOCK_RECORD_SIZE_BYTES_MAX,
    BLOCK_TRANSACTIONS_MAX,
    EVENTS_MAX,
    RETURN_DATA_BYTES_MAX,
    VALIDATORS_MAX,
)

BLOCK_VERSION: Final = 1


class BlockHeader(Struct, frozen=True):
    """A block of the ledger; its hash is the block hash."""

    version: U8
    chain_id: Digest
    epoch: Unsigned
    height: Unsigned
    """Counts from 1; the genesis state is height 0."""
    parent: Digest
    """The hash of the block before; for height 1 the chain id."""
    commit_index: Unsigned
    """The last commit whose transactions are in this block."""
    commit_digest: Digest
    timestamp_ms: Unsigned
    transactions_root: Digest
    receipts_root: Digest
    write_set_digest: Digest
    transaction_count: U32
    failed_count: U32
    gas_used: Unsigned

    def hash(self) -> bytes:
        return hash32(BLOCK, encode(self))


class Event(Struct, frozen=True):
    """What a transaction tells the outside."""

    source: Address
    topic: Annotated[bytes, msgspec.Meta(max_length=64)]
    data: Annotated[bytes, msgspec.Meta(max_length=RETURN_DATA_BYTES_MAX)]


class Receipt(Struct, frozen=True):
    """What became of an included transaction."""

    transaction_id: Digest
    status: U16
    """A `Code` below 100; 0 is success."""
    gas_used: Unsigned
    return_data: Annotated[bytes, msgspec.Meta(max_length=RETURN_DATA_BYTES_MAX)]
    events: Annotated[tuple[Event, ...], msgspec.Meta(max_length=EVENTS_MAX)]

    def hash(self) -> bytes:
        return hash32(RECEIPT, encode(self))


class Checkpoint(Struct, frozen=True):
    """What validators sign about once a second; a quorum of signatures makes it final."""

    chain_id: Digest
    height: Unsigned
    block_hash: Digest
    state_root: Digest
    commit_index: Unsigned
    commit_digest: Digest
    committee: Digest
    epoch: Unsigned
    version: U8

    def digest(self) -> bytes:
        """What is signed, with the context "qnet/checkpoint/v1"."""
        return hash32(CHECKPOINT, encode(self))


class CertificateVote(Struct, frozen=True):
    author: U16
    signature: Signature


class Certificate(Struct, frozen=True):
    """A checkpoint with signatures of a quorum of its epoch's committee, by rising author."""

    checkpoint: Checkpoint
    votes: Annotated[tuple[CertificateVote, ...], msgspec.Meta(max_length=VALIDATORS_MAX)]


BLOCK_HEADER_CODEC: Final = Codec[BlockHeader](BlockHeader, 1_024)
RECEIPT_CODEC: Final = Codec[Receipt](Receipt, 16 * 1024 * 1024)
CHECKPOINT_CODEC: Final = Codec[Checkpoint](Checkpoint, 1_024)
CERTIFICATE_CODEC: Final = Codec[Certificate](Certificate, VALIDATORS_MAX * 8_192)


class WriteSet(Struct, frozen=True):
    """The accounts that a block left changed, as columns sorted by address.

    For n accounts: addresses 32n bytes, nonces and balances uint64 little-endian 8n bytes each,
    key ids 32n bytes (zeros: the account has no key yet).
    """

    addresses: bytes
    nonces: bytes
    balances: bytes
    key_ids: bytes

    def digest(self) -> bytes:
        return hash32(WRITE_SET, encode(self))


class BlockRecord(Struct, frozen=True):
    """A block whole: one row of the block log, and what a validator that catches up is sent."""

    header: BlockHeader
    commits: Annotated[tuple[Commit, ...], msgspec.Meta(max_length=65_536)]
    """Every commit since the block before, commits without transactions among them."""
    bodies: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=BLOCK_TRANSACTIONS_MAX)]
    """Canonical bodies of the included transactions in order."""
    receipts: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=BLOCK_TRANSACTIONS_MAX)]
    write_set: WriteSet
    checkpoint: Checkpoint | None
    """Set where the block is a checkpoint."""


BLOCK_RECORD_CODEC: Final = Codec[BlockRecord](BlockRecord, BLOCK_RECORD_SIZE_BYTES_MAX)
