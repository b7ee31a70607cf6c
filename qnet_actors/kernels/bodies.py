"""Canonical bodies rebuilt from a batch's columns, plain transfers recognised on the way.

The bytes are those of `wire.transactions.Body`: an array of ten with shortest integers, whose last
two fields a batch keeps as they are.  `expand.expand_reference` is the specification.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qnet_actors.kernels.cache import kernel

Array = Any

_BODY_FIXED_BYTES_MAX = 1 + 2 + 34 + 34 + 34 + 9 + 9 + 5 + 5
"""Array header, version, three digests, nonce, valid until, gas limit, gas price."""

_BYTES = 'Array(uint8, 1, "C", readonly=True)'
_ROWS = 'Array(uint8, 2, "C", readonly=True)'
_U64 = 'Array(uint64, 1, "C", readonly=True)'
_U32 = 'Array(uint32, 1, "C", readonly=True)'


@kernel("uint64(uint8[::1], uint64, uint64)")
def _put_unsigned(out: Array, at: Any, value: Any) -> Any:
    """Writes a MessagePack unsigned integer in its shortest form; returns the place after it."""
    if value < np.uint64(0x80):
        out[at] = value
        return at + np.uint64(1)
    if value <= np.uint64(0xFF):
        out[at] = 0xCC
        size = np.uint64(1)
    elif value <= np.uint64(0xFFFF):
        out[at] = 0xCD
        size = np.uint64(2)
    elif value <= np.uint64(0xFFFFFFFF):
        out[at] = 0xCE
        size = np.uint64(4)
    else:
        out[at] = 0xCF
        size = np.uint64(8)
    for k in range(size):
        shift = np.uint64(8) * (size - np.uint64(1) - np.uint64(k))
        out[at + np.uint64(1) + np.uint64(k)] = (value >> shift) & np.uint64(0xFF)
    return at + np.uint64(1) + size


@kernel(f"uint64(uint8[::1], uint64, {_BYTES})")
def _put_digest(out: Array, at: Any, digest: Array) -> Any:
    """Writes a `bin` of 32 bytes; returns the place after it."""
    out[at] = 0xC4
    out[at + np.uint64(1)] = 32
    at += np.uint64(2)
    for k in range(32):
        out[at + np.uint64(k)] = digest[k]
    return at + np.uint64(32)


@kernel(f"boolean({_BYTES}, uint64, uint64, uint64[::1])")
def _take_unsigned(data: Array, at: Any, end: Any, value: Array) -> Any:
    """Reads a shortest unsigned integer that fills data[at:end] into `value[0]`; False if none."""
    if at >= end:
        return False
    first = data[at]
    size = end - at - np.uint64(1)
    if size == np.uint64(0):
        value[0] = first
        return first < 0x80
    if size == np.uint64(1):
        expected, least = 0xCC, np.uint64(0x80)
    elif size == np.uint64(2):
        expected, least = 0xCD, np.uint64(0x100)
    elif size == np.uint64(4):
        expected, least = 0xCE, np.uint64(0x10000)
    elif size == np.uint64(8):
        expected, least = 0xCF, np.uint64(0x100000000)
    else:
        return False
    number = np.uint64(0)
    for k in range(size):
        number = (number << np.uint64(8)) | np.uint64(data[at + np.uint64(1) + np.uint64(k)])
    value[0] = number
    return first == expected and number >= least


@kernel(
    f"uint64({_BYTES}, uint64, {_ROWS}, {_ROWS}, {_U64}, {_U64}, {_U32}, {_U32}, {_U32}, {_BYTES}, "
    "uint64, uint64, uint64, uint8[::1], int64[::1], uint8[::1], uint8[:, ::1], uint64[::1])"
)
def _rebuild(
    chain_id: Array,
    version: Any,
    senders: Array,
    key_ids: Array,
    nonces: Array,
    valid_until: Array,
    gas_limits: Array,
    gas_prices: Array,
    offsets: Array,
    payload: Array,
    gas_transfer: Any,
    gas_limit_max: Any,
    gas_price_max: Any,
    out: Array,
    body_offsets: Array,
    kinds: Array,
    payees: Array,
    amounts: Array,
) -> Any:
    at = np.uint64(0)
    amount = np.zeros(1, dtype=np.uint64)
    body_offsets[0] = 0
    for row in range(len(nonces)):
        out[at] = 0x9A
        at = _put_unsigned(out, at + np.uint64(1), version)
        at = _put_digest(out, at, chain_id)
        at = _put_digest(out, at, senders[row])
        at = _put_digest(out, at, key_ids[row])
        at = _put_unsigned(out, at, nonces[row])
        at = _put_unsigned(out, at, valid_until[row])
        at = _put_unsigned(out, at, np.uint64(gas_limits[row]))
        at = _put_unsigned(out, at, np.uint64(gas_prices[row]))
        start, end = np.uint64(offsets[row]), np.uint64(offsets[row + 1])
        for k in range(end - start):
            out[at + np.uint64(k)] = payload[start + np.uint64(k)]
        at += end - start
        body_offsets[row + 1] = at
        # No access, then [1, payee, amount].
        if (
            end - start >= np.uint64(38)
            and payload[start] == 0x90
            and payload[start + np.uint64(1)] == 0x93
            and payload[start + np.uint64(2)] == 0x01
            and payload[start + np.uint64(3)] == 0xC4
            and payload[start + np.uint64(4)] == 0x20
            and _take_unsigned(payload, start + np.uint64(37), end, amount)
            and gas_transfer <= np.uint64(gas_limits[row])
            and np.uint64(gas_limits[row]) <= gas_limit_max
            and np.uint64(1) <= np.uint64(gas_prices[row])
            and np.uint64(gas_prices[row]) <= gas_price_max
        ):
            kinds[row] = 1
            amounts[row] = amount[0]
            for k in range(32):
                payees[row, k] = payload[start + np.uint64(5 + k)]
    return at


def rebuild_bodies(
    chain_id: bytes,
    version: int,
    senders: Array,
    key_ids: Array,
    nonces: Array,
    valid_until: Array,
    gas_limits: Array,
    gas_prices: Array,
    payload_offsets: Array,
    payload: Array,
    *,
    gas_transfer: int,
    gas_limit_max: int,
    gas_price_max: int,
) -> tuple[Array, Array, Array, Array, Array]:
    """The canonical bodies of n rows, and the plain transfers of valid terms among them.

    Columns as `wire.batches.BodyColumns` has checked them: uint8[n, 32] twice, uint64[n] twice,
    uint32[n] twice, offsets uint32[n + 1] rising from 0 to the length of `payload`, all contiguous.
    Returns bodies uint8[...], offsets int64[n + 1], and kinds uint8[n], payees uint8[n, 32],
    amounts uint64[n], where kind 1 is a plain transfer and the rest of a row is zeros otherwise.
    """
    count = len(nonces)
    if len(chain_id) != 32 or len(payload_offsets) != count + 1 or not 0 <= version <= 255:
        raise ValueError("columns of different lengths")
    out = np.empty(count * _BODY_FIXED_BYTES_MAX + len(payload), dtype=np.uint8)
    body_offsets = np.empty(count + 1, dtype=np.int64)
    kinds = np.zeros(count, dtype=np.uint8)
    payees = np.zeros((count, 32), dtype=np.uint8)
    amounts = np.zeros(count, dtype=np.uint64)
    size = _rebuild(
        np.frombuffer(chain_id, dtype=np.uint8),
        np.uint64(version),
        senders,
        key_ids,
        nonces,
        valid_until,
        gas_limits,
        gas_prices,
        payload_offsets,
        payload,
        np.uint64(gas_transfer),
        np.uint64(gas_limit_max),
        np.uint64(gas_price_max),
        out,
        body_offsets,
        kinds,
        payees,
        amounts,
    )
    return out[:size], body_offsets, kinds, payees, amounts


def warm() -> None:
    """Nothing to do: the functions of this module are compiled where they are defined."""
