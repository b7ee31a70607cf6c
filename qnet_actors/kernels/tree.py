"""The compact sparse Merkle tree on arrays; `state.tree` is the specification.

A tree is a set of columns that its owner grows.  A node is a row of `NODE_WORDS`, so that a step
down touches one line of the processor's cache: a left and a right child, or, where the left is
`LEAF`, the number of a leaf in the place of the right one; then the next node on a list, and
whether it is on that of what is to be hashed at its depth.  Node 0 stands for the empty subtree
and has a hash of zeros.

A node taken out keeps its row, for the trees before.  Once its owner gives it back it is on the
list of free inner nodes or of free leaves, and is used before a new one is made; a leaf keeps its
place among the keys.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from qnet_actors.kernels.blake3 import BLOCK_BYTES, LANES, hash_rows
from qnet_actors.kernels.bodies import _put_digest, _put_unsigned
from qnet_actors.kernels.cache import kernel

Array = Any

NODE_WORDS: Final = 4
LEFT: Final = 0
RIGHT: Final = 1
_FOLLOWING: Final = 2
_MARK: Final = 3
LEAF: Final = -1
DEPTH_MAX: Final = 256
NODES_PER_KEY_MAX: Final = DEPTH_MAX + 2
"""What one key may need, or take out."""
# Places in `counters`.
ROOT: Final = 0
NODES: Final = 1
LEAVES: Final = 2
DIRTY_LEAVES: Final = 3
MARKED: Final = 4
FREE_INNER: Final = 5
FREE_LEAF: Final = 6
LINKS: Final = 7
TAKEN: Final = 8
COUNTERS: Final = 9

_ROWS = "Array(uint8, 2, 'C', readonly=True)"
_KEY = "Array(uint32, 1, 'C', readonly=True)"


@kernel(f"int64({_ROWS}, int64, int64)")
def _bit(keys: Array, row: Any, depth: Any) -> Any:
    return (np.int64(keys[row, depth >> 3]) >> (7 - (depth & 7))) & 1


@kernel("boolean(uint64[:, ::1], int64, Array(uint64, 2, 'C', readonly=True), int64)")
def _same(a: Array, row: Any, b: Array, other: Any) -> Any:
    difference = np.uint64(0)
    for k in range(4):
        difference |= a[row, k] ^ b[other, k]
    return difference == 0


@kernel("boolean(Array(uint64, 2, 'C', readonly=True), int64)")
def _is_zero(a: Array, row: Any) -> Any:
    return (a[row, 0] | a[row, 1] | a[row, 2] | a[row, 3]) == 0


@kernel("void(int32[:, ::1], int64[::1], int64, int64, int64)")
def _attach(nodes: Array, counters: Array, parent: Any, side: Any, node: Any) -> None:
    if parent == 0:
        counters[ROOT] = node
    else:
        nodes[parent, side] = node


@kernel("void(int32[:, ::1], int32[:, ::1], int64[::1], int64)")
def _keep_links(nodes: Array, links: Array, counters: Array, node: Any) -> None:
    """Writes down the children of a node that is about to get another one."""
    if node != 0:
        row = counters[LINKS]
        links[row, 0] = node
        links[row, 1] = nodes[node, LEFT]
        links[row, 2] = nodes[node, RIGHT]
        counters[LINKS] += 1


@kernel("int64(int32[:, ::1], int64[::1])")
def _new_inner(nodes: Array, counters: Array) -> Any:
    inner = counters[FREE_INNER]
    if inner != 0:
        counters[FREE_INNER] = nodes[inner, _FOLLOWING]
    else:
        inner = counters[NODES]
        counters[NODES] += 1
    nodes[inner] = 0
    return inner


@kernel("int64(int32[:, ::1], int64[::1])")
def _new_leaf(nodes: Array, counters: Array) -> Any:
    leaf = counters[FREE_LEAF]
    if leaf != 0:
        counters[FREE_LEAF] = nodes[leaf, _FOLLOWING]
        return leaf
    leaf = counters[NODES]
    counters[NODES] += 1
    nodes[leaf, LEFT] = LEAF
    nodes[leaf, RIGHT] = counters[LEAVES]
    counters[LEAVES] += 1
    return leaf


@kernel("void(int32[:, ::1], Array(int32, 1, 'C', readonly=True), int64[::1])")
def give_back(nodes: Array, taken: Array, counters: Array) -> None:
    """Puts nodes that no tree holds any more on the lists of free ones."""
    for i in range(len(taken)):
        node = np.int64(taken[i])
        kind = FREE_LEAF if nodes[node, LEFT] == LEAF else FREE_INNER
        nodes[node, _FOLLOWING] = counters[kind]
        counters[kind] = node


@kernel("void(int32[:, ::1], int32[::1], int64[::1], int64, int64)")
def _mark(nodes: Array, heads: Array, counters: Array, node: Any, depth: Any) -> None:
    """Puts an inner node on the list of its depth, once."""
    if nodes[node, _MARK] == 0:
        nodes[node, _MARK] = 1
        nodes[node, _FOLLOWING] = heads[depth]
        heads[depth] = node
        counters[MARKED] += 1


@kernel(
    f"void({_ROWS}, int64, int64, int32[:, ::1], int32[::1], uint8[:, ::1], "
    "int32[:, ::1], int32[::1], int64[::1])"
)
def _remove(
    keys: Array,
    row: Any,
    base: Any,
    nodes: Array,
    heads: Array,
    leaf_keys: Array,
    links: Array,
    taken: Array,
    counters: Array,
) -> None:
    """Takes a key out, if it is there, and lets a leaf that is left alone rise."""
    path = np.empty(DEPTH_MAX + 1, np.int64)
    depth = base
    node = counters[ROOT]
    while node != 0 and nodes[node, LEFT] != LEAF:
        path[depth] = node
        node = np.int64(nodes[node, _bit(keys, row, depth)])
        depth += 1
    if node == 0:
        return
    if not _same(leaf_keys.view(np.uint64), nodes[node, RIGHT], keys.view(np.uint64), row):
        return
    taken[counters[TAKEN]] = node
    counters[TAKEN] += 1
    standing = np.int64(0)
    while depth > base:
        inner = path[depth - 1]
        away = np.int64(nodes[inner, 1 - _bit(keys, row, depth - 1)])
        if away != 0 and (standing != 0 or nodes[away, LEFT] != LEAF):
            break
        # Of two subtrees one is empty and the other at most a leaf: that takes the place of both.
        standing += away
        taken[counters[TAKEN]] = inner
        counters[TAKEN] += 1
        depth -= 1
    parent, side = np.int64(0), np.int64(0)
    if depth > base:
        parent, side = path[depth - 1], _bit(keys, row, depth - 1)
    _keep_links(nodes, links, counters, parent)
    _attach(nodes, counters, parent, side, standing)
    for above in range(base, depth):
        _mark(nodes, heads, counters, path[above], above)


@kernel(
    f"int64({_ROWS}, {_ROWS}, int64, int64, int32[:, ::1], int32[::1], uint8[:, ::1], "
    "uint8[:, ::1], int32[::1], uint8[:, ::1], int32[:, ::1], int32[::1], int64[::1])"
)
def change(
    keys: Array,
    values: Array,
    start: Any,
    base: Any,
    nodes: Array,
    heads: Array,
    leaf_keys: Array,
    leaf_values: Array,
    dirty: Array,
    overwritten: Array,
    links: Array,
    taken: Array,
    counters: Array,
) -> Any:
    """Sets keys from row `start` on, or takes them out where the value is zeros; marks what must
    be hashed again.

    Returns the row at which space ran out, with nothing of it done, or the number of rows.  `base`
    is the depth of the root; `dirty` takes the nodes of the leaves that were set, `overwritten` the
    values that they had, `links` (node, left, right) of the nodes that got another child, `taken`
    the nodes that were taken out.  All but the last have room for every key.
    """
    key_words, value_words = keys.view(np.uint64), values.view(np.uint64)
    held_keys, held_values = leaf_keys.view(np.uint64), leaf_values.view(np.uint64)
    overwritten_words = overwritten.view(np.uint64)
    for row in range(start, len(keys)):
        if (
            counters[NODES] + NODES_PER_KEY_MAX > len(nodes)
            or counters[LEAVES] + 1 > len(leaf_keys)
            or counters[TAKEN] + NODES_PER_KEY_MAX > len(taken)
        ):
            return row
        if _is_zero(value_words, row):
            _remove(keys, row, base, nodes, heads, leaf_keys, links, taken, counters)
            continue
        depth = base
        parent, side = np.int64(0), np.int64(0)
        node = counters[ROOT]
        while node != 0 and nodes[node, LEFT] != LEAF:
            _mark(nodes, heads, counters, node, depth)
            parent, side = node, _bit(keys, row, depth)
            node = np.int64(nodes[node, side])
            depth += 1
        if node != 0 and _same(held_keys, nodes[node, RIGHT], key_words, row):
            slot = np.int64(nodes[node, RIGHT])
            leaf = node
        else:
            leaf = _new_leaf(nodes, counters)
            slot = np.int64(nodes[leaf, RIGHT])
            leaf_keys[slot] = keys[row]
            _keep_links(nodes, links, counters, parent)
            while node != 0:
                # Another leaf stands here: inner nodes go down to where the two part.
                inner = _new_inner(nodes, counters)
                _mark(nodes, heads, counters, inner, depth)
                _attach(nodes, counters, parent, side, inner)
                own, other = _bit(keys, row, depth), _bit(leaf_keys, nodes[node, RIGHT], depth)
                parent, side = inner, own
                depth += 1
                if own != other:
                    _attach(nodes, counters, inner, other, node)
                    break
            _attach(nodes, counters, parent, side, leaf)
        for k in range(4):
            overwritten_words[counters[DIRTY_LEAVES], k] = held_values[slot, k]
            held_values[slot, k] = value_words[row, k]
        dirty[counters[DIRTY_LEAVES]] = leaf
        counters[DIRTY_LEAVES] += 1
    return len(keys)


@kernel(
    "int64(uint64[:, ::1], uint64[:, ::1], int64[::1], int64, int64, int64[::1], "
    "uint64[:, ::1], int64)"
)
def _put(
    hashes: Array,
    digests: Array,
    tile: Array,
    filled: Any,
    limit: Any,
    changed: Array,
    before: Array,
    count: Any,
) -> Any:
    """Puts a tile of digests in their places; keeps what was there of the nodes below `limit`."""
    for lane in range(filled):
        node = tile[lane]
        if node < limit:
            changed[count] = node
            for k in range(4):
                before[count, k] = hashes[node, k]
            count += 1
        for k in range(4):
            hashes[node, k] = digests[lane, k]
    return count


@kernel(
    f"int64(int64, int32[:, ::1], int32[::1], uint8[:, ::1], {_ROWS}, {_ROWS}, int32[::1], "
    f"int64[::1], {_KEY}, {_KEY}, uint64, int64, int64[::1], uint8[:, ::1])"
)
def rehash(
    base: Any,
    nodes: Array,
    heads: Array,
    hashes: Array,
    leaf_keys: Array,
    leaf_values: Array,
    dirty: Array,
    counters: Array,
    leaf_context: Array,
    node_context: Array,
    flags: Any,
    limit: Any,
    changed: Array,
    before: Array,
) -> Any:
    """Hashes the leaves that were set and every marked node, deepest first, a tile at a time.

    Of the nodes below `limit` it writes the numbers to `changed` and the hashes that they had to
    `before`, in no order, and returns how many they are.  Nodes taken out are hashed too where they
    were marked before, to no effect.
    """
    blocks = np.zeros((LANES, BLOCK_BYTES), np.uint8)
    lengths = np.full(LANES, BLOCK_BYTES, np.uint32)
    digests = np.empty((LANES, 32), np.uint8)
    # Words: copying digests byte by byte would take longer than hashing them.
    block_words, digest_words = blocks.view(np.uint64), digests.view(np.uint64)
    hash_words, before_words = hashes.view(np.uint64), before.view(np.uint64)
    tile = np.empty(LANES, np.int64)
    held_keys, held_values = leaf_keys.view(np.uint64), leaf_values.view(np.uint64)
    filled, count = 0, 0
    for i in range(counters[DIRTY_LEAVES]):
        tile[filled] = dirty[i]
        slot = nodes[dirty[i], RIGHT]
        for k in range(4):
            block_words[filled, k] = held_keys[slot, k]
            block_words[filled, 4 + k] = held_values[slot, k]
        filled += 1
        if filled == LANES or i + 1 == counters[DIRTY_LEAVES]:
            hash_rows(blocks, lengths, leaf_context, flags, digests)
            count = _put(
                hash_words, digest_words, tile, filled, limit, changed, before_words, count
            )
            filled = 0
    counters[DIRTY_LEAVES] = 0
    counters[MARKED] = 0
    for depth in range(DEPTH_MAX, base - 1, -1):
        node = np.int64(heads[depth])
        heads[depth] = 0
        while node != 0:
            nodes[node, _MARK] = 0
            tile[filled] = node
            left, right = np.int64(nodes[node, LEFT]), np.int64(nodes[node, RIGHT])
            for k in range(4):
                block_words[filled, k] = hash_words[left, k]
                block_words[filled, 4 + k] = hash_words[right, k]
            filled += 1
            node = np.int64(nodes[node, _FOLLOWING])
            if filled == LANES or node == 0:
                hash_rows(blocks, lengths, node_context, flags, digests)
                count = _put(
                    hash_words, digest_words, tile, filled, limit, changed, before_words, count
                )
                filled = 0
    return count


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
