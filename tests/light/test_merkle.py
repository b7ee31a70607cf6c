"""Paths in a block's Merkle trees, against `merkle_root`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnet_actors.light import MerkleProof, merkle_proof, verify_leaf
from qnet_actors.wire.hashing import (
    RECEIPTS_LEAF,
    TRANSACTIONS_LEAF,
    TRANSACTIONS_NODE,
    hash32,
    merkle_root,
)

CONTEXTS = (TRANSACTIONS_LEAF, TRANSACTIONS_NODE)


def leaves(count: int) -> list[bytes]:
    return [hash32(TRANSACTIONS_LEAF, n.to_bytes(4, "big")) for n in range(count)]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 9, 31, 33])
def test_every_leaf_at_its_own_place_only(count):
    held = leaves(count)
    root = merkle_root(*CONTEXTS, held)
    for index, leaf in enumerate(held):
        proof = merkle_proof(*CONTEXTS, held, index)
        assert verify_leaf(*CONTEXTS, root, count, leaf, proof)
        for elsewhere in range(count + 2):
            moved = MerkleProof(elsewhere, proof.siblings)
            assert verify_leaf(*CONTEXTS, root, count, leaf, moved) == (elsewhere == index)
        assert not verify_leaf(*CONTEXTS, root, count, bytes(32), proof)
        assert not verify_leaf(RECEIPTS_LEAF, TRANSACTIONS_NODE, root, count, leaf, proof)


@given(st.integers(1, 40), st.data())
def test_paths_of_another_length_prove_nothing(count, data):
    held = leaves(count)
    root = merkle_root(*CONTEXTS, held)
    index = data.draw(st.integers(0, count - 1))
    proof = merkle_proof(*CONTEXTS, held, index)
    longer = MerkleProof(index, (*proof.siblings, root))
    assert not verify_leaf(*CONTEXTS, root, count, held[index], longer)
    for n in range(len(proof.siblings)):
        shorter = MerkleProof(index, proof.siblings[:n])
        assert not verify_leaf(*CONTEXTS, root, count, held[index], shorter)


def test_an_inner_node_is_no_leaf():
    held = leaves(4)
    root = merkle_root(*CONTEXTS, held)
    hashed = [hash32(TRANSACTIONS_LEAF, leaf) for leaf in held]
    right = hash32(TRANSACTIONS_NODE, hashed[2], hashed[3])
    # The left inner node's two children, as a leaf of a tree of two.
    assert not verify_leaf(*CONTEXTS, root, 2, hashed[0] + hashed[1], MerkleProof(0, (right,)))


def test_the_count_is_that_of_the_header():
    held = leaves(5)
    root = merkle_root(*CONTEXTS, held)
    proof = merkle_proof(*CONTEXTS, held, 4)
    # The fifth leaf stands alone and has one sibling, as the second of two would.
    assert len(proof.siblings) == 1
    assert verify_leaf(*CONTEXTS, root, 5, held[4], proof)
    assert not verify_leaf(*CONTEXTS, root, 4, held[4], proof)
    assert not verify_leaf(*CONTEXTS, root, 0, held[4], MerkleProof(0, ()))


def test_no_leaf_outside():
    for index in (-1, 3):
        with pytest.raises(IndexError):
            merkle_proof(*CONTEXTS, leaves(3), index)
