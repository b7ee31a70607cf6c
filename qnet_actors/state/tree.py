"""The state tree in plain Python: the specification, and the oracle of any faster one."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from qnet_actors.light import AccountProof, OtherLeaf, bit, leaf_hash, node_hash, pack_proof
from qnet_actors.wire.hashing import ZERO_DIGEST


class Kind(IntEnum):
    """What a subtree is; it decides how the subtree combines with its sibling."""

    EMPTY = 0
    LEAF = 1
    NODE = 2


class Subtree(NamedTuple):
    """The root of a subtree as whoever combines subtrees needs it."""

    kind: Kind
    hash: bytes


class Leaf:
    """A key of the tree; it stands as high as it is alone."""

    __slots__ = ("hash", "key", "value")

    def __init__(self, key: bytes, value: bytes) -> None:
        self.key = key
        self.value = value
        self.hash = leaf_hash(key, value)


class Inner:
    """A subtree with two leaves or more."""

    __slots__ = ("hash", "left", "right")

    def __init__(self, left: Node, right: Node) -> None:
        self.left = left
        self.right = right
        self.hash = ZERO_DIGEST

    def rehash(self) -> None:
        self.hash = node_hash(
            self.left.hash if self.left is not None else ZERO_DIGEST,
            self.right.hash if self.right is not None else ZERO_DIGEST,
        )


Node = Leaf | Inner | None


def combine(left: Subtree, right: Subtree) -> Subtree:
    """The subtree above two: a lone leaf rises, anything else is hashed."""
    if left.kind == Kind.EMPTY and right.kind != Kind.NODE:
        return right
    if right.kind == Kind.EMPTY and left.kind == Kind.LEAF:
        return left
    return Subtree(Kind.NODE, node_hash(left.hash, right.hash))


class StateTree:
    """A compact sparse Merkle tree over keys that share their first `depth` bits.

    No action of the ledger takes an account out; the tree can.
    """

    def __init__(self, depth: int = 0) -> None:
        self.depth = depth
        self._root: Node = None

    def update(self, items: Sequence[tuple[bytes, bytes]]) -> None:
        """Sets (key hash, value hash) pairs, of which each key may stand once, in any order.

        A value of zeros, which is no hash of anything, takes the key out.
        """
        self._root = _update(self._root, self.depth, sorted(items))

    def root(self) -> Subtree:
        """The root of this tree; (EMPTY, zeros) where there is no key."""
        return _subtree(self._root)

    def prove(self, key: bytes) -> AccountProof:
        """The siblings below this tree's root, and the terminal where it is not `key`'s leaf."""
        siblings: list[bytes] = []
        node, depth = self._root, self.depth
        while isinstance(node, Inner):
            side, away = (node.right, node.left) if bit(key, depth) else (node.left, node.right)
            siblings.append(away.hash if away is not None else ZERO_DIGEST)
            node, depth = side, depth + 1
        other = None
        if node is not None and node.key != key:
            other = OtherLeaf(node.key, node.value)
        return pack_proof(siblings, other)


def _subtree(node: Node) -> Subtree:
    if node is None:
        return Subtree(Kind.EMPTY, ZERO_DIGEST)
    return Subtree(Kind.LEAF if isinstance(node, Leaf) else Kind.NODE, node.hash)


def _update(node: Node, depth: int, items: list[tuple[bytes, bytes]]) -> Node:
    """The subtree after `items`, sorted; the keys of one call share `depth` bits."""
    if not items:
        return node
    if len(items) == 1:
        key, value = items[0]
        if value == ZERO_DIGEST:
            return _remove(node, depth, key)
        return _insert(node, depth, key, value)
    if not isinstance(node, Inner):
        held = [] if node is None or any(key == node.key for key, _ in items) else [node]
        below = Inner(None, None)
        for leaf in held:
            _place(below, depth, leaf)
        node = below
    middle = _middle(items, depth)
    node.left = _update(node.left, depth + 1, items[:middle])
    node.right = _update(node.right, depth + 1, items[middle:])
    return _settled(node)


def _settled(node: Inner) -> Node:
    """What stands in the place of a node whose sides have changed: a lone leaf rises."""
    for side, away in ((node.left, node.right), (node.right, node.left)):
        if side is None and not isinstance(away, Inner):
            return away
    node.rehash()
    return node


def _place(node: Inner, depth: int, leaf: Leaf) -> None:
    if bit(leaf.key, depth):
        node.right = leaf
    else:
        node.left = leaf


def _middle(items: list[tuple[bytes, bytes]], depth: int) -> int:
    """The index of the first key that goes right at `depth`."""
    low, high = 0, len(items)
    byte, shift = depth >> 3, 7 - (depth & 7)
    while low < high:
        middle = (low + high) // 2
        if items[middle][0][byte] >> shift & 1:
            high = middle
        else:
            low = middle + 1
    return low


def _insert(node: Node, depth: int, key: bytes, value: bytes) -> Node:
    """The subtree after setting one key: down to its place, then up again with the hashes."""
    path: list[tuple[Inner, int]] = []
    while isinstance(node, Inner):
        side = key[depth >> 3] >> (7 - (depth & 7)) & 1
        path.append((node, side))
        node = node.right if side else node.left
        depth += 1
    leaf = Leaf(key, value)
    below: Node = leaf if node is None or node.key == key else _split(node, leaf, depth)
    for inner, side in reversed(path):
        if side:
            inner.right = below
        else:
            inner.left = below
        left, right = inner.left, inner.right
        inner.hash = node_hash(
            left.hash if left is not None else ZERO_DIGEST,
            right.hash if right is not None else ZERO_DIGEST,
        )
        below = inner
    return below


def _remove(node: Node, depth: int, key: bytes) -> Node:
    """The subtree without one key."""
    if not isinstance(node, Inner):
        return None if node is not None and node.key == key else node
    if bit(key, depth):
        node.right = _remove(node.right, depth + 1, key)
    else:
        node.left = _remove(node.left, depth + 1, key)
    return _settled(node)


def _split(one: Leaf, other: Leaf, depth: int) -> Inner:
    """The subtree of two leaves whose keys share `depth` bits or more."""
    fork = depth
    while bit(one.key, fork) == bit(other.key, fork):
        fork += 1
    node = Inner(other, one) if bit(one.key, fork) else Inner(one, other)
    node.rehash()
    for level in range(fork - 1, depth - 1, -1):
        node = Inner(None, node) if bit(one.key, level) else Inner(node, None)
        node.rehash()
    return node
