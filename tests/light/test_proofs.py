"""Proofs of accounts, and every way of lying with one that is known."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnet_actors.light import (
    ACCOUNT_PROOF_CODEC,
    Account,
    AccountProof,
    OtherLeaf,
    bit,
    key_hash,
    leaf_hash,
    node_hash,
    value_hash,
    verify_account,
    verify_key,
)
from qnet_actors.state.tree import StateTree
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.hashing import STATE_VALUE, ZERO_DIGEST, hash32


def accounts(count: int, seed: int = 1) -> dict[bytes, Account]:
    rng = random.Random(seed)
    return {
        rng.randbytes(32): Account(rng.randrange(100), rng.randrange(2**60), rng.randbytes(32))
        for _ in range(count)
    }


def tree_of(held: dict[bytes, Account]) -> StateTree:
    tree = StateTree()
    tree.update([(key_hash(a), value_hash(v.nonce, v.balance, v.key_id)) for a, v in held.items()])
    return tree


@pytest.mark.parametrize("count", [0, 1, 2, 3, 50, 300])
def test_proofs_of_inclusion_and_exclusion(count):
    held = accounts(count)
    tree = tree_of(held)
    root = tree.root().hash
    for address, account in list(held.items())[:60]:
        proof = tree.prove(key_hash(address))
        assert ACCOUNT_PROOF_CODEC.decode(encode(proof)) == proof
        assert verify_account(root, address, account, proof)
        assert not verify_account(root, address, Account(account.nonce + 1, 0, ZERO_DIGEST), proof)
        assert not verify_account(root, address, None, proof)
        assert not verify_account(bytes(reversed(root)), address, account, proof)
    for address, account in accounts(60, seed=2).items():
        proof = tree.prove(key_hash(address))
        assert verify_account(root, address, None, proof)
        assert not verify_account(root, address, account, proof)


def test_exclusion_of_a_present_account_cannot_be_forged():
    held = accounts(64)
    tree = tree_of(held)
    root = tree.root().hash
    address = next(iter(held))
    key, real = key_hash(address), tree.prove(key_hash(address))
    account = held[address]
    mine = OtherLeaf(key, value_hash(account.nonce, account.balance, account.key_id))
    strangers = [
        OtherLeaf(key_hash(a), value_hash(v.nonce, v.balance, v.key_id)) for a, v in held.items()
    ]
    # The root claimed as a leaf that rose; siblings left out; the account's own leaf, or a leaf of
    # elsewhere in the tree, in the place of the other one; an empty subtree where there is one.
    forged = [AccountProof((), None), AccountProof(real.siblings, None)]
    forged += [AccountProof(real.siblings[:n], None) for n in range(len(real.siblings))]
    for other in [mine, *strangers, OtherLeaf(root, root)]:
        forged += [AccountProof(real.siblings[:n], other) for n in range(len(real.siblings) + 1)]
        forged.append(AccountProof((*real.siblings, ZERO_DIGEST), other))
    assert not any(verify_account(root, address, None, proof) for proof in forged)


def test_other_leaf_must_share_the_prefix():
    """A leaf of another subtree proves nothing about this one, though its hashes reach the root."""
    held = accounts(64)
    tree = tree_of(held)
    root = tree.root().hash
    addresses = list(held)
    for address in addresses:
        for stranger in addresses[:8]:
            if stranger == address:
                continue
            proof = tree.prove(key_hash(stranger))
            leaf = held[stranger]
            other = OtherLeaf(key_hash(stranger), value_hash(leaf.nonce, leaf.balance, leaf.key_id))
            assert not verify_account(root, address, None, AccountProof(proof.siblings, other))


def test_swapped_siblings_and_other_places_prove_nothing():
    held = accounts(64)
    tree = tree_of(held)
    root = tree.root().hash
    for address, account in list(held.items())[:16]:
        siblings = tree.prove(key_hash(address)).siblings
        assert len(siblings) >= 3
        for i in range(len(siblings)):
            for j in range(i):
                swapped = list(siblings)
                swapped[i], swapped[j] = swapped[j], swapped[i]
                proof = AccountProof(tuple(swapped), None)
                # Two empty subtrees are the same, whichever stands first.
                same = siblings[i] == siblings[j]
                assert verify_account(root, address, account, proof) == same
        reverse = AccountProof(siblings[::-1], None)
        assert not verify_account(root, address, account, reverse)
        short = [AccountProof(siblings[:n], None) for n in range(len(siblings))]
        long = [AccountProof((*siblings, digest), None) for digest in (ZERO_DIGEST, root)]
        assert not any(verify_account(root, address, account, proof) for proof in short + long)


def test_an_inner_node_is_no_leaf():
    """A leaf and a node are hashed under contexts of their own, so neither passes for the other."""
    held = accounts(64)
    tree = tree_of(held)
    root = tree.root().hash
    address = next(iter(held))
    key, siblings = key_hash(address), tree.prove(key_hash(address)).siblings
    account = held[address]
    current = leaf_hash(key, value_hash(account.nonce, account.balance, account.key_id))
    for depth in range(len(siblings) - 1, -1, -1):
        pair = (siblings[depth], current)
        left, right = pair if bit(key, depth) else pair[::-1]
        current = node_hash(left, right)
        # Left and right of the node, claimed as the key and the value of a lone leaf there.
        proof = AccountProof(siblings[:depth], OtherLeaf(left, right))
        assert not verify_account(root, address, None, proof)
        assert not verify_key(root, left, right, AccountProof(siblings[:depth], None))
    assert current == root


def test_an_inclusion_proof_has_no_other_leaf():
    held = accounts(8)
    tree = tree_of(held)
    address, account = next(iter(held.items()))
    siblings = tree.prove(key_hash(address)).siblings
    other = OtherLeaf(b"\x01" * 32, b"\x02" * 32)
    root = tree.root().hash
    assert verify_account(root, address, account, AccountProof(siblings, None))
    assert not verify_account(root, address, account, AccountProof(siblings, other))


def test_paths_are_bounded():
    address = b"\x05" * 32
    assert not verify_account(ZERO_DIGEST, address, None, AccountProof((ZERO_DIGEST,) * 257, None))
    encoded = encode(AccountProof((ZERO_DIGEST,) * 257, None))
    with pytest.raises(QnetError) as refused:
        ACCOUNT_PROOF_CODEC.decode(encoded)
    assert refused.value.code is Code.MALFORMED


@given(st.data())
def test_one_byte_of_a_proof_decides(data):
    held = accounts(20)
    tree = tree_of(held)
    root = tree.root().hash
    address = data.draw(st.sampled_from([*held, b"\x07" * 32, b"\xf7" * 32]))
    account = held.get(address)
    encoded = bytearray(encode(tree.prove(key_hash(address))))
    place = data.draw(st.integers(0, len(encoded) - 1))
    encoded[place] ^= data.draw(st.integers(1, 255))
    try:
        proof = ACCOUNT_PROOF_CODEC.decode(bytes(encoded))
    except QnetError:
        return
    assert not verify_account(root, address, account, proof)


def test_a_proof_has_one_encoding():
    proof = AccountProof((b"\x01" * 32,), None)
    encoded = encode(proof)
    # The same array, with its length in three bytes in place of one.
    longer = b"\xdc\x00\x02" + encoded[1:]
    with pytest.raises(QnetError) as refused:
        ACCOUNT_PROOF_CODEC.decode(longer)
    assert refused.value.code is Code.NON_CANONICAL


def test_value_hash_is_of_the_canonical_account():
    account = Account(7, 2**63, bytes(range(32)))
    assert value_hash(7, 2**63, bytes(range(32))) == hash32(STATE_VALUE, encode(account))
