"""Submitted transactions read into columns, and columns cut out of transactions for a batch.

The bytes are those of `wire.transactions.Transaction` in canonical MessagePack: an array of body
and witness.  Only plain transfers without a fault are taken here; `wire.transactions` is the
specification, and says what is wrong with all others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from qnet_actors.kernels.cache import kernel

Array = Any

_BYTES = 'Array(uint8, 1, "C", readonly=True)'
_I64 = "int64[::1]"
_U64 = "uint64[::1]"
_SCHEMES = 256


@dataclass(frozen=True, slots=True)
class Read:
    """n transactions side by side.  Rows of `plain` 0 hold nothing but `starts`.

    `plain` 1: canonical bytes of a transfer without access list that keeps every rule which needs
    no state, save that a public key that it brings is not compared with its key id.
    """

    data: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.int64]
    """int64[n + 1]: row i is data[starts[i]:starts[i + 1]]."""
    plain: npt.NDArray[np.uint8]
    schemes: npt.NDArray[np.uint8]
    senders: npt.NDArray[np.uint8]
    """uint8[n, 32]."""
    key_ids: npt.NDArray[np.uint8]
    """uint8[n, 32]."""
    terms: npt.NDArray[np.uint64]
    """uint64[5, n]: nonce, valid until, gas limit, gas price, amount + gas limit * gas price."""
    spans: npt.NDArray[np.int64]
    """int64[3, n], counted from the row's start: payload, its end, public key (0: none)."""
    bodies: npt.NDArray[np.uint8]
    body_offsets: npt.NDArray[np.int64]
    """int64[n + 1]; rows that are not plain have no bytes here."""


# Copies go from slice to slice: a loop over offsets that might be negative is not vectorised.
@kernel(f"void({_BYTES}, uint8[::1])", inline="always")
def _copy(source: Array, target: Array) -> None:
    for k in range(len(target)):
        target[k] = source[k]


@kernel(f"int64({_BYTES}, int64, int64, {_U64})")
def _read_unsigned(data: Array, at: int, end: int, value: Array) -> int:
    """Reads a shortest unsigned integer at `at`; the place after it, or -1 where none is."""
    if at >= end:
        return -1
    first = data[at]
    at += 1
    if first < 0x80:
        value[0] = first
        return at
    if first == 0xCC:
        size, least = 1, np.uint64(0x80)
    elif first == 0xCD:
        size, least = 2, np.uint64(0x100)
    elif first == 0xCE:
        size, least = 4, np.uint64(0x10000)
    elif first == 0xCF:
        size, least = 8, np.uint64(0x100000000)
    else:
        return -1
    if end - at < size:
        return -1
    number = np.uint64(0)
    for k in range(size):
        number = (number << np.uint64(8)) | np.uint64(data[at + k])
    value[0] = number
    return at + size if number >= least else -1


@kernel(f"int64({_BYTES}, int64, int64, int64)")
def _skip_binary(data: Array, at: int, end: int, size: int) -> int:
    """The place after a `bin` of `size` bytes, below 2^16, at `at`; -1 where none is."""
    head = 2 if size < 256 else 3
    if end - at < head + size:
        return -1
    if size < 256:
        return at + 2 + size if data[at] == 0xC4 and data[at + 1] == size else -1
    if data[at] != 0xC5 or data[at + 1] != size >> 8 or data[at + 2] != size & 0xFF:
        return -1
    return at + 3 + size


@kernel(
    f"boolean({_BYTES}, int64, int64, {_BYTES}, int64, uint64, uint64[::1], {_I64}, {_I64}, "
    "int64, uint8[::1], uint8[:, ::1], uint8[:, ::1], uint64[:, ::1], int64[:, ::1], uint64[::1])"
)
def _read_row(
    data: Array,
    start: int,
    end: int,
    chain_id: Array,
    version: int,
    height: Any,
    limits: Array,
    signature_sizes: Array,
    key_sizes: Array,
    row: int,
    schemes: Array,
    senders: Array,
    key_ids: Array,
    terms: Array,
    spans: Array,
    value: Array,
) -> bool:
    """Whether a row is plain, with its columns filled; see `Read`."""
    gas_transfer, gas_limit_max, gas_price_max = limits[0], limits[1], limits[2]
    if end - start < 3 + 3 * 34:
        return False
    if data[start] != 0x92 or data[start + 1] != 0x9A or data[start + 2] != version:
        return False
    at = start + 3
    for digest in range(3):
        if data[at] != 0xC4 or data[at + 1] != 32:
            return False
        if digest == 0:
            for k in range(32):
                if data[at + 2 + k] != chain_id[k]:
                    return False
        elif digest == 1:
            _copy(data[at + 2 : at + 34], senders[row])
        else:
            _copy(data[at + 2 : at + 34], key_ids[row])
        at += 34
    for term in range(4):
        at = _read_unsigned(data, at, end, value)
        if at < 0:
            return False
        terms[term, row] = value[0]
    valid_until, gas_limit, gas_price = terms[1, row], terms[2, row], terms[3, row]
    if valid_until != 0 and valid_until <= height:
        return False
    if gas_limit < gas_transfer or gas_limit > gas_limit_max:
        return False
    if gas_price < 1 or gas_price > gas_price_max:
        return False
    # No access, then [1, payee, amount].
    payload = at
    if end - at < 37 or data[at] != 0x90 or data[at + 1] != 0x93 or data[at + 2] != 1:
        return False
    if data[at + 3] != 0xC4 or data[at + 4] != 32:
        return False
    at = _read_unsigned(data, at + 37, end, value)
    if at < 0:
        return False
    cost = value[0] + gas_limit * gas_price
    if cost < value[0]:
        return False
    terms[4, row] = cost
    payload_end = at
    # [scheme, signature, public key].
    if end - at < 2 or data[at] != 0x93:
        return False
    at = _read_unsigned(data, at + 1, end, value)
    if at < 0 or value[0] >= np.uint64(_SCHEMES):
        return False
    scheme = np.int64(value[0])
    if signature_sizes[scheme] <= 0:
        return False
    at = _skip_binary(data, at, end, signature_sizes[scheme])
    if at < 0:
        return False
    key = np.int64(0)
    if end - at == 2 and data[at] == 0xC4 and data[at + 1] == 0:
        at += 2
    else:
        at = _skip_binary(data, at, end, key_sizes[scheme])
        key = at - key_sizes[scheme] - start
    if at != end:
        return False
    schemes[row] = scheme
    spans[0, row], spans[1, row], spans[2, row] = payload - start, payload_end - start, key
    return True


@kernel(
    f"int64({_BYTES}, {_I64}, int64, {_BYTES}, int64, uint64, uint64[::1], {_I64}, {_I64}, "
    "uint8[::1], uint8[::1], uint8[:, ::1], uint8[:, ::1], uint64[:, ::1], int64[:, ::1], "
    f"uint8[::1], {_I64})"
)
def _read(
    data: Array,
    starts: Array,
    size_max: int,
    chain_id: Array,
    version: int,
    height: Any,
    limits: Array,
    signature_sizes: Array,
    key_sizes: Array,
    plain: Array,
    schemes: Array,
    senders: Array,
    key_ids: Array,
    terms: Array,
    spans: Array,
    bodies: Array,
    body_offsets: Array,
) -> Any:
    value = np.zeros(1, dtype=np.uint64)
    put = np.int64(0)
    body_offsets[0] = 0
    for row in range(len(plain)):
        start, end = starts[row], starts[row + 1]
        if end - start <= size_max and _read_row(
            data,
            start,
            end,
            chain_id,
            version,
            height,
            limits,
            signature_sizes,
            key_sizes,
            row,
            schemes,
            senders,
            key_ids,
            terms,
            spans,
            value,
        ):
            plain[row] = 1
            # The body begins behind the outer array's header.
            size = spans[1, row] - 1
            _copy(data[start + 1 : start + 1 + size], bodies[put : put + size])
            put += size
        body_offsets[row + 1] = put
    return put


@kernel(f"void({_BYTES}, {_I64}, uint8[:, ::1])")
def _gather(data: Array, starts: Array, out: Array) -> None:
    width = out.shape[1]
    for row in range(len(starts)):
        start = starts[row]
        _copy(data[start : start + width], out[row])


@kernel(
    f"boolean({_BYTES}, {_I64}, {_I64}, {_I64}, uint8[:, ::1], uint8[:, ::1], uint64[:, ::1], "
    "uint32[::1], uint8[::1])"
)
def _cut(
    data: Array,
    starts: Array,
    payloads: Array,
    payload_ends: Array,
    senders: Array,
    key_ids: Array,
    terms: Array,
    offsets: Array,
    out: Array,
) -> bool:
    value = np.zeros(1, dtype=np.uint64)
    put = np.int64(0)
    offsets[0] = 0
    for row in range(len(payloads)):
        start = starts[row]
        # Behind two array headers and the version, of a byte each, stands the chain id.
        at = start + 3 + 34
        _copy(data[at + 2 : at + 34], senders[row])
        _copy(data[at + 36 : at + 68], key_ids[row])
        at += 68
        for term in range(4):
            at = _read_unsigned(data, at, starts[row + 1], value)
            if at < 0:
                return False
            terms[term, row] = value[0]
        if at != start + payloads[row]:
            return False
        size = payload_ends[row] - payloads[row]
        _copy(data[at : at + size], out[put : put + size])
        put += size
        offsets[row + 1] = put
    return True


def join(rows: Sequence[bytes]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """uint8[...] of the rows one after the other, and where they start: int64[n + 1]."""
    starts = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(np.fromiter(map(len, rows), np.int64, len(rows)), out=starts[1:])
    return np.frombuffer(b"".join(rows), dtype=np.uint8), starts


def read_transactions(
    transactions: Sequence[bytes],
    *,
    chain_id: bytes,
    version: int,
    height: int,
    size_bytes_max: int,
    gas: tuple[int, int, int],
    sizes: Mapping[int, tuple[int, int]],
) -> Read:
    """Columns of the plain transfers among `transactions`, whatever bytes those are; see `Read`.

    `version` is below 128; `height` that of the newest executed block; `gas` what a transfer
    needs, the largest limit and the largest price; `sizes` the sizes in bytes of a public key and
    a signature for each scheme that is allowed.
    """
    if len(chain_id) != 32 or not 0 <= version < 0x80:
        raise ValueError("a chain id of another size, or a version of more than a byte")
    count = len(transactions)
    signature_sizes = np.zeros(_SCHEMES, dtype=np.int64)
    key_sizes = np.zeros(_SCHEMES, dtype=np.int64)
    for scheme, (public_key, signature) in sizes.items():
        key_sizes[scheme], signature_sizes[scheme] = public_key, signature
    data, starts = join(transactions)
    plain = np.zeros(count, dtype=np.uint8)
    schemes = np.zeros(count, dtype=np.uint8)
    senders = np.empty((count, 32), dtype=np.uint8)
    key_ids = np.empty((count, 32), dtype=np.uint8)
    terms = np.empty((5, count), dtype=np.uint64)
    spans = np.empty((3, count), dtype=np.int64)
    # A plain body's bytes are bounded: array header, version, four digests, five integers, and
    # what stands around the payload's parts.
    bodies = np.empty(count * (2 + 4 * 34 + 5 * 9 + 3), dtype=np.uint8)
    body_offsets = np.empty(count + 1, dtype=np.int64)
    size = _read(
        data,
        starts,
        size_bytes_max,
        np.frombuffer(chain_id, dtype=np.uint8),
        version,
        np.uint64(height),
        np.array(gas, dtype=np.uint64),
        signature_sizes,
        key_sizes,
        plain,
        schemes,
        senders,
        key_ids,
        terms,
        spans,
        bodies,
        body_offsets,
    )
    return Read(
        data, starts, plain, schemes, senders, key_ids, terms, spans, bodies[:size], body_offsets
    )


def gather(data: Array, starts: Array, width: int) -> npt.NDArray[np.uint8]:
    """uint8[n, width]: the `width` bytes of `data` from each of `starts`, int64[n].

    Raises ValueError where a row lies outside of the data.
    """
    if len(starts) and (starts.min() < 0 or starts.max() + width > len(data)):
        raise ValueError("a row outside of the data")
    out = np.empty((len(starts), width), dtype=np.uint8)
    _gather(data, starts, out)
    return out


def cut_bodies(data: Array, starts: Array, payloads: Array, payload_ends: Array) -> list[bytes]:
    """The parts of a batch's bodies section, out of canonical transactions of one byte's version.

    `data` and `starts` as `join` gives them; `payloads` and `payload_ends`, int64[n], count from a
    row's start.  Raises ValueError where a payload does not stand behind the gas price.
    """
    count = len(payloads)
    sizes = np.diff(starts)
    if np.any(payloads > payload_ends) or np.any(payload_ends > sizes) or np.any(payloads < 105):
        raise ValueError("a payload outside of its transaction")
    senders = np.empty((count, 32), dtype=np.uint8)
    key_ids = np.empty((count, 32), dtype=np.uint8)
    terms = np.empty((4, count), dtype=np.uint64)
    offsets = np.empty(count + 1, dtype=np.uint32)
    out = np.empty(int((payload_ends - payloads).sum()), dtype=np.uint8)
    if not _cut(data, starts, payloads, payload_ends, senders, key_ids, terms, offsets, out):
        raise ValueError("a payload that is not where it should be")
    return [
        senders.tobytes(),
        key_ids.tobytes(),
        terms[0].astype("<u8").tobytes(),
        terms[1].astype("<u8").tobytes(),
        terms[2].astype("<u4").tobytes(),
        terms[3].astype("<u4").tobytes(),
        offsets.astype("<u4").tobytes(),
        out.tobytes(),
    ]


def warm() -> None:
    """Nothing to do: the functions of this module are compiled where they are defined."""
