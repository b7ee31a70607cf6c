"""The state tree on arrays, updated in compiled kernels; equal to `tree.StateTree`."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from qnet_actors.kernels import tree as kernels
from qnet_actors.kernels.blake3 import MATERIAL, context_key
from qnet_actors.light import AccountProof, OtherLeaf, bit, pack_proof
from qnet_actors.state.tree import Kind, Subtree
from qnet_actors.wire.hashing import STATE_LEAF, STATE_NODE, ZERO_DIGEST

_LEAVES_LEAST: Final = 512


class _Before:
    """What an update overwrote.

    Nodes are never used again for another purpose: an inner node stays one, a leaf keeps its key,
    and a node is newer the higher its number.  So the tree before an update is made of the nodes
    below `nodes`, with these hashes and values where they differ from those of now.
    """

    __slots__ = ("hashes", "nodes", "root", "values")

    def __init__(self, root: int, nodes: int, hashes: _Column, values: _Column) -> None:
        self.root = root
        self.nodes = nodes
        self.hashes = hashes
        """Of the nodes that were hashed anew."""
        self.values = values
        """Of the leaves that were set, by their nodes."""


class _Column:
    """Digests by node; sorted when one is asked for, since most never are."""

    __slots__ = ("_digests", "_nodes", "_sorted")

    def __init__(self, nodes: npt.NDArray[Any], digests: npt.NDArray[np.uint8]) -> None:
        self._nodes = nodes
        self._digests = digests
        self._sorted = False

    def get(self, node: int) -> bytes | None:
        if not self._sorted:
            order = np.argsort(self._nodes)
            self._nodes, self._digests = self._nodes[order], self._digests[order]
            self._sorted = True
        place = int(np.searchsorted(self._nodes, node))
        if place < len(self._nodes) and self._nodes[place] == node:
            return bytes(self._digests[place])
        return None


class FastTree:
    """A compact sparse Merkle tree over keys that share their first `depth` bits.

    Keys are only ever added or changed.  About 1.4 nodes a key, 130 bytes a node and key.  The
    trees before the last `kept` updates can still be proved from; each costs the hashes that the
    update after it overwrote.
    """

    def __init__(self, depth: int = 0, kept: int = 0) -> None:
        self.version = 0
        """How many updates there were."""
        self._before: deque[_Before] = deque(maxlen=kept)
        self._depth: Final = depth
        nodes = 2 * _LEAVES_LEAST + kernels.NODES_PER_INSERT_MAX
        self._nodes = np.zeros((nodes, kernels.NODE_WORDS), dtype=np.int32)
        self._hashes = np.zeros((nodes, 32), dtype=np.uint8)
        self._leaf_keys = np.zeros((_LEAVES_LEAST, 32), dtype=np.uint8)
        self._leaf_values = np.zeros((_LEAVES_LEAST, 32), dtype=np.uint8)
        self._heads = np.zeros(kernels.DEPTH_MAX + 1, dtype=np.int32)
        self._counters = np.zeros(kernels.COUNTERS, dtype=np.int64)
        # Node 0 is the empty subtree.
        self._counters[kernels.NODES] = 1

    def update(self, keys: npt.NDArray[np.uint8], values: npt.NDArray[np.uint8]) -> None:
        """Sets key hashes to value hashes, both uint8[n, 32]; each key may stand once."""
        if not len(keys):
            return
        root, nodes = int(self._counters[kernels.ROOT]), int(self._counters[kernels.NODES])
        # Neighbours in the tree are looked up one after the other while they are cached.
        order = np.argsort(np.ascontiguousarray(keys[:, :8]).view(">u8").ravel())
        keys, values = keys[order], values[order]
        dirty = np.empty(len(keys), dtype=np.int32)
        overwritten = np.empty((len(keys), 32), dtype=np.uint8)
        done = 0
        while True:
            done = kernels.insert(
                keys,
                values,
                done,
                self._depth,
                self._nodes,
                self._heads,
                self._leaf_keys,
                self._leaf_values,
                dirty,
                overwritten,
                self._counters,
            )
            if done == len(keys):
                break
            self._grow()
        limit = nodes if self._before.maxlen else 0
        most = int(self._counters[kernels.MARKED]) + len(dirty) if limit else 0
        changed = np.empty(most, dtype=np.int64)
        before = np.empty((most, 32), dtype=np.uint8)
        count = kernels.rehash(
            self._depth,
            self._nodes,
            self._heads,
            self._hashes,
            self._leaf_keys,
            self._leaf_values,
            dirty,
            self._counters,
            context_key(STATE_LEAF),
            context_key(STATE_NODE),
            MATERIAL,
            limit,
            changed,
            before,
        )
        hashes = _Column(changed[:count].copy(), before[:count].copy())
        self._before.append(_Before(root, nodes, hashes, _Column(dirty, overwritten)))
        self.version += 1

    def root(self, version: int | None = None) -> Subtree:
        """The root of this tree; (EMPTY, zeros) where there is no key.

        Raises LookupError for a version that is not kept.
        """
        undo = self._undo(version)
        node = undo[0].root if undo else int(self._counters[kernels.ROOT])
        if not node:
            return Subtree(Kind.EMPTY, ZERO_DIGEST)
        kind = Kind.LEAF if self._is_leaf(node) else Kind.NODE
        return Subtree(kind, self._hash(node, undo))

    def prove(self, key: bytes, version: int | None = None) -> tuple[bool, AccountProof]:
        """(whether `key` is there; the siblings below this tree's root, and the terminal where it
        is not `key`'s leaf).

        Raises LookupError for a version that is not kept.
        """
        undo = self._undo(version)
        nodes = undo[0].nodes if undo else int(self._counters[kernels.NODES])
        node = undo[0].root if undo else int(self._counters[kernels.ROOT])
        siblings: list[bytes] = []
        depth = self._depth
        while node and not self._is_leaf(node):
            children = [self._standing(child, nodes) for child in self._children(node)]
            side = bit(key, depth)
            siblings.append(self._hash(children[1 - side], undo))
            node, depth = children[side], depth + 1
        if not node:
            return False, pack_proof(siblings, None)
        found = self._leaf_keys[self._nodes[node, kernels.RIGHT]].tobytes()
        if found == key:
            return True, pack_proof(siblings, None)
        other = OtherLeaf(found, self._value(node, undo))
        return False, pack_proof(siblings, other)

    def _undo(self, version: int | None) -> list[_Before]:
        """What the updates since a version overwrote, the oldest first."""
        back = 0 if version is None else self.version - version
        if not 0 <= back <= len(self._before):
            raise LookupError(f"version {version} of the tree is not kept")
        return list(self._before)[len(self._before) - back :]

    def _standing(self, node: int, nodes: int) -> int:
        """What stood in the place of `node` when there were `nodes`; 0: nothing.

        A newer node stands where there was at most one leaf, which went down below it.
        """
        waiting = [node]
        while waiting:
            node = waiting.pop()
            if node < nodes:
                if node:
                    return node
            elif not self._is_leaf(node):
                waiting += self._children(node)
        return 0

    def _is_leaf(self, node: int) -> bool:
        return bool(self._nodes[node, kernels.LEFT] == kernels.LEAF)

    def _children(self, node: int) -> list[int]:
        children: list[int] = self._nodes[node, : kernels.RIGHT + 1].tolist()
        return children

    def _hash(self, node: int, undo: list[_Before]) -> bytes:
        for before in undo:
            if (digest := before.hashes.get(node)) is not None:
                return digest
        return bytes(self._hashes[node])

    def _value(self, leaf: int, undo: list[_Before]) -> bytes:
        for before in undo:
            if (digest := before.values.get(leaf)) is not None:
                return digest
        return bytes(self._leaf_values[self._nodes[leaf, kernels.RIGHT]])

    def _grow(self) -> None:
        """Doubles whichever columns ran out."""
        counters = self._counters
        if counters[kernels.LEAVES] + 1 > len(self._leaf_keys):
            self._leaf_keys = _doubled(self._leaf_keys)
            self._leaf_values = _doubled(self._leaf_values)
        if counters[kernels.NODES] + kernels.NODES_PER_INSERT_MAX > len(self._nodes):
            self._nodes = _doubled(self._nodes)
            self._hashes = _doubled(self._hashes)


def _doubled(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    larger = np.zeros((2 * len(column), *column.shape[1:]), dtype=column.dtype)
    larger[: len(column)] = column
    return larger
