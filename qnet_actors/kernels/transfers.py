"""Plain transfers executed on columns; `ledger.reference` is the specification."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from qnet_actors.kernels.cache import kernel

Array = Any

EXCLUDED: Final = -1
_SUCCESS: Final = 0
_INSUFFICIENT_BALANCE: Final = 1
_BALANCE_OVERFLOW: Final = 2
_U64_MAX: Final = np.uint64(2**64 - 1)

_U64 = 'Array(uint64, 1, "C", readonly=True)'
_WORDS = 'Array(uint64, 2, "C", readonly=True)'
_INDEX = 'Array(int64, 1, "C", readonly=True)'


# Arithmetic is on uint64 only: numba makes a float of an int64 that meets a uint64.
@kernel(
    f"boolean(int64, int64, uint64, {_INDEX}, {_INDEX}, {_WORDS}, {_U64}, {_U64}, {_U64}, {_U64}, "
    f"{_U64}, {_INDEX}, {_WORDS}, uint64[::1], uint64[::1], uint64[:, ::1], uint64[::1], "
    "int16[::1])"
)
def execute_transfers(
    start: Any,
    end: Any,
    height: Any,
    senders: Array,
    payees: Array,
    row_key_ids: Array,
    row_nonces: Array,
    valid_until: Array,
    gas: Array,
    gas_prices: Array,
    amounts: Array,
    authors: Array,
    addresses: Array,
    nonces: Array,
    balances: Array,
    key_ids: Array,
    fees: Array,
    statuses: Array,
) -> Any:
    """Executes rows start to end, all of them plain transfers, one after the other, in place.

    Rows: senders, payees (indices of accounts), key ids (4 words each), nonces, valid until, gas,
    gas prices, amounts, authors (indices into fees).  Accounts: addresses and key ids (4 words
    each), nonces, balances.  `statuses` gets a receipt code or `EXCLUDED` a row.  Returns False
    where the fees of an author would leave u64, which a bounded supply rules out.
    """
    one = np.uint64(1)
    for row in range(start, end):
        sender = senders[row]
        statuses[row] = EXCLUDED
        if row_nonces[row] != nonces[sender] or nonces[sender] == _U64_MAX:
            continue
        if valid_until[row] != np.uint64(0) and valid_until[row] < height:
            continue
        fee = gas[row] * gas_prices[row]
        if balances[sender] < fee:
            continue
        keyless = True
        current = True
        own = True
        for word in range(4):
            if key_ids[sender, word] != np.uint64(0):
                keyless = False
            if key_ids[sender, word] != row_key_ids[row, word]:
                current = False
            if addresses[sender, word] != row_key_ids[row, word]:
                own = False
        if not (own if keyless else current):
            continue
        author = authors[row]
        if fees[author] > _U64_MAX - fee:
            return False
        fees[author] += fee
        balances[sender] -= fee
        nonces[sender] += one
        if keyless:
            for word in range(4):
                key_ids[sender, word] = row_key_ids[row, word]
        amount = amounts[row]
        payee = payees[row]
        if balances[sender] < amount:
            statuses[row] = _INSUFFICIENT_BALANCE
        elif payee != sender and balances[payee] > _U64_MAX - amount:
            statuses[row] = _BALANCE_OVERFLOW
        else:
            balances[sender] -= amount
            balances[payee] += amount
            statuses[row] = _SUCCESS
    return True


def warm() -> None:
    """Nothing to do: the functions of this module are compiled where they are defined."""
