"""Whether a batch is valid: a pure function of its bytes and the public keys its key ids name.

Nonces, balances, expiry and whether a key is still the account's are no part of it: all honest
validators give one batch the same verdict, at whatever height they are and for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from qnet_actors.kernels.expand import Expanded, expand
from qnet_actors.mempool.entries import rows_of
from qnet_actors.mempool.keys import KeyTable
from qnet_actors.wire.batches import BATCH_VERSION, Batch, BatchHeader, decode_batch
from qnet_actors.wire.codec import Codec
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.hashing import BATCH, hash32
from qnet_actors.wire.limits import BATCH_SIZE_BYTES_MAX
from qnet_actors.wire.schemes import CONTEXT_TRANSACTION, Scheme, key_id

_HEADER_CODEC: Final = Codec[BatchHeader](BatchHeader, 512)


class Verifier(Protocol):
    """What the mempool needs of `crypto.BatchVerifier`; safe to call from several threads."""

    def verify_columns(
        self,
        public_keys: tuple[Sequence[bytes], npt.NDArray[np.integer]],
        messages: npt.NDArray[np.uint8],
        signatures: npt.NDArray[np.uint8],
        context: bytes,
        scheme: Scheme,
    ) -> npt.NDArray[np.bool_]:
        """bool[n]: table of keys with an index per row, messages uint8[n, 32], signatures."""
        ...


@dataclass(frozen=True, slots=True)
class Opened:
    """A batch whose form and static rules hold; its signatures are not checked yet."""

    batch: Batch
    expanded: Expanded
    key_ids: list[bytes]
    """One a row."""
    brought: dict[bytes, bytes]
    """Key id -> public key: those that the batch brings along."""


@dataclass(frozen=True, slots=True)
class Refused:
    """`of_bytes`: the verdict is on the digest, and so for ever; else on what was sent only."""

    code: Code
    of_bytes: bool


def peek(data: bytes) -> tuple[BatchHeader, bytes]:
    """The header of an encoded batch and the batch's digest, without a look at the rest.

    Raises `QnetError`: TOO_LARGE, MALFORMED, NON_CANONICAL, UNSUPPORTED_VERSION.
    """
    if len(data) > BATCH_SIZE_BYTES_MAX:
        raise QnetError(Code.TOO_LARGE, f"a batch of {len(data)} bytes")
    # An array of three, whose first element is `bin 8` or `bin 16`.
    if data[:2] == b"\x93\xc4" and len(data) > 2:
        start, size = 3, data[2]
    elif data[:2] == b"\x93\xc5" and len(data) > 3:
        start, size = 4, int.from_bytes(data[2:4], "big")
    else:
        raise QnetError(Code.MALFORMED, "not a batch")
    header_bytes = data[start : start + size]
    header = _HEADER_CODEC.decode(header_bytes)
    if header.version != BATCH_VERSION:
        raise QnetError(Code.UNSUPPORTED_VERSION, f"batch version {header.version}")
    return header, hash32(BATCH, header_bytes)


def open_batch(data: bytes, chain_id: bytes, schemes: frozenset[int]) -> Opened | Refused:
    """Decodes a batch and checks all but its signatures.  Raises nothing, whatever the bytes."""
    try:
        batch = decode_batch(data)
    except QnetError as error:
        return Refused(error.code, of_bytes=False)
    try:
        return check_form(batch, chain_id, schemes)
    except QnetError as error:
        return Refused(error.code, of_bytes=True)


def check_form(batch: Batch, chain_id: bytes, schemes: frozenset[int]) -> Opened:
    """Checks the chain, the scheme, every body and every key brought along.

    Raises `QnetError`: WRONG_CHAIN, SCHEME_REFUSED, what `expand` raises, and MALFORMED for a key
    that comes twice or that no row names: such a batch is no honest author's.
    """
    header = batch.header
    if header.chain_id != chain_id:
        raise QnetError(Code.WRONG_CHAIN)
    if header.scheme not in schemes:
        raise QnetError(Code.SCHEME_REFUSED, f"scheme {header.scheme}")
    expanded = expand(batch)
    key_ids = rows_of(batch.columns.key_ids)
    brought = {key_id(header.scheme, key): key for key in batch.public_keys}
    if len(brought) != header.key_count or not brought.keys() <= set(key_ids):
        raise QnetError(Code.MALFORMED, "a public key comes twice or belongs to no row")
    return Opened(batch, expanded, key_ids, brought)


def verify_rows(verifier: Verifier, opened: Opened, keys: KeyTable, start: int, end: int) -> bool:
    """Whether all signatures of the rows from `start` to `end` are valid."""
    part = keys.part(start, end)
    verdicts = verifier.verify_columns(
        (part.keys, part.index),
        opened.expanded.ids[start:end],
        opened.batch.signatures[start:end],
        CONTEXT_TRANSACTION,
        Scheme(opened.batch.header.scheme),
    )
    return bool(verdicts.all())


def check_batch(opened: Opened, keys: KeyTable, verifier: Verifier, rows: int = 1_024) -> bool:
    """Whether every signature is valid: one bad one refuses the batch."""
    count = opened.batch.header.count
    return all(
        verify_rows(verifier, opened, keys, start, min(start + rows, count))
        for start in range(0, count, rows)
    )
