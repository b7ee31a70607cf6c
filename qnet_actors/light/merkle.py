"""Proofs that a transaction or a receipt stands in a block: paths in its Merkle trees.

The trees are those of `wire.hashing.merkle_root`, in the shape of RFC 6962 section 2.1.  The number
of leaves is in the block's header, so a path has one length and no other: there is no second proof
of the same leaf, and none of a leaf that is not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from qnet_actors.wire.codec import U32, Digest, Struct
from qnet_actors.wire.hashing import hash32

PATH_MAX: Final = 32


class MerkleProof(Struct, frozen=True):
    """The place of a leaf and the siblings of its path (RFC 6962 section 2.1.1)."""

    index: U32
    siblings: Annotated[tuple[Digest, ...], msgspec.Meta(max_length=PATH_MAX)]
    """From the leaf up; a node without a sibling rises and has none here."""


def merkle_proof(
    leaf_context: str, node_context: str, leaves: Sequence[bytes], index: int
) -> MerkleProof:
    """The proof of `leaves[index]`; hashes the whole tree.  Raises IndexError."""
    if not 0 <= index < len(leaves):
        raise IndexError(f"leaf {index} of {len(leaves)}")
    level = [hash32(leaf_context, leaf) for leaf in leaves]
    siblings: list[bytes] = []
    at = index
    while len(level) > 1:
        if at ^ 1 < len(level):
            siblings.append(level[at ^ 1])
        above = [hash32(node_context, a, b) for a, b in zip(level[::2], level[1::2], strict=False)]
        if len(level) % 2:
            above.append(level[-1])
        level = above
        at >>= 1
    return MerkleProof(index, tuple(siblings))


def verify_leaf(
    leaf_context: str, node_context: str, root: bytes, count: int, leaf: bytes, proof: MerkleProof
) -> bool:
    """Whether `leaf` stands at `proof.index` among the `count` leaves under `root`."""
    at, width = proof.index, count
    if not 0 <= at < count:
        return False
    current = hash32(leaf_context, leaf)
    siblings = iter(proof.siblings)
    while width > 1:
        if at ^ 1 < width:
            sibling = next(siblings, None)
            if sibling is None:
                return False
            pair = (sibling, current) if at & 1 else (current, sibling)
            current = hash32(node_context, *pair)
        at >>= 1
        width = (width + 1) // 2
    return next(siblings, None) is None and current == root
