"""The vector layer: each operation against numpy's, on values at the edges of their types."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numba import njit

from qnet_actors.kernels import vectors
from qnet_actors.kernels.vectors import F32, I8, I32, I64, transpose, vector_kernel

EDGES = np.array(
    [
        0,
        1,
        -1,
        2,
        -2,
        5,
        127,
        -128,
        2**20,
        -(2**20),
        2**24 + 1,
        2**30,
        -(2**30),
        2**31 - 1,
        -(2**31),
        7,
    ],
    dtype=np.int32,
)


def applied(operation: Any, *inputs: Any, result: Any = np.int32, lanes: int = 16) -> Any:
    """What `operation` on vectors of int32 stores."""

    @vector_kernel
    def emit(emitter, a, b, out):
        first, second = (emitter.load(pointer, I32, 16) for pointer in (a, b))
        emitter.store(operation(emitter, first, second), out)

    @njit
    def call(a, b, out):
        emit(a, b, out)

    out = np.zeros(lanes, dtype=result)
    call(inputs[0], inputs[-1], out)
    return out


def test_integers_wrap_around():
    other = EDGES[::-1].copy()
    with np.errstate(over="ignore"):
        assert (applied(lambda e, a, b: a + b, EDGES, other) == EDGES + other).all()
        assert (applied(lambda e, a, b: a - b, EDGES, other) == EDGES - other).all()
        assert (applied(lambda e, a, b: a * b, EDGES, other) == EDGES * other).all()
        assert (applied(lambda e, a, b: 5 - a, EDGES) == 5 - EDGES).all()
    assert (
        applied(lambda e, a, b: (a ^ b) | (~a & b), EDGES, other)
        == ((EDGES ^ other) | (~EDGES & other))
    ).all()


def test_shifts_and_rotations():
    unsigned = EDGES.view(np.uint32)
    assert (applied(lambda e, a, b: a << 3, EDGES).view(np.uint32) == unsigned << 3).all()
    assert (applied(lambda e, a, b: a.shift_right(3), EDGES).view(np.uint32) == unsigned >> 3).all()
    assert (applied(lambda e, a, b: a.shift_right_signed(3), EDGES) == EDGES >> 3).all()
    turned = applied(lambda e, a, b: a.rotate_left(7), EDGES).view(np.uint32)
    assert (turned == (unsigned << 7 | unsigned >> 25)).all()
    each = applied(lambda e, a, b: a.shift_right(list(range(16))), EDGES).view(np.uint32)
    assert (each == unsigned >> np.arange(16, dtype=np.uint32)).all()


def test_unsigned_comparison():
    other = EDGES[::-1].copy()
    pair = EDGES.view(np.uint32), other.view(np.uint32)
    smaller = applied(lambda e, a, b: a.minimum_unsigned(b), EDGES, other).view(np.uint32)
    larger = applied(lambda e, a, b: a.maximum_unsigned(b), EDGES, other).view(np.uint32)
    assert (smaller == np.minimum(*pair)).all()
    assert (larger == np.maximum(*pair)).all()


def test_rounding_is_to_nearest_and_ties_to_even():
    # The bounds of the kernels stand on this.
    halves = applied(lambda e, a, b: (a.to_float() * 0.5).nearest(), EDGES)
    assert (halves == np.rint(EDGES.astype(np.float32) * np.float32(0.5)).astype(np.int64)).all()
    ties = applied(
        lambda e, a, b: (e.constant(F32, [k + 0.5 for k in range(-8, 8)])).nearest(), EDGES
    )
    assert ties.tolist() == [round(k + 0.5) for k in range(-8, 8)]


def test_lanes_of_other_kinds():
    octets = applied(
        lambda e, a, b: a.as_lanes(I8, 64).pick(range(63, -1, -1)), EDGES, result=np.uint8, lanes=64
    )
    assert octets.tobytes() == EDGES.tobytes()[::-1]
    wide = applied(
        lambda e, a, b: a.pick(range(8)).extend_signed(I64), EDGES, result=np.int64, lanes=8
    )
    assert (wide == EDGES[:8]).all()
    narrow = applied(lambda e, a, b: a.truncate(I8), EDGES, result=np.int8)
    assert (narrow == EDGES.astype(np.int8)).all()


def test_transpose():
    @vector_kernel
    def emit(emitter, source, target):
        rows = [emitter.load(source, I32, 16, 64 * row) for row in range(16)]
        for row, vector in enumerate(transpose(rows)):
            emitter.store(vector, target, 64 * row)

    @njit
    def call(source, target):
        emit(source, target)

    source = np.arange(256, dtype=np.int32).reshape(16, 16)
    target = np.zeros_like(source)
    call(source, target)
    assert (target == source.T).all()


def test_loop_carries_its_vectors():
    @vector_kernel
    def emit(emitter, source, target):
        pair = [emitter.load(source, I64, 8), emitter.constant(I64, [1] * 8)]
        pair = emitter.repeat(
            10, pair, lambda index, p: [p[0] + p[1], p[0] + emitter.broadcast(index, 8)]
        )
        emitter.store(pair[0], target)

    @njit
    def call(source, target):
        emit(source, target)

    source, target = np.arange(8, dtype=np.int64), np.zeros(8, dtype=np.int64)
    call(source, target)
    a, b = source.copy(), np.ones(8, dtype=np.int64)
    for index in range(10):
        a, b = a + b, a + index
    assert (target == a).all()


@pytest.mark.parametrize(("limit", "expected"), [(6, False), (7, True)])
def test_result_of_a_kernel_is_a_boolean(limit, expected):
    @vector_kernel
    def emit(emitter, a) -> Scalar:  # type: ignore[name-defined]  # noqa: F821
        return emitter.at_most(emitter.load(a, I32, 8).largest_unsigned(), limit)

    @njit
    def call(a):
        return emit(a)

    assert call(np.arange(8, dtype=np.int32)) is expected


def test_instruction_set_has_a_name():
    assert vectors.instruction_set()
