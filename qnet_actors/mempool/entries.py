"""Pooled transactions: what a pool, a batch and a status need of one, and no more."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import compress
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from qnet_actors.kernels.expand import Expanded
from qnet_actors.kernels.submissions import gather
from qnet_actors.wire.batches import Batch
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.schemes import SCHEME_SIZES, Scheme, key_id
from qnet_actors.wire.transactions import (
    RegisterValidator,
    RotateKey,
    Transaction,
    Witness,
    amount_total,
    transaction_id,
)

PENDING: Final = 0
"""In the pool, to be batched once its turn comes."""
BATCHED: Final = 1
"""In an own batch."""
SEEN: Final = 2
"""In another author's batch."""
UNRANKED: Final = 2**64 - 1
"""The rank of what is batched, with all before it."""

# Of a batch: its row of the columns, with the payload's offset.
ROW_BYTES: Final = 32 + 32 + 8 + 8 + 4 + 4 + 4
_ARRAY_OF_TWO: Final = b"\x92"
_BIN_8: Final = 0xC4


class Entry(msgspec.Struct, eq=False, gc=False):
    """A transaction in the pool; equal to itself only."""

    id: bytes
    scheme: int
    sender: bytes
    key_id: bytes
    nonce: int
    valid_until: int
    gas_limit: int
    gas_price: int
    data: bytes
    """The transaction's canonical bytes, out of which a batch is cut."""
    payload_at: int
    payload_end: int
    """Where access and action stand in `data`, as a batch's bodies section holds them."""
    public_key: bytes
    """Empty where it is not at hand."""
    brings_key: bool
    """Whether a batch should carry the key: others may not know it."""
    cost: int
    """The most that it can take from the balance: amounts and the whole gas limit."""
    size_bytes: int
    """What it takes in a batch, with the public key where it brings that."""
    rotates_to: bytes = b""
    """The key id that it makes the sender's; empty but for key rotations."""
    registers: bool = False
    """Whether it brings the signature of a validator key besides the witness."""
    state: int = PENDING
    batch: bytes = b""
    """The digest of the batch that carries it, unless pending."""
    ticket: int = 0
    """Its place among what is ready to be batched; 0: it is not."""
    rank: int = 0
    """The gas price by which it is ready: never above the rank of the sender's entry before it."""
    order: int = 0
    restores: int = 0
    seen: bool = False
    """It was left to another author's batch once; it is not a second time."""
    promised: bool = False
    """A batch of another author that is taken over carries it too, and may yet be executed: what
    becomes of it here is no last word."""

    @property
    def payload(self) -> bytes:
        """Canonical access and action."""
        return self.data[self.payload_at : self.payload_end]

    @property
    def signature(self) -> bytes:
        at = self.payload_end + 1 + _unsigned_bytes(self.scheme)
        if self.data[at] == _BIN_8:
            return self.data[at + 2 : at + 2 + self.data[at + 1]]
        size = int.from_bytes(self.data[at + 1 : at + 3], "big")
        return self.data[at + 3 : at + 3 + size]


@dataclass(frozen=True, slots=True)
class Rows:
    """Verified entries, with what of them stands in columns too."""

    entries: list[Entry]
    nonces: npt.NDArray[np.uint64]
    costs: npt.NDArray[np.uint64]
    prices: npt.NDArray[np.uint64]
    sizes: npt.NDArray[np.int64]
    plain: npt.NDArray[np.bool_]
    """False: the entry rotates a key, or its columns do not say all."""

    def part(self, mask: npt.NDArray[np.bool_]) -> Rows:
        """The rows of `mask`."""
        return Rows(
            list(compress(self.entries, mask.tolist())),
            self.nonces[mask],
            self.costs[mask],
            self.prices[mask],
            self.sizes[mask],
            self.plain[mask],
        )


def entry_of(transaction: Transaction, data: bytes) -> Entry:
    """The entry of a transaction whose canonical bytes are `data`.

    The body's bytes are cut out of `data`: since it is canonical, every length is known.
    """
    body, witness = transaction.body, transaction.witness
    witness_bytes = (
        1
        + _unsigned_bytes(witness.scheme)
        + _binary_bytes(len(witness.signature))
        + _binary_bytes(len(witness.public_key))
    )
    payload_end = len(data) - witness_bytes
    payload_at = (
        2
        + _unsigned_bytes(body.version)
        + 3 * _binary_bytes(32)
        + _unsigned_bytes(body.nonce)
        + _unsigned_bytes(body.valid_until)
        + _unsigned_bytes(body.gas_limit)
        + _unsigned_bytes(body.gas_price)
    )
    action = body.action
    return Entry(
        transaction_id(data[1:payload_end]),
        witness.scheme,
        body.sender,
        body.key_id,
        body.nonce,
        body.valid_until,
        body.gas_limit,
        body.gas_price,
        data,
        payload_at,
        payload_end,
        witness.public_key,
        bool(witness.public_key),
        amount_total(action) + body.gas_limit * body.gas_price,
        ROW_BYTES + payload_end - payload_at + len(witness.signature) + len(witness.public_key),
        action.key_id if isinstance(action, RotateKey) else b"",
        isinstance(action, RegisterValidator),
    )


def entries_of_batch(batch: Batch, expanded: Expanded) -> list[Entry]:
    """The entries of an own batch found in the store after a restart, as batched.

    Public keys that the batch brings are given to each of their rows.
    """
    header, columns = batch.header, batch.columns
    keys = {key_id(header.scheme, key): key for key in batch.public_keys}
    ids, senders, key_ids = map(rows_of, (expanded.ids, columns.senders, columns.key_ids))
    signatures = batch.signatures
    entries = []
    for row in range(header.count):
        gas_limit, gas_price = int(columns.gas_limits[row]), int(columns.gas_prices[row])
        opened = expanded.payloads.get(row)
        action = None if opened is None else opened.action
        amount = int(expanded.amounts[row]) if action is None else amount_total(action)
        payload_size = int(columns.payload_offsets[row + 1] - columns.payload_offsets[row])
        public_key, body = keys.get(key_ids[row], b""), expanded.body(row)
        signature = signatures[row].tobytes()
        witness = encode(Witness(header.scheme, signature, b""))
        entries.append(
            Entry(
                ids[row],
                header.scheme,
                senders[row],
                key_ids[row],
                int(columns.nonces[row]),
                int(columns.valid_until[row]),
                gas_limit,
                gas_price,
                _ARRAY_OF_TWO + body + witness,
                1 + len(body) - payload_size,
                1 + len(body),
                public_key,
                bool(public_key),
                amount + gas_limit * gas_price,
                ROW_BYTES + payload_size + len(signature) + len(public_key),
                action.key_id if isinstance(action, RotateKey) else b"",
                state=BATCHED,
                batch=batch.digest,
            )
        )
    return entries


def rows_of(column: npt.NDArray[np.uint8]) -> list[bytes]:
    """The rows of a uint8[n, width] column as bytes, at ~50 ns each."""
    if column.ndim != 2 or column.shape[1] == 0:
        raise QnetError(Code.INTERNAL, f"a column of shape {column.shape}")
    width = np.dtype((np.void, column.shape[1]))
    rows: Any = np.ascontiguousarray(column).view(width).ravel().tolist()
    return list(rows)


def _unsigned_bytes(value: int) -> int:
    """The size of an integer in canonical MessagePack."""
    if value < 0x80:
        return 1
    if value <= 0xFF:
        return 2
    if value <= 0xFFFF:
        return 3
    return 5 if value <= 0xFFFFFFFF else 9


def _binary_bytes(length: int) -> int:
    """The size of `length` bytes (below 2^16) in canonical MessagePack."""
    return length + (2 if length <= 0xFF else 3)


def signature_rows(
    data: npt.NDArray[np.uint8], payload_ends: npt.NDArray[np.int64], scheme: int
) -> npt.NDArray[np.uint8]:
    """uint8[n, size of the scheme]: signatures of transactions side by side in `data`.

    `payload_ends` are places in `data`; the transactions have witnesses of `scheme`'s sizes.
    """
    size = SCHEME_SIZES[Scheme(scheme)].signature
    # An array of three, the scheme, and the header of the signature.
    head = 1 + _unsigned_bytes(scheme) + _binary_bytes(size) - size
    return gather(data, payload_ends + head, size)
