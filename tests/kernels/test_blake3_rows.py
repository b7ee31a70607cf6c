"""Sixteen BLAKE3 lanes, held to the library."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnet_actors.kernels import blake3_rows
from qnet_actors.wire import hashing
from qnet_actors.wire.hashing import TRANSACTION, hash32


def rows_of(rows: list[bytes]) -> list[bytes]:
    data = np.frombuffer(b"".join(rows), dtype=np.uint8)
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return [digest.tobytes() for digest in blake3_rows.hash_rows(TRANSACTION, data, offsets)]


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=200) | st.binary(min_size=900, max_size=1200), max_size=40))
def test_rows_of_any_length(rows):
    assert rows_of(rows) == [hash32(TRANSACTION, row) for row in rows]


def test_lengths_around_blocks_and_chunks():
    edges = [size + d for size in (0, 64, 128, 960, 1024, 2048) for d in (-1, 0, 1) if size + d > 0]
    rows = [bytes(range(256)) * 9 for _ in edges]
    rows = [b"", *(row[:size] for row, size in zip(rows, edges, strict=True))]
    assert rows_of(rows) == [hash32(TRANSACTION, row) for row in rows]
    assert rows_of(rows[::-1]) == [hash32(TRANSACTION, row) for row in rows[::-1]]


def test_every_context_of_the_wire():
    contexts = [
        value for name, value in vars(hashing).items() if name.isupper() and isinstance(value, str)
    ]
    assert len(contexts) > 20
    for context in contexts:
        data = np.frombuffer(b"abc", dtype=np.uint8)
        digest = blake3_rows.hash_rows(context, data, np.array([0, 3]))[0]
        assert digest.tobytes() == hash32(context, b"abc")


def test_faults_of_the_caller():
    data = np.zeros(10, dtype=np.uint8)
    for offsets in ([], [0, 11], [-1, 3], [0, 5, 4, 10]):
        with pytest.raises(ValueError):
            blake3_rows.hash_rows(TRANSACTION, data, np.array(offsets, dtype=np.int64))
    with pytest.raises(ValueError):
        blake3_rows.hash_rows("x" * 65, data, np.array([0, 10], dtype=np.int64))
