"""Conflict groups: the rows of a block that share no account with others, run side by side.

Every action here may write each account that it names.  So rows that name an account in common are
of one group, and inside a group the order of the block holds; between groups no order can be seen.
Fees are handed out when all groups are done, so the authors' accounts join nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from qnet_actors.ledger.execute import (
    Block,
    OpenBatch,
    Rows,
    empty_outcome,
    fees_overflow,
    payments_of,
)
from qnet_actors.ledger.executor import Job, JobResult
from qnet_actors.ledger.outcome import Outcome, Reader
from qnet_actors.ledger.reference import Terms
from qnet_actors.state import Port
from qnet_actors.wire.blocks import WriteSet
from qnet_actors.wire.codec import encode

Indices = npt.NDArray[np.int64]

_RESULT: Final[msgspec.msgpack.Decoder[JobResult]] = msgspec.msgpack.Decoder(JobResult)


class GroupExecution:
    """An `execute.Execute` over executors; equals `execute.execute` for any number of them."""

    def __init__(self, executors: Sequence[Port], rows_min: int) -> None:
        """A block of fewer rows than `rows_min` is run here: a call would cost more."""
        self._executors: Final = tuple(executors)
        self._rows_min: Final = rows_min

    def __call__(
        self,
        height: int,
        batches: Sequence[OpenBatch],
        rewards: Sequence[bytes],
        reader: Reader,
        terms: Terms | None = None,
    ) -> Outcome:
        """Raises `QnetError(INTERNAL)` where fees overflow, or what an executor raises."""
        if not batches:
            return empty_outcome(height, reader, terms)
        block = Block(height, batches, rewards, reader, terms)
        rows = block.rows
        parts: list[Indices] = []
        # The registry's accounts are in no row, so its actions cannot be told apart from others.
        apart = self._executors and not block.concerns_validators
        if apart and len(rows.statuses) >= self._rows_min:
            parts = shares(groups(rows), len(self._executors))
        if parts:
            self._run(rows, parts)
        else:
            rows.run()
        block.end()
        return block.outcome()

    def _run(self, rows: Rows, parts: list[Indices]) -> None:
        fees = [0] * len(rows.fees)
        waits: list[tuple[Indices, Indices, Callable[[], bytes]]] = []
        for part, port in zip(parts, self._executors, strict=False):
            accounts, job = cut(rows, part)
            waits.append((part, accounts, port.call(encode(job))))
        for part, accounts, wait in waits:
            result = _RESULT.decode(wait())
            table = rows.accounts
            table.nonces[accounts] = np.frombuffer(result.nonces, dtype="<u8")
            table.balances[accounts] = np.frombuffer(result.balances, dtype="<u8")
            key_ids = np.frombuffer(result.key_ids, dtype=np.uint8)
            table.key_ids[accounts] = key_ids.reshape(-1, 32)
            rows.statuses[part] = np.frombuffer(result.statuses, dtype="<i2")
            for author, fee in enumerate(np.frombuffer(result.fees, dtype="<u8").tolist()):
                fees[author] += fee
        if max(fees) >= 2**64:
            raise fees_overflow()
        rows.fees[:] = np.array(fees, dtype=np.uint64)


def groups(rows: Rows) -> Indices:
    """int64[rows]: rows with the same number are of one group.

    Union-find on columns: every round hangs the higher root of each pair under the lower, then
    brings every account to its root, until no pair has two roots.
    """
    extra = [
        (int(rows.senders[row]), rows.accounts.index[payee])
        for row, action in rows.actions.items()
        for payee, _ in payments_of(action)
    ]
    left = np.concatenate([rows.senders, np.array([a for a, _ in extra], dtype=np.int64)])
    right = np.concatenate([rows.payees, np.array([b for _, b in extra], dtype=np.int64)])
    roots = np.arange(len(rows.accounts.addresses))
    while True:
        a, b = roots[left], roots[right]
        if np.array_equal(a, b):
            return roots[rows.senders]
        np.minimum.at(roots, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(above := roots[roots], roots):
            roots = above


def shares(group_of: Indices, count: int) -> list[Indices]:
    """The rows for each of at most `count` executors, in order; the largest groups first.

    Which executor gets a group has no part in the result.
    """
    numbers, group_of, sizes = np.unique(group_of, return_inverse=True, return_counts=True)
    loads = [(0, executor) for executor in range(min(count, len(numbers)))]
    owners = np.zeros(len(numbers), dtype=np.int64)
    for group in np.argsort(-sizes, kind="stable").tolist():
        load, executor = heapq.heappop(loads)
        owners[group] = executor
        heapq.heappush(loads, (load + int(sizes[group]), executor))
    owner_of = owners[group_of]
    return [np.flatnonzero(owner_of == executor) for executor in range(len(loads))]


def cut(rows: Rows, part: Indices) -> tuple[Indices, Job]:
    """The accounts that some rows name, as indices, and those rows as a job on these alone."""
    positions = {int(row): at for at, row in enumerate(part)} if rows.actions else {}
    actions = tuple(
        (positions[row], action) for row, action in rows.actions.items() if row in positions
    )
    index = rows.accounts.index
    named = [index[payee] for _, action in actions for payee, _ in payments_of(action)]
    senders, payees = rows.senders[part], rows.payees[part]
    accounts = np.unique(np.concatenate([senders, payees, np.array(named, dtype=np.int64)]))
    table = rows.accounts
    return accounts, Job(
        height=rows.height,
        accounts=WriteSet(
            addresses=table.addresses[accounts].tobytes(),
            nonces=_u64(table.nonces[accounts]),
            balances=_u64(table.balances[accounts]),
            key_ids=table.key_ids[accounts].tobytes(),
        ),
        senders=np.searchsorted(accounts, senders).astype("<i8").tobytes(),
        payees=np.searchsorted(accounts, payees).astype("<i8").tobytes(),
        authors=rows.authors[part].astype("<i8").tobytes(),
        key_ids=rows.key_ids[part].tobytes(),
        nonces=_u64(rows.nonces[part]),
        valid_until=_u64(rows.valid_until[part]),
        gas=_u64(rows.gas[part]),
        gas_prices=_u64(rows.gas_prices[part]),
        amounts=_u64(rows.amounts[part]),
        actions=actions,
        batches=len(rows.fees),
    )


def _u64(column: npt.NDArray[Any]) -> bytes:
    data: bytes = column.astype("<u8").tobytes()
    return data
