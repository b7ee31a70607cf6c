"""From the roots of the partitions to the root of the whole, and proofs through both."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qnet_actors.light import AccountProof, OtherLeaf, bit, pack_proof, proof_siblings
from qnet_actors.state.tree import Kind, Subtree, combine


def levels_of(roots: Sequence[Subtree]) -> list[list[Subtree]]:
    """The combined roots from the whole state (one) down to the partitions, a power of two."""
    levels = [list(roots)]
    while len(levels[0]) > 1:
        below = levels[0]
        levels.insert(0, [combine(below[i], below[i + 1]) for i in range(0, len(below), 2)])
    return levels


def prove_through(
    key: bytes, roots: Sequence[Subtree], prove: Callable[[int], AccountProof]
) -> tuple[bytes, AccountProof]:
    """(root of the whole, proof of a key hash through the combined roots and one partition).

    `prove` gives the proof of the key within a partition, by its number.
    """
    levels = levels_of(roots)
    bottom = len(levels) - 1
    siblings: list[bytes] = []
    depth = index = 0
    while levels[depth][index].kind == Kind.NODE and depth < bottom:
        index = 2 * index + bit(key, depth)
        depth += 1
        siblings.append(levels[depth][index ^ 1].hash)
    found = levels[depth][index]
    other: OtherLeaf | None = None
    if found.kind == Kind.NODE:
        below = prove(index)
        siblings.extend(proof_siblings(below))
        other = below.other
    elif found.kind == Kind.LEAF:
        # The leaf rose: it is the only one of the partitions below this point.
        while depth < bottom:
            index = 2 * index + (levels[depth + 1][2 * index].kind == Kind.EMPTY)
            depth += 1
        other = prove(index).other
    return levels[0][0].hash, pack_proof(siblings, other)
