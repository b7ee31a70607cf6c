"""Rows of a block run in another process: what travels there and back, and who runs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from qnet_actors.kernels.transfers import EXCLUDED
from qnet_actors.ledger.execute import AccountTable, Rows
from qnet_actors.rooms import AccountColumns
from qnet_actors.state import split_rows
from qnet_actors.wire.blocks import WriteSet
from qnet_actors.wire.codec import Struct, encode
from qnet_actors.wire.transactions import Action


class Job(Struct, frozen=True):
    """`execute.Rows` as bytes: columns little-endian, indices int64, all else uint64."""

    height: int
    accounts: WriteSet
    senders: bytes
    payees: bytes
    authors: bytes
    key_ids: bytes
    nonces: bytes
    valid_until: bytes
    gas: bytes
    gas_prices: bytes
    amounts: bytes
    actions: tuple[tuple[int, Action], ...]
    batches: int
    """How many there are in the block; an author is an index below it."""


class JobResult(Struct, frozen=True):
    """The accounts in the order given, fees a batch (uint64), and statuses a row (int16)."""

    nonces: bytes
    balances: bytes
    key_ids: bytes
    fees: bytes
    statuses: bytes


_JOB: Final[msgspec.msgpack.Decoder[Job]] = msgspec.msgpack.Decoder(Job)


class _Given:
    """Reads what came with a job."""

    def __init__(self, accounts: WriteSet) -> None:
        self._accounts = accounts

    def read(self, addresses: npt.NDArray[np.uint8]) -> AccountColumns:
        accounts = self._accounts
        if accounts.addresses != addresses.tobytes():
            raise ValueError("the accounts of a job stand twice")
        return AccountColumns(
            np.frombuffer(accounts.nonces, dtype="<u8"),
            np.frombuffer(accounts.balances, dtype="<u8"),
            np.frombuffer(accounts.key_ids, dtype=np.uint8).reshape(-1, 32),
        )


class Executor:
    """Runs jobs one after the other; keeps nothing between them."""

    def handle(self, frame: bytes) -> bytes:
        """A `Job` in, its `JobResult` out.  Raises `QnetError(INTERNAL)` where fees overflow."""
        rows = _rows(_JOB.decode(frame))
        rows.run()
        accounts = rows.accounts
        return encode(
            JobResult(
                nonces=accounts.nonces.astype("<u8").tobytes(),
                balances=accounts.balances.astype("<u8").tobytes(),
                key_ids=accounts.key_ids.tobytes(),
                fees=rows.fees.astype("<u8").tobytes(),
                statuses=rows.statuses.astype("<i2").tobytes(),
            )
        )

    def call(self, request: bytes) -> Callable[[], bytes]:
        """See `state.Port`: an executor of this process."""
        answer = self.handle(request)
        return lambda: answer


def _rows(job: Job) -> Rows:
    addresses = np.frombuffer(job.accounts.addresses, dtype=np.uint8).reshape(-1, 32)
    senders = np.frombuffer(job.senders, dtype="<i8")
    return Rows(
        height=job.height,
        accounts=AccountTable(split_rows(addresses), _Given(job.accounts)),
        senders=senders,
        payees=np.frombuffer(job.payees, dtype="<i8"),
        authors=np.frombuffer(job.authors, dtype="<i8"),
        key_ids=np.frombuffer(job.key_ids, dtype=np.uint8).reshape(-1, 32),
        nonces=np.frombuffer(job.nonces, dtype="<u8"),
        valid_until=np.frombuffer(job.valid_until, dtype="<u8"),
        gas=np.frombuffer(job.gas, dtype="<u8"),
        gas_prices=np.frombuffer(job.gas_prices, dtype="<u8"),
        amounts=np.frombuffer(job.amounts, dtype="<u8"),
        actions=dict(job.actions),
        fees=np.zeros(job.batches, dtype=np.uint64),
        statuses=np.full(len(senders), EXCLUDED, dtype=np.int16),
    )
