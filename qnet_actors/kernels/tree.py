"""The compact sparse Merkle tree on arrays; `state.tree` is the specification.

A tree is a set of columns that its owner grows: nodes with a left and a right child, or, where the
left is `LEAF`, with the number of a leaf in the place of the right one.  Node 0 stands for the
empty subtree and has a hash of zeros.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from qnet_actors.kernels.blake3 import BLOCK_BYTES, LANES, hash_rows
from qnet_actors.kernels.bodies import _put_digest, _put_unsigned
from qnet_actors.kernels.cache import kernel

Array = Any

LEAF: Final = -1
DEPTH_MAX: Final = 256
NODES_PER_INSERT_MAX: Final = DEPTH_MAX + 2
# Places in `counters`.
ROOT: Final = 0
NODES: Final = 1
LEAVES: Final = 2
DIRTY_LEAVES: Final = 3

_ROWS = "Array(uint8, 2, 'C', readonly=True)"
_KEY = "Array(uint32, 1, 'C', readonly=True)"


@kernel(f"int64({_ROWS}, int64, int64)")
def _bit(keys: Array, row: Any, depth: Any) -> Any:
    return (np.int64(keys[row, depth >> 3]) >> (7 - (depth & 7))) & 1


@kernel(f"boolean({_ROWS}, int64, {_ROWS}, int64)")
def _same(a: Array, row: Any, b: Array, other: Any) -> Any:
    difference = np.uint8(0)
    for k in range(32):
        difference |= a[row, k] ^ b[other, k]
    return difference == 0


@kernel("void(int32[::1], int32[::1], int64[::1], int64, int64, int64)")
def _attach(left: Array, right: Array, counters: Array, parent: Any, side: Any, node: Any) -> None:
    if parent == 0:
        counters[ROOT] = node
    elif side == 1:
        right[parent] = node
    else:
        left[parent] = node


@kernel("void(int32[::1], int32[::1], uint8[::1], int64, int64)")
def _mark(heads: Array, following: Array, marks: Array, node: Any, depth: Any) -> None:
    """Puts an inner node on the list of its depth, once."""
    if marks[node] == 0:
        marks[node] = 1
        following[node] = heads[depth]
        heads[depth] = node


@kernel(
    f"int64({_ROWS}, {_ROWS}, int64, int64, int32[::1], int32[::1], uint8[::1], int32[::1], "
    "int32[::1], uint8[:, ::1], uint8[:, ::1], int32[::1], uint8[:, ::1], int64[::1])"
)
def insert(
    keys: Array,
    values: Array,
    start: Any,
    base: Any,
    left: Array,
    right: Array,
    marks: Array,
    following: Array,
    heads: Array,
    leaf_keys: Array,
    leaf_values: Array,
    dirty: Array,
    overwritten: Array,
    counters: Array,
) -> Any:
    """Sets keys from row `start` on, marking what must be hashed again.

    Returns the row at which space ran out, with nothing of it done, or the number of rows.  `base`
    is the depth of the root; `dirty` takes the nodes of the leaves that were set, `overwritten` the
    values that they had.
    """
    for row in range(start, len(keys)):
        if (
            counters[NODES] + NODES_PER_INSERT_MAX > len(left)
            or counters[LEAVES] + 1 > len(leaf_keys)
            or counters[DIRTY_LEAVES] + 1 > len(dirty)
        ):
            return row
        depth = base
        parent, side = np.int64(0), np.int64(0)
        node = counters[ROOT]
        while node != 0 and left[node] != LEAF:
            _mark(heads, following, marks, node, depth)
            parent, side = node, _bit(keys, row, depth)
            node = np.int64(right[node]) if side == 1 else np.int64(left[node])
            depth += 1
        if node != 0 and _same(leaf_keys, right[node], keys, row):
            slot = np.int64(right[node])
            leaf = node
        else:
            slot = counters[LEAVES]
            counters[LEAVES] += 1
            leaf = counters[NODES]
            counters[NODES] += 1
            left[leaf] = LEAF
            right[leaf] = slot
            leaf_keys[slot] = keys[row]
            while node != 0:
                # Another leaf stands here: inner nodes go down to where the two part.
                inner = counters[NODES]
                counters[NODES] += 1
                left[inner] = 0
                right[inner] = 0
                marks[inner] = 0
                _mark(heads, following, marks, inner, depth)
                _attach(left, right, counters, parent, side, inner)
                own, other = _bit(keys, row, depth), _bit(leaf_keys, right[node], depth)
                parent, side = inner, own
                depth += 1
                if own != other:
                    _attach(left, right, counters, inner, other, node)
                    break
            _attach(left, right, counters, parent, side, leaf)
        overwritten[counters[DIRTY_LEAVES]] = leaf_values[slot]
        leaf_values[slot] = values[row]
        dirty[counters[DIRTY_LEAVES]] = leaf
        counters[DIRTY_LEAVES] += 1
    return len(keys)


@kernel(
    "void(int64, int32[::1], int32[::1], uint8[::1], int32[::1], int32[::1], uint8[:, ::1], "
    f"{_ROWS}, {_ROWS}, int32[::1], int64[::1], {_KEY}, {_KEY}, uint64)"
)
def rehash(
    base: Any,
    left: Array,
    right: Array,
    marks: Array,
    following: Array,
    heads: Array,
    hashes: Array,
    leaf_keys: Array,
    leaf_values: Array,
    dirty: Array,
    counters: Array,
    leaf_context: Array,
    node_context: Array,
    flags: Any,
) -> None:
    """Hashes the leaves that were set and every marked node, deepest first, a tile at a time."""
    blocks = np.zeros((LANES, BLOCK_BYTES), np.uint8)
    lengths = np.full(LANES, BLOCK_BYTES, np.uint32)
    digests = np.empty((LANES, 32), np.uint8)
    nodes = np.empty(LANES, np.int64)
    filled = 0
    for i in range(counters[DIRTY_LEAVES]):
        nodes[filled] = dirty[i]
        slot = right[dirty[i]]
        blocks[filled, :32] = leaf_keys[slot]
        blocks[filled, 32:] = leaf_values[slot]
        filled += 1
        if filled == LANES or i + 1 == counters[DIRTY_LEAVES]:
            hash_rows(blocks, lengths, leaf_context, flags, digests)
            for lane in range(filled):
                hashes[nodes[lane]] = digests[lane]
            filled = 0
    counters[DIRTY_LEAVES] = 0
    for depth in range(DEPTH_MAX, base - 1, -1):
        node = np.int64(heads[depth])
        heads[depth] = 0
        while node != 0:
            marks[node] = 0
            nodes[filled] = node
            blocks[filled, :32] = hashes[left[node]]
            blocks[filled, 32:] = hashes[right[node]]
            filled += 1
            node = np.int64(following[node])
            if filled == LANES or node == 0:
                hash_rows(blocks, lengths, node_context, flags, digests)
                for lane in range(filled):
                    hashes[nodes[lane]] = digests[lane]
                filled = 0


@kernel(
    f"void(Array(uint64, 1, 'C', readonly=True), Array(uint64, 1, 'C', readonly=True), {_ROWS}, "
    "uint8[:, ::1], uint32[::1])"
)
def _account_rows(
    nonces: Array, balances: Array, key_ids: Array, rows: Array, lengths: Array
) -> None:
    """The canonical MessagePack of [nonce, balance, key id] a row, into zeroed uint8[n, 64]."""
    for row in range(len(nonces)):
        out = rows[row]
        out[0] = 0x93
        at = _put_unsigned(out, np.uint64(1), nonces[row])
        at = _put_unsigned(out, at, balances[row])
        lengths[row] = _put_digest(out, at, key_ids[row])


def account_messages(nonces: Array, balances: Array, key_ids: Array) -> tuple[Array, Array]:
    """What is hashed of accounts: rows uint8[n, 64] with zeros behind, and lengths uint32[n]."""
    rows = np.zeros((len(nonces), BLOCK_BYTES), dtype=np.uint8)
    lengths = np.empty(len(nonces), dtype=np.uint32)
    _account_rows(nonces, balances, key_ids, rows, lengths)
    return rows, lengths


def warm() -> None:
    """Nothing to do: the functions of this module are compiled where they are defined."""
