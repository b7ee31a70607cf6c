"""DAG blocks and commits: what consensus sends and what it puts out."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Final

import msgspec

from qnet_actors.wire.codec import U8, U16, Codec, Digest, Struct, Unsigned, encode
from qnet_actors.wire.hashing import COMMIT, DAG_BLOCK, DAG_CONTENT, ZERO_DIGEST, hash32
from qnet_actors.wire.limits import (
    COMMIT_BLOCKS_MAX,
    COMMIT_SIZE_BYTES_MAX,
    DAG_BLOCK_ANCESTORS_MAX,
    DAG_BLOCK_BATCHES_MAX,
    DAG_BLOCK_SIZE_BYTES_MAX,
    DAG_BLOCK_VOTES_MAX,
)
from qnet_actors.wire.refs import BatchRef

DAG_VERSION: Final = 1
Signature = Annotated[bytes, msgspec.Meta(max_length=8_192)]


class BlockRef(Struct, frozen=True, order=True):
    """A DAG block by its slot and digest; ordered by (round, author, digest)."""

    round: Unsigned
    author: U16
    digest: Digest


class CheckpointVote(Struct, frozen=True):
    """A validator's signature over the digest of the checkpoint at `height`."""

    height: Unsigned
    digest: Digest
    signature: Signature


class Slot(Struct, frozen=True):
    """What an author signs: its slot, and all else of the block by one hash.

    Two of them for one slot prove an equivocation in a few kilobytes, however large the blocks are.
    """

    version: U8
    epoch: Unsigned
    round: Unsigned
    author: U16
    timestamp_ms: Unsigned
    content: Digest
    """hash(ancestors, batches, votes)."""

    def digest(self) -> bytes:
        """The digest of the block, which is signed with `schemes.dag_context`."""
        return hash32(DAG_BLOCK, encode(self))


class DagHeader(Struct, frozen=True):
    """All of a DAG block but its signature; the hash of its slot is the block's digest."""

    version: U8
    epoch: Unsigned
    round: Unsigned
    author: U16
    timestamp_ms: Unsigned
    ancestors: Annotated[tuple[BlockRef, ...], msgspec.Meta(max_length=DAG_BLOCK_ANCESTORS_MAX)]
    """The author's own previous block first."""
    batches: Annotated[tuple[BatchRef, ...], msgspec.Meta(max_length=DAG_BLOCK_BATCHES_MAX)]
    """The author's own batches, in sequence order within a shard."""
    votes: Annotated[tuple[CheckpointVote, ...], msgspec.Meta(max_length=DAG_BLOCK_VOTES_MAX)]


class _SignedHeader(Struct, frozen=True):
    header: DagHeader
    signature: Signature


_CODEC: Final = Codec[_SignedHeader](_SignedHeader, DAG_BLOCK_SIZE_BYTES_MAX)


class DagBlock:
    """A signed DAG block; immutable, equal by digest."""

    def __init__(self, header: DagHeader, signature: bytes) -> None:
        self.header = header
        self.signature = signature
        self.digest = header_digest(header)
        self.ref = BlockRef(header.round, header.author, self.digest)

    @cached_property
    def encoded(self) -> bytes:
        """The canonical bytes; kept, since a block is sent to many."""
        return encode(_SignedHeader(self.header, self.signature))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DagBlock) and other.digest == self.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"DagBlock(r{self.ref.round} a{self.ref.author} {self.digest.hex()[:8]})"


def header_slot(header: DagHeader) -> Slot:
    """What the author of a header signs."""
    content = hash32(DAG_CONTENT, encode([header.ancestors, header.batches, header.votes]))
    return Slot(
        header.version, header.epoch, header.round, header.author, header.timestamp_ms, content
    )


def header_digest(header: DagHeader) -> bytes:
    """What the author signs, with `schemes.dag_context`."""
    return header_slot(header).digest()


def decode_dag_block(data: bytes) -> DagBlock:
    """A DAG block from its bytes; the form is checked, nothing else.

    Raises `QnetError`: TOO_LARGE, MALFORMED, NON_CANONICAL.
    """
    signed = _CODEC.decode(data)
    block = DagBlock(signed.header, signed.signature)
    block.__dict__["encoded"] = bytes(data)
    return block


def genesis_refs(epoch_seed: bytes, validators: int) -> tuple[BlockRef, ...]:
    """The round-0 blocks, one an author, known to all and never sent."""
    return tuple(
        BlockRef(0, author, hash32(DAG_BLOCK, epoch_seed, author.to_bytes(2, "big")))
        for author in range(validators)
    )


class Commit(Struct, frozen=True):
    """A committed leader with its newly ordered blocks; chained by `previous`."""

    epoch: Unsigned
    index: Unsigned
    """Counts from 1 within the chain, over epochs."""
    previous: Digest
    timestamp_ms: Unsigned
    leader: BlockRef
    blocks: Annotated[tuple[BlockRef, ...], msgspec.Meta(max_length=COMMIT_BLOCKS_MAX)]
    """Linearised: sorted by (round, author, digest), the leader last in round."""

    def digest(self) -> bytes:
        return hash32(COMMIT, encode(self))


COMMIT_CODEC: Final = Codec[Commit](Commit, COMMIT_SIZE_BYTES_MAX)
GENESIS_COMMIT_DIGEST: Final = ZERO_DIGEST
