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

    A node is used again only once no tree that is kept has it, so an inner node stays one and a
    leaf keeps its key for as long as anybody looks.  The tree before an update is made of its root,
    with these children, hashes and values where they differ from those of now.
    """

    __slots__ = ("hashes", "links", "root", "taken", "values")

    def __init__(
        self,
        root: int,
        hashes: _Column,
        values: _Column,
        links: _Column,
        taken: npt.NDArray[np.int32],
    ) -> None:
        self.root = root
        self.hashes = hashes
        """Of the nodes that were hashed anew."""
        self.values = values
        """Of the leaves that were set, by their nodes."""
        self.links = links
        """Left and right of the nodes that got another child."""
        self.taken = taken
        """The nodes that were taken out."""


class _Column:
    """Rows by node, the first where there are several; sorted when one is asked for, since most
    never are."""

    __slots__ = ("_nodes", "_rows", "_sorted")

    def __init__(self, nodes: npt.NDArray[Any], rows: npt.NDArray[Any]) -> None:
        self._nodes = nodes
        self._rows = rows
        self._sorted = False

    def get(self, node: int) -> npt.NDArray[Any] | None:
        if not self._sorted:
            order = np.argsort(self._nodes, kind="stable")
            self._nodes, self._rows = self._nodes[order], self._rows[order]
            self._sorted = True
        place = int(np.searchsorted(self._nodes, node))
        if place < len(self._nodes) and self._nodes[place] == node:
            row: npt.NDArray[Any] = self._rows[place]
            return row
        return None


class FastTree:
    """A compact sparse Merkle tree over keys that share their first `depth` bits.

    About 1.4 inner nodes a key; 48 bytes a node, 64 a key more.  The trees before the last `kept`
    updates can still be proved from; each costs what the update after it overwrote, and the nodes
    that it took out, which are free for use again after that.
    """

    def __init__(self, depth: int = 0, kept: int = 0) -> None:
        self.version = 0
        """How many updates there were."""
        self._kept: Final = kept
        self._before: deque[_Before] = deque()
        self._depth: Final = depth
        nodes = 2 * _LEAVES_LEAST + kernels.NODES_PER_KEY_MAX
        self._nodes = np.zeros((nodes, kernels.NODE_WORDS), dtype=np.int32)
        self._hashes = np.zeros((nodes, 32), dtype=np.uint8)
        self._leaf_keys = np.zeros((_LEAVES_LEAST, 32), dtype=np.uint8)
        self._leaf_values = np.zeros((_LEAVES_LEAST, 32), dtype=np.uint8)
        self._heads = np.zeros(kernels.DEPTH_MAX + 1, dtype=np.int32)
        self._counters = np.zeros(kernels.COUNTERS, dtype=np.int64)
        # Node 0 is the empty subtree.
        self._counters[kernels.NODES] = 1

    @property
    def nodes(self) -> int:
        """How many were ever made: those in the tree, and those that wait to be used again."""
        return int(self._counters[kernels.NODES]) - 1

    def update(self, keys: npt.NDArray[np.uint8], values: npt.NDArray[np.uint8]) -> None:
        """Sets key hashes to value hashes, both uint8[n, 32]; each key may stand once.

        A value of zeros takes the key out.
        """
        if not len(keys):
            return
        counters = self._counters
        root, nodes = int(counters[kernels.ROOT]), int(counters[kernels.NODES])
        # Neighbours in the tree are looked up one after the other while they are cached.
        order = np.argsort(np.ascontiguousarray(keys[:, :8]).view(">u8").ravel())
        keys, values = keys[order], values[order]
        dirty = np.empty(len(keys), dtype=np.int32)
        overwritten = np.empty((len(keys), 32), dtype=np.uint8)
        links = np.empty((len(keys), 3), dtype=np.int32)
        taken = np.empty(kernels.NODES_PER_KEY_MAX, dtype=np.int32)
        done = 0
        while True:
            done = kernels.change(
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
                links,
                taken,
                counters,
            )
            if done == len(keys):
                break
            if counters[kernels.TAKEN] + kernels.NODES_PER_KEY_MAX > len(taken):
                taken = _doubled(taken)
            self._grow()
        leaves = int(counters[kernels.DIRTY_LEAVES])
        limit = nodes if self._kept else 0
        most = int(counters[kernels.MARKED]) + leaves if limit else 0
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
            counters,
            context_key(STATE_LEAF),
            context_key(STATE_NODE),
            MATERIAL,
            limit,
            changed,
            before,
        )
        links = links[: counters[kernels.LINKS]].copy()
        taken = taken[: counters[kernels.TAKEN]].copy()
        counters[kernels.LINKS] = counters[kernels.TAKEN] = 0
        self._before.append(
            _Before(
                root,
                _Column(changed[:count].copy(), before[:count].copy()),
                _Column(dirty[:leaves], overwritten[:leaves]),
                _Column(links[:, 0], links[:, 1:]),
                taken,
            )
        )
        if len(self._before) > self._kept:
            # No tree that is kept has what this update took out.
            kernels.give_back(self._nodes, self._before.popleft().taken, counters)
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
        node = undo[0].root if undo else int(self._counters[kernels.ROOT])
        siblings: list[bytes] = []
        depth = self._depth
        while node and not self._is_leaf(node):
            children = self._children(node, undo)
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

    def _is_leaf(self, node: int) -> bool:
        return bool(self._nodes[node, kernels.LEFT] == kernels.LEAF)

    def _children(self, node: int, undo: list[_Before]) -> list[int]:
        children = self._nodes[node, : kernels.RIGHT + 1]
        for before in undo:
            if (row := before.links.get(node)) is not None:
                children = row
                break
        pair: list[int] = children.tolist()
        return pair

    def _hash(self, node: int, undo: list[_Before]) -> bytes:
        for before in undo:
            if (digest := before.hashes.get(node)) is not None:
                return bytes(digest)
        return bytes(self._hashes[node])

    def _value(self, leaf: int, undo: list[_Before]) -> bytes:
        for before in undo:
            if (digest := before.values.get(leaf)) is not None:
                return bytes(digest)
        return bytes(self._leaf_values[self._nodes[leaf, kernels.RIGHT]])

    def _grow(self) -> None:
        """Doubles whichever columns ran out."""
        counters = self._counters
        if counters[kernels.LEAVES] + 1 > len(self._leaf_keys):
            self._leaf_keys = _doubled(self._leaf_keys)
            self._leaf_values = _doubled(self._leaf_values)
        if counters[kernels.NODES] + kernels.NODES_PER_KEY_MAX > len(self._nodes):
            self._nodes = _doubled(self._nodes)
            self._hashes = _doubled(self._hashes)


def _doubled(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    larger = np.zeros((2 * len(column), *column.shape[1:]), dtype=column.dtype)
    larger[: len(column)] = column
    return larger
