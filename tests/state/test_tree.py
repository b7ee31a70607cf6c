"""The tree against its definition, and its proofs against forgery."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnet_actors.state.proofs import (
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
)
from qnet_actors.state.tree import Kind, StateTree, Subtree, combine
from qnet_actors.wire.codec import encode
from qnet_actors.wire.hashing import STATE_VALUE, ZERO_DIGEST, hash32


def by_definition(items: list[tuple[bytes, bytes]], depth: int = 0) -> Subtree:
    """The root as the design defines it, from all items at once."""
    if not items:
        return Subtree(Kind.EMPTY, ZERO_DIGEST)
    if len(items) == 1:
        return Subtree(Kind.LEAF, leaf_hash(*items[0]))
    sides = [[item for item in items if bit(item[0], depth) == side] for side in (0, 1)]
    left, right = (by_definition(side, depth + 1) for side in sides)
    return Subtree(Kind.NODE, node_hash(left.hash, right.hash))


# Keys that share long prefixes, as someone who grinds addresses could make them.
prefixed = st.builds(
    lambda prefix, tail: (bytes(prefix) + tail)[:32].ljust(32, b"\x5a"),
    st.lists(st.sampled_from([0, 0x80, 0xFF]), min_size=1, max_size=31),
    st.binary(max_size=31),
)
keys = st.one_of(st.binary(min_size=32, max_size=32), prefixed)
values = st.binary(min_size=32, max_size=32)
batches = st.lists(st.dictionaries(keys, values, max_size=12), max_size=6)


@settings(max_examples=150, deadline=None)
@given(batches)
def test_batched_updates_equal_the_definition(batches):
    tree, held = StateTree(), {}
    for batch in batches:
        tree.update(list(batch.items()))
        held.update(batch)
        assert tree.root() == by_definition(sorted(held.items()))


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(keys, values, max_size=40), st.integers(1, 4))
def test_partitions_combine_to_the_same_root(items, depth):
    parts = []
    for index in range(1 << depth):
        tree = StateTree(depth)
        tree.update([i for i in items.items() if i[0][0] >> (8 - depth) == index])
        parts.append(tree.root())
    while len(parts) > 1:
        parts = [combine(parts[i], parts[i + 1]) for i in range(0, len(parts), 2)]
    assert parts[0] == by_definition(sorted(items.items()))


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


def test_value_hash_is_of_the_canonical_account():
    account = Account(7, 2**63, bytes(range(32)))
    assert value_hash(7, 2**63, bytes(range(32))) == hash32(STATE_VALUE, encode(account))
