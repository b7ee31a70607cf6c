"""The state tree on arrays, updated in compiled kernels; equal to `tree.StateTree`."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from qnet_actors.kernels import tree as kernels
from qnet_actors.kernels.blake3 import MATERIAL, context_key
from qnet_actors.light import AccountProof, OtherLeaf, bit
from qnet_actors.state.tree import Kind, Subtree
from qnet_actors.wire.hashing import STATE_LEAF, STATE_NODE, ZERO_DIGEST

_LEAVES_LEAST: Final = 512


class FastTree:
    """A compact sparse Merkle tree over keys that share their first `depth` bits.

    Keys are only ever added or changed.  About 1.4 nodes a key, 130 bytes a node and key.
    """

    def __init__(self, depth: int = 0) -> None:
        self._depth: Final = depth
        nodes = 2 * _LEAVES_LEAST + kernels.NODES_PER_INSERT_MAX
        self._left = np.zeros(nodes, dtype=np.int32)
        self._right = np.zeros(nodes, dtype=np.int32)
        self._marks = np.zeros(nodes, dtype=np.uint8)
        self._following = np.zeros(nodes, dtype=np.int32)
        self._hashes = np.zeros((nodes, 32), dtype=np.uint8)
        self._leaf_keys = np.zeros((_LEAVES_LEAST, 32), dtype=np.uint8)
        self._leaf_values = np.zeros((_LEAVES_LEAST, 32), dtype=np.uint8)
        self._heads = np.zeros(kernels.DEPTH_MAX + 1, dtype=np.int32)
        self._counters = np.zeros(4, dtype=np.int64)
        # Node 0 is the empty subtree.
        self._counters[kernels.NODES] = 1

    def update(self, keys: npt.NDArray[np.uint8], values: npt.NDArray[np.uint8]) -> None:
        """Sets key hashes to value hashes, both uint8[n, 32]; each key may stand once."""
        if not len(keys):
            return
        # Neighbours in the tree are looked up one after the other while they are cached.
        order = np.argsort(np.ascontiguousarray(keys[:, :8]).view(">u8").ravel())
        keys, values = keys[order], values[order]
        dirty = np.empty(len(keys), dtype=np.int32)
        done = 0
        while True:
            done = kernels.insert(
                keys,
                values,
                done,
                self._depth,
                self._left,
                self._right,
                self._marks,
                self._following,
                self._heads,
                self._leaf_keys,
                self._leaf_values,
                dirty,
                self._counters,
            )
            if done == len(keys):
                break
            self._grow()
        kernels.rehash(
            self._depth,
            self._left,
            self._right,
            self._marks,
            self._following,
            self._heads,
            self._hashes,
            self._leaf_keys,
            self._leaf_values,
            dirty,
            self._counters,
            context_key(STATE_LEAF),
            context_key(STATE_NODE),
            MATERIAL,
        )

    def root(self) -> Subtree:
        """The root of this tree; (EMPTY, zeros) where there is no key."""
        node = int(self._counters[kernels.ROOT])
        if not node:
            return Subtree(Kind.EMPTY, ZERO_DIGEST)
        kind = Kind.LEAF if self._left[node] == kernels.LEAF else Kind.NODE
        return Subtree(kind, self._hashes[node].tobytes())

    def prove(self, key: bytes) -> AccountProof:
        """The siblings below this tree's root, and the terminal where it is not `key`'s leaf."""
        siblings: list[bytes] = []
        node, depth = int(self._counters[kernels.ROOT]), self._depth
        while node and self._left[node] != kernels.LEAF:
            children = (int(self._left[node]), int(self._right[node]))
            side = bit(key, depth)
            siblings.append(self._hashes[children[1 - side]].tobytes())
            node, depth = children[side], depth + 1
        other = None
        if node:
            slot = int(self._right[node])
            found = self._leaf_keys[slot].tobytes()
            if found != key:
                other = OtherLeaf(found, self._leaf_values[slot].tobytes())
        return AccountProof(tuple(siblings), other)

    def _grow(self) -> None:
        """Doubles whichever columns ran out."""
        counters = self._counters
        if counters[kernels.LEAVES] + 1 > len(self._leaf_keys):
            self._leaf_keys = _doubled(self._leaf_keys)
            self._leaf_values = _doubled(self._leaf_values)
        if counters[kernels.NODES] + kernels.NODES_PER_INSERT_MAX > len(self._left):
            self._left = _doubled(self._left)
            self._right = _doubled(self._right)
            self._marks = _doubled(self._marks)
            self._following = _doubled(self._following)
            self._hashes = _doubled(self._hashes)


def _doubled(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    larger = np.zeros((2 * len(column), *column.shape[1:]), dtype=column.dtype)
    larger[: len(column)] = column
    return larger
