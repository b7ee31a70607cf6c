"""Batches: transactions as contiguous columns, bodies apart from witnesses.

The bodies section holds, for n transactions, little-endian and without padding:

    senders uint8[n, 32] | key ids uint8[n, 32] | nonces uint64[n] | valid until uint64[n]
    | gas limits uint32[n] | gas prices uint32[n] | payload offsets uint32[n + 1] | payloads

A payload is the canonical MessagePack of a body's last two fields, access and action.  Version and
chain id, the same in every body, stand once in the header; so every body can be rebuilt from the
columns to the byte, and one set of transactions in one order has exactly one batch.

The witnesses section holds signatures uint8[n, s] | public keys uint8[m, p], s and p being the
sizes of the header's scheme.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from qnet_actors.wire.codec import U8, U16, U32, Codec, Digest, Struct, Unsigned, encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.hashing import BATCH, BATCH_BODIES, BATCH_WITNESSES, hash32
from qnet_actors.wire.limits import (
    BATCH_GAS_MAX,
    BATCH_PAYLOAD_BYTES_MAX,
    BATCH_SIZE_BYTES_MAX,
    BATCH_TRANSACTIONS_MAX,
    SHARDS_MAX,
)
from qnet_actors.wire.refs import BatchRef as BatchRef
from qnet_actors.wire.schemes import SCHEME_SIZES, Scheme, SchemeSizes
from qnet_actors.wire.transactions import Body, Transaction, Witness, decode_payload, payload_bytes

BATCH_VERSION: Final = 1
_HEADER_SIZE_BYTES_MAX: Final = 512
_FRAMING_BYTES_MAX: Final = 1 + 3 + 5 + 5
"""What `encode` puts around the three parts."""
_ROW_BYTES: Final = 32 + 32 + 8 + 8 + 4 + 4

Bytes = npt.NDArray[np.uint8]


class BatchHeader(Struct, frozen=True):
    """What names a batch: its digest is the hash of this."""

    version: U8
    chain_id: Digest
    epoch: Unsigned
    author: U16
    shard: U8
    sequence: Unsigned
    scheme: U8
    count: U32
    key_count: U32
    bodies_root: Digest
    witnesses_root: Digest


class _BatchParts(Struct, frozen=True):
    header: bytes
    bodies: bytes
    witnesses: bytes


_HEADER_CODEC: Final = Codec[BatchHeader](BatchHeader, _HEADER_SIZE_BYTES_MAX)
_PARTS_CODEC: Final = Codec[_BatchParts](_BatchParts, BATCH_SIZE_BYTES_MAX)


class BodyColumns:
    """Views of the columns of a bodies section; the constructor checks every length and offset.

    Raises `QnetError(MALFORMED)` where the section's size or an offset does not fit `count`.
    """

    __slots__ = (
        "count",
        "gas_limits",
        "gas_prices",
        "key_ids",
        "nonces",
        "payload",
        "payload_offsets",
        "senders",
        "valid_until",
    )

    def __init__(self, section: bytes | memoryview, count: int) -> None:
        fixed = count * _ROW_BYTES + 4 * (count + 1)
        if not 1 <= count <= BATCH_TRANSACTIONS_MAX or len(section) < fixed:
            raise QnetError(Code.MALFORMED, f"a bodies section of {len(section)} bytes")
        data = np.frombuffer(section, dtype=np.uint8)
        ends = np.cumsum([0, 32 * count, 32 * count, 8 * count, 8 * count, 4 * count, 4 * count])
        self.count = count
        self.senders: Bytes = data[ends[0] : ends[1]].reshape(count, 32)
        self.key_ids: Bytes = data[ends[1] : ends[2]].reshape(count, 32)
        # Sections may begin at any address; a copy makes the integer columns aligned.
        self.nonces = data[ends[2] : ends[3]].copy().view("<u8")
        self.valid_until = data[ends[3] : ends[4]].copy().view("<u8")
        self.gas_limits = data[ends[4] : ends[5]].copy().view("<u4")
        self.gas_prices = data[ends[5] : ends[6]].copy().view("<u4")
        self.payload_offsets = data[ends[6] : fixed].copy().view("<u4")
        self.payload: Bytes = data[fixed:]
        offsets = self.payload_offsets.astype(np.int64)
        if offsets[0] != 0 or offsets[-1] != len(self.payload) or np.any(np.diff(offsets) < 2):
            raise QnetError(Code.MALFORMED, "payload offsets do not cover the payloads in order")
        if len(self.payload) > BATCH_PAYLOAD_BYTES_MAX:
            raise QnetError(Code.TOO_LARGE, f"payloads of {len(self.payload)} bytes")

    def row_payload(self, row: int) -> bytes:
        """The canonical access and action of one row."""
        start, end = self.payload_offsets[row], self.payload_offsets[row + 1]
        return self.payload[start:end].tobytes()

    def body(self, row: int, header: BatchHeader) -> Body:
        """One row as a body; raises `QnetError` where its payload is not canonical."""
        payload = decode_payload(self.row_payload(row))
        return Body(
            version=header.version,
            chain_id=header.chain_id,
            sender=self.senders[row].tobytes(),
            key_id=self.key_ids[row].tobytes(),
            nonce=int(self.nonces[row]),
            valid_until=int(self.valid_until[row]),
            gas_limit=int(self.gas_limits[row]),
            gas_price=int(self.gas_prices[row]),
            access=payload.access,
            action=payload.action,
        )


class Batch:
    """A decoded batch: header, sections and the columns in them.

    Form only: roots, lengths, offsets and bounds hold.  Payloads, terms and signatures are checked
    by the mempool, which alone says whether a batch is valid.
    """

    def __init__(self, header: BatchHeader, bodies: bytes, witnesses: bytes) -> None:
        self.header = header
        self.bodies = bodies
        self.witnesses = witnesses
        self.header_bytes = encode(header)
        self.digest = hash32(BATCH, self.header_bytes)
        self.columns = BodyColumns(bodies, header.count)
        self._sizes = _scheme_sizes(header.scheme)
        expected = header.count * self._sizes.signature + header.key_count * self._sizes.public_key
        if len(witnesses) != expected or header.key_count > header.count:
            raise QnetError(Code.MALFORMED, f"a witnesses section of {len(witnesses)} bytes")
        if header.shard >= SHARDS_MAX:
            raise QnetError(Code.MALFORMED, f"shard {header.shard}")
        if int(self.columns.gas_limits.sum(dtype=np.uint64)) > BATCH_GAS_MAX:
            raise QnetError(Code.GAS_LIMIT_TOO_HIGH, "the batch's gas limits add up to too much")

    @property
    def ref(self) -> BatchRef:
        return BatchRef(self.header.shard, self.header.sequence, self.digest)

    @cached_property
    def signatures(self) -> Bytes:
        """uint8[count, signature size]."""
        size = self._sizes.signature
        data = np.frombuffer(self.witnesses, dtype=np.uint8, count=self.header.count * size)
        return data.reshape(self.header.count, size)

    @cached_property
    def public_keys(self) -> list[bytes]:
        """The keys that the batch brings along, for whoever lacks them."""
        start, size = self.header.count * self._sizes.signature, self._sizes.public_key
        return [
            self.witnesses[start + i * size : start + (i + 1) * size]
            for i in range(self.header.key_count)
        ]

    @cached_property
    def size_bytes(self) -> int:
        return len(self.header_bytes) + len(self.bodies) + len(self.witnesses)

    def encode(self) -> bytes:
        """The canonical bytes of the whole batch."""
        return encode(_BatchParts(self.header_bytes, self.bodies, self.witnesses))


def decode_batch(data: bytes) -> Batch:
    """A batch from its bytes; form and roots checked, signatures not.

    Raises `QnetError`: TOO_LARGE, MALFORMED, NON_CANONICAL, UNSUPPORTED_VERSION, UNKNOWN_SCHEME.
    """
    parts = _PARTS_CODEC.decode(data)
    header = _HEADER_CODEC.decode(parts.header)
    if header.version != BATCH_VERSION:
        raise QnetError(Code.UNSUPPORTED_VERSION, f"batch version {header.version}")
    batch = Batch(header, parts.bodies, parts.witnesses)
    if hash32(BATCH_BODIES, parts.bodies) != header.bodies_root:
        raise QnetError(Code.MALFORMED, "the bodies do not hash to the header's root")
    if hash32(BATCH_WITNESSES, parts.witnesses) != header.witnesses_root:
        raise QnetError(Code.MALFORMED, "the witnesses do not hash to the header's root")
    return batch


def encode_bodies(bodies: Sequence[Body]) -> bytes:
    """The bodies section of `bodies`."""
    payloads = [payload_bytes(body) for body in bodies]
    offsets = np.zeros(len(bodies) + 1, dtype="<u4")
    np.cumsum([len(payload) for payload in payloads], out=offsets[1:])
    return b"".join(
        (
            b"".join(body.sender for body in bodies),
            b"".join(body.key_id for body in bodies),
            np.array([body.nonce for body in bodies], dtype="<u8").tobytes(),
            np.array([body.valid_until for body in bodies], dtype="<u8").tobytes(),
            np.array([body.gas_limit for body in bodies], dtype="<u4").tobytes(),
            np.array([body.gas_price for body in bodies], dtype="<u4").tobytes(),
            offsets.tobytes(),
            *payloads,
        )
    )


def build_batch(
    transactions: Sequence[Transaction],
    *,
    chain_id: bytes,
    epoch: int,
    author: int,
    shard: int,
    sequence: int,
) -> Batch:
    """A batch of transactions of one scheme, with each public key that they bring once.

    Raises `QnetError`: MALFORMED where there are none, too many, two schemes, or one whose version
    or chain is not the batch's; TOO_LARGE where the whole would be over its limit.
    """
    if not transactions or len({t.witness.scheme for t in transactions}) != 1:
        raise QnetError(Code.MALFORMED, "a batch holds transactions of exactly one scheme")
    bodies = encode_bodies([transaction.body for transaction in transactions])
    # The header's version and chain id replace those of the bodies: another's would be rewritten.
    if {(t.body.version, t.body.chain_id) for t in transactions} != {(BATCH_VERSION, chain_id)}:
        raise QnetError(Code.MALFORMED, "a transaction of another chain or version")
    keys = dict.fromkeys(t.witness.public_key for t in transactions if t.witness.public_key)
    witnesses = b"".join([*[t.witness.signature for t in transactions], *keys])
    header = BatchHeader(
        version=BATCH_VERSION,
        chain_id=chain_id,
        epoch=epoch,
        author=author,
        shard=shard,
        sequence=sequence,
        scheme=transactions[0].witness.scheme,
        count=len(transactions),
        key_count=len(keys),
        bodies_root=hash32(BATCH_BODIES, bodies),
        witnesses_root=hash32(BATCH_WITNESSES, witnesses),
    )
    batch = Batch(header, bodies, witnesses)
    if batch.size_bytes + _FRAMING_BYTES_MAX > BATCH_SIZE_BYTES_MAX:
        raise QnetError(Code.TOO_LARGE, f"a batch of {batch.size_bytes} bytes")
    return batch


def batch_transactions(batch: Batch) -> list[Transaction]:
    """The transactions of a batch row by row, without the public keys; for tests and archives."""
    header = batch.header
    return [
        Transaction(
            batch.columns.body(row, header),
            Witness(header.scheme, batch.signatures[row].tobytes(), b""),
        )
        for row in range(header.count)
    ]


def _scheme_sizes(scheme: int) -> SchemeSizes:
    try:
        return SCHEME_SIZES[Scheme(scheme)]
    except ValueError:
        raise QnetError(Code.UNKNOWN_SCHEME, f"scheme {scheme}") from None
