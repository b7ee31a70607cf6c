"""The transfer kernel by itself; tests/ledger/test_execute.py holds blocks to the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qnet_actors.kernels.transfers import EXCLUDED, execute_transfers

U64_MAX = 2**64 - 1


class Columns:
    """Two accounts, each with its address for a key id, and rows from the first to the second."""

    def __init__(self, rows: list[dict[str, int]], balances: tuple[int, int]) -> None:
        count = len(rows)

        def column(name: str, default: int) -> Any:
            return np.array([row.get(name, default) for row in rows], dtype=np.uint64)

        self.addresses = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], dtype=np.uint64)
        self.nonces = np.zeros(2, dtype=np.uint64)
        self.balances = np.array(balances, dtype=np.uint64)
        self.key_ids = np.zeros((2, 4), dtype=np.uint64)
        self.fees = np.zeros(1, dtype=np.uint64)
        self.statuses = np.full(count, 99, dtype=np.int16)
        self.rows = (
            np.array([row.get("sender", 0) for row in rows], dtype=np.int64),
            np.array([row.get("payee", 1) for row in rows], dtype=np.int64),
            np.repeat(self.addresses[:1], count, axis=0),
            column("nonce", 0),
            column("valid_until", 0),
            np.full(count, 1_000, dtype=np.uint64),
            column("gas_price", 1),
            column("amount", 5),
            np.zeros(count, dtype=np.int64),
        )

    def run(self, height: int = 7) -> bool:
        return bool(
            execute_transfers(
                0,
                len(self.statuses),
                np.uint64(height),
                *self.rows,
                self.addresses,
                self.nonces,
                self.balances,
                self.key_ids,
                self.fees,
                self.statuses,
            )
        )


def test_rows_run_in_order():
    columns = Columns([{"nonce": 1}, {"nonce": 0}, {"nonce": 1, "amount": 9_000}], (5_000, 0))
    assert columns.run()
    assert columns.statuses.tolist() == [EXCLUDED, 0, 1]
    assert columns.balances.tolist() == [5_000 - 2_000 - 5, 5]
    assert columns.nonces.tolist() == [2, 0]
    assert columns.key_ids.tolist() == [[1, 2, 3, 4], [0, 0, 0, 0]]
    assert columns.fees.tolist() == [2_000]


@pytest.mark.parametrize(
    ("row", "balances", "status"),
    [
        ({}, (1_005, 0), 0),
        ({}, (1_004, 0), 1),
        ({}, (999, 0), EXCLUDED),
        ({}, (1_005, U64_MAX - 4), 2),
        ({}, (1_005, U64_MAX - 5), 0),
        ({"payee": 0}, (U64_MAX, 0), 0),
        ({"amount": U64_MAX}, (U64_MAX, 0), 1),
        ({"valid_until": 7}, (2_000, 0), 0),
        ({"valid_until": 6}, (2_000, 0), EXCLUDED),
        ({"sender": 1, "payee": 0}, (0, 2_000), EXCLUDED),
    ],
)
def test_edges(row, balances, status):
    columns = Columns([row], balances)
    assert columns.run()
    assert columns.statuses.tolist() == [status]


def test_the_last_nonce_is_never_used():
    columns = Columns([{"nonce": U64_MAX}], (5_000, 0))
    columns.nonces[0] = U64_MAX
    assert columns.run()
    assert columns.statuses.tolist() == [EXCLUDED]


def test_fees_that_leave_u64_are_told():
    columns = Columns([{}], (5_000, 0))
    columns.fees[0] = U64_MAX - 999
    assert not columns.run()
    columns.fees[0] = U64_MAX - 1_000
    assert columns.run()
