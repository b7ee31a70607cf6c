"""Published records, malformed hints and helpers that the tests of ML-DSA-65 share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qnet_actors.kernels import mldsa, ring
from tests.crypto.vectors import records


class Record(NamedTuple):
    """A published signature."""

    seed: bytes
    public_key: bytes
    message: bytes
    signature: bytes
    context: bytes


@cache
def published() -> list[Record]:
    rows = [
        Record(r["xi"], r["pk"], r["msg"], r["sm"][: mldsa.SIGNATURE_BYTES], r["ctx"])
        for r in records("MLDSA/kat_MLDSA_65_det_pure.rsp")
    ]
    assert len(rows) == 100
    return rows


def column(values: Sequence[bytes]) -> NDArray[np.uint8]:
    """uint8[n, width] of byte strings of one width."""
    return np.frombuffer(b"".join(values), dtype=np.uint8).reshape(len(values), -1)


def unpack_entry(entry: NDArray[np.uint8], row: int, term: int) -> NDArray[np.int64]:
    """A polynomial of an expanded key: integers in natural order, as they are stored."""
    start = row * ring.ROW_BYTES + term * ring.POLY_BYTES
    octets = entry[start : start + ring.POLY_BYTES].reshape(ring.N, ring.PACKED_BYTES)
    values = octets.astype(np.int64) @ np.array([1, 1 << 8, 1 << 16])
    polynomial: NDArray[np.int64] = values.reshape(ring.LANES, ring.VECTORS).T.reshape(-1)
    return polynomial


_NO_PLACES = [0] * 55
MALFORMED_HINTS = [
    ("count over omega", bytes([*_NO_PLACES, 0, 0, 0, 0, 0, 56])),
    ("counts fall", bytes([1, 2, *_NO_PLACES[2:], 2, 1, 2, 2, 2, 2])),
    ("a place twice", bytes([5, 5, *_NO_PLACES[2:], 2, 2, 2, 2, 2, 2])),
    ("places fall", bytes([5, 4, *_NO_PLACES[2:], 2, 2, 2, 2, 2, 2])),
    ("not zero behind", bytes([5, 0, 0, 1, *_NO_PLACES[4:], 1, 1, 1, 1, 1, 1])),
    ("last one not zero", bytes([*_NO_PLACES[1:], 1, 0, 0, 0, 0, 0, 0])),
]
"""(what is wrong, the last 61 bytes of a signature)"""
