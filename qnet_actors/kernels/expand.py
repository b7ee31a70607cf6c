"""Batches opened for work: ids, kinds, payees and amounts as columns, static rules checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from qnet_actors.wire.batches import Batch
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.hashing import TRANSACTION
from qnet_actors.wire.limits import GAS_LIMIT_MAX, GAS_PRICE_MAX, TRANSACTION_SIZE_BYTES_MAX
from qnet_actors.wire.transactions import (
    GAS_TRANSFER,
    TRANSACTION_VERSION,
    Body,
    Payload,
    Transfer,
    check_body,
    intrinsic_gas,
    transaction_id,
)

KIND_TRANSFER: Final = 1
KIND_OTHER: Final = 0


@dataclass(frozen=True, slots=True)
class Expanded:
    """The n transactions of a batch as columns.

    A plain transfer (kind 1: no access list) stands whole in the columns.  Other rows have kind 0,
    zeros for payee and amount, and their payload in `payloads`.
    """

    ids: npt.NDArray[np.uint8]
    """uint8[n, 32]: transaction ids, which is what signatures sign."""
    bodies: npt.NDArray[np.uint8]
    """uint8[...]: the canonical bodies, one after the other."""
    body_offsets: npt.NDArray[np.int64]
    """int64[n + 1]."""
    kinds: npt.NDArray[np.uint8]
    payees: npt.NDArray[np.uint8]
    """uint8[n, 32]."""
    amounts: npt.NDArray[np.uint64]
    gas: npt.NDArray[np.uint64]
    """Intrinsic gas."""
    payloads: dict[int, Payload]

    def body(self, row: int) -> bytes:
        """The canonical body of a row."""
        return self.bodies[self.body_offsets[row] : self.body_offsets[row + 1]].tobytes()


def expand_reference(batch: Batch) -> Expanded:
    """`expand`, row by row in plain Python: the specification of the fast path."""
    count = batch.header.count
    kinds = np.zeros(count, dtype=np.uint8)
    payees = np.zeros((count, 32), dtype=np.uint8)
    amounts = np.zeros(count, dtype=np.uint64)
    gas = np.zeros(count, dtype=np.uint64)
    payloads: dict[int, Payload] = {}
    encoded = []
    for row in range(count):
        body, data = _checked_row(batch, row)
        encoded.append(data)
        gas[row] = intrinsic_gas(len(body.access), body.action)
        if isinstance(body.action, Transfer) and not body.access:
            kinds[row] = KIND_TRANSFER
            payees[row] = np.frombuffer(body.action.payee, dtype=np.uint8)
            amounts[row] = body.action.amount
        else:
            payloads[row] = Payload(body.access, body.action)
    ids = b"".join(transaction_id(body) for body in encoded)
    return Expanded(
        ids=np.frombuffer(ids, dtype=np.uint8).reshape(count, 32),
        bodies=np.frombuffer(b"".join(encoded), dtype=np.uint8),
        body_offsets=np.cumsum([0, *(len(body) for body in encoded)], dtype=np.int64),
        kinds=kinds,
        payees=payees,
        amounts=amounts,
        gas=gas,
        payloads=payloads,
    )


def expand(batch: Batch) -> Expanded:
    """The columns of a batch, whose static rules are checked on the way.

    Raises `QnetError` for the first row that breaks one: see `check_body` and `Codec.decode`; and
    TOO_LARGE for a body that is larger than a transaction may be.
    """
    # Loads numba, which nobody needs who only reads columns.
    from qnet_actors.kernels.blake3_rows import hash_rows
    from qnet_actors.kernels.bodies import rebuild_bodies

    header, columns = batch.header, batch.columns
    if header.version != TRANSACTION_VERSION:
        raise QnetError(Code.UNSUPPORTED_VERSION, f"transaction version {header.version}")
    bodies, offsets, kinds, payees, amounts = rebuild_bodies(
        header.chain_id,
        header.version,
        columns.senders,
        columns.key_ids,
        columns.nonces,
        columns.valid_until,
        columns.gas_limits,
        columns.gas_prices,
        columns.payload_offsets,
        columns.payload,
        gas_transfer=GAS_TRANSFER,
        gas_limit_max=GAS_LIMIT_MAX,
        gas_price_max=GAS_PRICE_MAX,
    )
    gas = np.full(header.count, GAS_TRANSFER, dtype=np.uint64)
    payloads: dict[int, Payload] = {}
    # The kernel makes no errors of its own: a row that it does not take for a valid plain transfer
    # goes the long way, which says what is wrong with it if anything is.
    for row in np.flatnonzero(kinds == KIND_OTHER).tolist():
        body, _ = _checked_row(batch, row)
        payloads[row] = Payload(body.access, body.action)
        gas[row] = intrinsic_gas(len(body.access), body.action)
    return Expanded(
        ids=hash_rows(TRANSACTION, bodies, offsets),
        bodies=bodies,
        body_offsets=offsets,
        kinds=kinds,
        payees=payees,
        amounts=amounts,
        gas=gas,
        payloads=payloads,
    )


def _checked_row(batch: Batch, row: int) -> tuple[Body, bytes]:
    """A row as a body that keeps every static rule, and its canonical bytes."""
    body = batch.columns.body(row, batch.header)
    check_body(body, batch.header.chain_id)
    data = encode(body)
    if len(data) > TRANSACTION_SIZE_BYTES_MAX:
        raise QnetError(Code.TOO_LARGE, f"a body of {len(data)} bytes")
    return body, data


def warm() -> None:
    """Nothing to do: what this module calls is compiled where it is defined."""
