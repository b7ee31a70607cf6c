"""Transactions held to their senders' columns: the common case of admission, row by row.

`mempool.columns.SenderColumns` says what the columns hold, and `mempool.pool.Pool` is the
specification: a row that is not taken here goes through `Pool.refusal` and `Pool.add`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qnet_actors.kernels.cache import kernel

Array = Any

_SLOTS = "int64[::1]"
_U64 = "uint64[::1]"
_FLAGS = "boolean[::1]"
_IN_U64 = 'Array(uint64, 1, "C", readonly=True)'
_IN_FLAGS = 'Array(boolean, 1, "C", readonly=True)'
NO_RANK = np.uint64(2**64 - 1)


@kernel(
    f"void({_SLOTS}, {_IN_U64}, {_IN_U64}, {_IN_U64}, {_IN_U64}, {_IN_FLAGS}, uint64, uint64, "
    f"{_U64}, {_U64}, {_U64}, {_U64}, {_SLOTS}, {_FLAGS}, {_U64}, {_FLAGS})"
)
def check_rows(
    slots: Array,
    nonces: Array,
    costs: Array,
    next_nonces: Array,
    balances: Array,
    usable: Array,
    sender_max: Any,
    stamp: Any,
    firsts: Array,
    frontiers: Array,
    ends: Array,
    pending: Array,
    verifying: Array,
    irregular: Array,
    stamps: Array,
    taken: Array,
) -> None:
    """Which rows are worth a look at their signature; those are noted as being verified.

    A row behind one of the same sender that is not taken is not taken either.
    """
    for row in range(len(slots)):
        slot, nonce, cost = slots[row], nonces[row], costs[row]
        end = max(ends[slot], max(frontiers[slot], next_nonces[row]))
        taken[row] = (
            usable[row]
            and not irregular[slot]
            and stamps[slot] != stamp
            and nonce == end
            and end != np.uint64(2**64 - 1)
            and frontiers[slot] - firsts[slot] < sender_max
            and cost <= balances[row]
            and pending[slot] <= balances[row] - cost
        )
        if taken[row]:
            ends[slot] = end + np.uint64(1)
            verifying[slot] += 1
        else:
            stamps[slot] = stamp


@kernel(
    f"void({_SLOTS}, {_IN_U64}, {_IN_U64}, {_IN_U64}, {_IN_U64}, {_IN_U64}, {_IN_FLAGS}, "
    f"{_IN_U64}, uint64, uint64, {_U64}, {_U64}, {_U64}, {_U64}, {_FLAGS}, {_U64}, {_U64}, "
    f"uint64[:, ::1], {_FLAGS}, {_U64}, uint64[:, ::1])"
)
def add_rows(
    slots: Array,
    nonces: Array,
    costs: Array,
    prices: Array,
    next_nonces: Array,
    balances: Array,
    usable: Array,
    key_words: Array,
    sender_max: Any,
    stamp: Any,
    firsts: Array,
    frontiers: Array,
    ends: Array,
    pending: Array,
    irregular: Array,
    stamps: Array,
    ranks: Array,
    keys: Array,
    taken: Array,
    row_ranks: Array,
    places: Array,
) -> None:
    """Which rows are in their senders' columns now, by what rank they are ready, and their places.

    `key_words` uint64[4 n] are the accounts' key ids; `places` uint64[n, 2] become slot and nonce.
    """
    for row in range(len(slots)):
        slot, nonce, cost = slots[row], nonces[row], costs[row]
        if not irregular[slot] and firsts[slot] == frontiers[slot]:
            # The pool has nothing of the sender: it begins anew with the account as it is.
            firsts[slot] = next_nonces[row]
            frontiers[slot] = next_nonces[row]
            pending[slot] = np.uint64(0)
            ranks[slot] = NO_RANK
            for word in range(4):
                keys[slot, word] = key_words[4 * row + word]
        taken[row] = (
            usable[row]
            and not irregular[slot]
            and stamps[slot] != stamp
            and nonce == frontiers[slot]
            and nonce >= next_nonces[row]
            and frontiers[slot] - firsts[slot] < sender_max
            and cost <= balances[row]
            and pending[slot] <= balances[row] - cost
        )
        if not taken[row]:
            stamps[slot] = stamp
            continue
        frontiers[slot] = nonce + np.uint64(1)
        ends[slot] = max(ends[slot], frontiers[slot])
        pending[slot] += cost
        ranks[slot] = min(ranks[slot], prices[row])
        row_ranks[row] = ranks[slot]
        places[row, 0], places[row, 1] = np.uint64(slot), nonce


def warm() -> None:
    """Nothing to do: the functions of this module are compiled where they are defined."""
