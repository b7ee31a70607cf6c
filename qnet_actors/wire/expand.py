"""Batches opened for work: ids, kinds, payees and amounts as columns, static rules checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from qnet_actors.wire.batches import Batch
from qnet_actors.wire.codec import encode
from qnet_actors.wire.transactions import (
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
    header, columns = batch.header, batch.columns
    count = header.count
    bodies = [columns.body(row, header) for row in range(count)]
    encoded = [encode(body) for body in bodies]
    kinds = np.zeros(count, dtype=np.uint8)
    payees = np.zeros((count, 32), dtype=np.uint8)
    amounts = np.zeros(count, dtype=np.uint64)
    gas = np.zeros(count, dtype=np.uint64)
    payloads: dict[int, Payload] = {}
    for row, body in enumerate(bodies):
        check_body(body, header.chain_id)
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

    Raises `QnetError` for the first row that breaks one: see `check_body` and `Codec.decode`.
    """
    return expand_reference(batch)
