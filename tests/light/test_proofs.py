"""Proofs of accounts, and every way of lying with one that is known."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from qnet_actors.light import (
    ACCOUNT_PROOF_CODEC,
    Account,
    AccountProof,
    OtherLeaf,
    bit,
    key_hash,
    leaf_hash,
    node_hash,
    pack_proof,
    proof_siblings,
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
    key, real = key_hash(address), proof_siblings(tree.prove(key_hash(address)))
    account = held[address]
    mine = OtherLeaf(key, value_hash(account.nonce, account.balance, account.key_id))
    strangers = [
        OtherLeaf(key_hash(a), value_hash(v.nonce, v.balance, v.key_id)) for a, v in held.items()
    ]
    # The root claimed as a leaf that rose; siblings left out; the account's own leaf, or a leaf of
    # elsewhere in the tree, in the place of the other one; an empty subtree where there is one.
    forged = [pack_proof((), None), pack_proof(real, None)]
    forged += [pack_proof(real[:n], None) for n in range(len(real))]
    for other in [mine, *strangers, OtherLeaf(root, root)]:
        forged += [pack_proof(real[:n], other) for n in range(len(real) + 1)]
        forged.append(pack_proof((*real, ZERO_DIGEST), other))
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
            assert not verify_account(root, address, None, replace(proof, other=other))


def test_swapped_siblings_and_other_places_prove_nothing():
    held = accounts(64)
    tree = tree_of(held)
    root = tree.root().hash
    for address, account in list(held.items())[:16]:
        siblings = proof_siblings(tree.prove(key_hash(address)))
        assert len(siblings) >= 3
        for i in range(len(siblings)):
            for j in range(i):
                swapped = list(siblings)
                swapped[i], swapped[j] = swapped[j], swapped[i]
                proof = pack_proof(swapped, None)
                # Two empty subtrees are the same, whichever stands first.
                same = siblings[i] == siblings[j]
                assert verify_account(root, address, account, proof) == same
        reverse = pack_proof(siblings[::-1], None)
        assert not verify_account(root, address, account, reverse)
        short = [pack_proof(siblings[:n], None) for n in range(len(siblings))]
        long = [pack_proof((*siblings, digest), None) for digest in (ZERO_DIGEST, root)]
        assert not any(verify_account(root, address, account, proof) for proof in short + long)


def test_an_inner_node_is_no_leaf():
    """A leaf and a node are hashed under contexts of their own, so neither passes for the other."""
    held = accounts(64)
    tree = tree_of(held)
    root = tree.root().hash
    address = next(iter(held))
    key, siblings = key_hash(address), proof_siblings(tree.prove(key_hash(address)))
    account = held[address]
    current = leaf_hash(key, value_hash(account.nonce, account.balance, account.key_id))
    for depth in range(len(siblings) - 1, -1, -1):
        pair = (siblings[depth], current)
        left, right = pair if bit(key, depth) else pair[::-1]
        current = node_hash(left, right)
        # Left and right of the node, claimed as the key and the value of a lone leaf there.
        proof = pack_proof(siblings[:depth], OtherLeaf(left, right))
        assert not verify_account(root, address, None, proof)
        assert not verify_key(root, left, right, pack_proof(siblings[:depth], None))
    assert current == root


def test_an_inclusion_proof_has_no_other_leaf():
    held = accounts(8)
    tree = tree_of(held)
    address, account = next(iter(held.items()))
    siblings = proof_siblings(tree.prove(key_hash(address)))
    other = OtherLeaf(b"\x01" * 32, b"\x02" * 32)
    root = tree.root().hash
    assert verify_account(root, address, account, pack_proof(siblings, None))
    assert not verify_account(root, address, account, pack_proof(siblings, other))


def test_empty_siblings_are_bits():
    # Two keys that share their first 40 bits stand on 39 empty siblings, and a leaf each.
    one, two = bytes(32), bytes(5) + b"\x80" + bytes(26)
    stranger = b"\x80" + bytes(31)
    values = {key: bytes([i]) * 32 for i, key in enumerate((one, two, stranger), 1)}
    tree = StateTree()
    tree.update(list(values.items()))
    proof = tree.prove(one)
    assert proof.siblings == (leaf_hash(stranger, values[stranger]), leaf_hash(two, values[two]))
    assert proof.empty == bytes((0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0))
    assert len(encode(proof)) == 79
    siblings = proof_siblings(proof)
    assert siblings == [proof.siblings[0], *[ZERO_DIGEST] * 39, proof.siblings[1]]
    assert pack_proof(siblings, None) == proof
    assert verify_key(tree.root().hash, one, values[one], proof)
    beside = b"\x40" + bytes(31)
    assert proof_siblings(tree.prove(beside))[:1] == siblings[:1]
    assert verify_key(tree.root().hash, beside, None, tree.prove(beside))


def deep() -> tuple[StateTree, dict[bytes, bytes]]:
    """Keys of which some share 9 bits, so that their paths have empty siblings in the middle."""
    rng = random.Random(5)
    keys = [rng.randbytes(32) for _ in range(12)]
    keys += [key[:1] + bytes((key[1] ^ 0x40,)) + rng.randbytes(30) for key in keys[:6]]
    values = {key: rng.randbytes(32) for key in keys}
    tree = StateTree()
    tree.update(list(values.items()))
    return tree, values


def test_no_bit_can_be_added_moved_or_left_out():
    tree, values = deep()
    root = tree.root().hash
    asked: list[tuple[bytes, bytes | None]] = [*values.items()]
    asked += [(key[:31] + bytes((key[31] ^ 1,)), None) for key in list(values)[:6]]
    middles = 0
    for key, value in asked:
        proof = tree.prove(key)
        assert verify_key(root, key, value, proof)
        middles += any(proof.empty)
        bits = int.from_bytes(proof.empty)
        width = 8 * len(proof.empty)
        forged = [(bits ^ 1 << i).to_bytes(width // 8) for i in range(width)]
        # Each empty sibling said to be somewhere else, or more or fewer bytes of bits.
        ones = [i for i in range(width) if bits >> i & 1]
        others = [i for i in range(width) if not bits >> i & 1]
        forged += [(bits ^ 1 << i ^ 1 << j).to_bytes(width // 8) for i in ones for j in others]
        forged += [b"", proof.empty[:-1], proof.empty + b"\0", b"\0" + proof.empty, b"\xff" * 32]
        for empty in forged:
            if empty != proof.empty:
                assert not verify_key(root, key, value, replace(proof, empty=empty))
                assert not verify_key(root, key, None, replace(proof, empty=empty))
    assert middles >= 12


def test_siblings_cannot_be_left_out_added_or_spelt_out_as_empty():
    tree, values = deep()
    root = tree.root().hash
    for key, value in values.items():
        proof = tree.prove(key)
        full = proof.siblings
        forged = [(*full[:n], *full[n + 1 :]) for n in range(len(full))]
        forged += [(*full[:n], b"\1" * 32, *full[n:]) for n in range(len(full) + 1)]
        for siblings in forged:
            assert not verify_key(root, key, value, replace(proof, siblings=siblings))
        # The same path with an empty sibling as 32 zero bytes is another proof: refused.
        path = proof_siblings(proof)
        spelt = AccountProof(bytes(len(proof.empty)), tuple(path), None)
        if ZERO_DIGEST not in path:
            assert spelt == proof
            continue
        with pytest.raises(QnetError) as refused:
            proof_siblings(spelt)
        assert refused.value.code is Code.BAD_PROOF
        assert not verify_key(root, key, value, spelt)


@pytest.mark.parametrize(
    ("empty", "count"),
    [
        (b"", 1),
        (b"\0\0", 1),
        (b"\0", 0),
        (b"\0", 9),
        # A bit at the end, behind it, and one that makes room for itself.
        (b"\x40", 1),
        (b"\x80", 0),
        (b"\x01", 1),
        (b"\x20", 2),
        (b"\xff", 1),
        (b"\xff" * 32, 1),
        (b"\xff" * 32, 0),
    ],
)
def test_bits_fit_the_path_or_are_refused(empty, count):
    with pytest.raises(QnetError) as refused:
        proof_siblings(AccountProof(empty, (b"\1" * 32,) * count, None))
    assert refused.value.code is Code.BAD_PROOF


@given(st.lists(st.sampled_from([ZERO_DIGEST, b"\1" * 32, b"\2" * 32]), max_size=255))
def test_siblings_survive_packing(siblings):
    siblings = [*siblings, b"\3" * 32]
    proof = pack_proof(siblings, None)
    assert proof_siblings(ACCOUNT_PROOF_CODEC.decode(encode(proof))) == siblings


@given(st.binary(max_size=33), st.lists(st.sampled_from([b"\1" * 32]), max_size=256))
def test_a_path_has_one_proof(empty, siblings):
    proof = AccountProof(empty, tuple(siblings), None)
    try:
        path = proof_siblings(proof)
    except QnetError:
        return
    assert pack_proof(path, None) == proof


def test_paths_are_bounded():
    address = b"\x05" * 32
    for proof, code in (
        (AccountProof(bytes(32), (b"\1" * 32,) * 257, None), Code.MALFORMED),
        (AccountProof(bytes(33), (b"\1" * 32,), None), Code.MALFORMED),
    ):
        assert not verify_account(ZERO_DIGEST, address, None, proof)
        with pytest.raises(QnetError) as refused:
            ACCOUNT_PROOF_CODEC.decode(encode(proof))
        assert refused.value.code is code


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
    proof = pack_proof([b"\x01" * 32], None)
    encoded = encode(proof)
    # The same array, with its length in three bytes in place of one.
    longer = b"\xdc\x00\x03" + encoded[1:]
    with pytest.raises(QnetError) as refused:
        ACCOUNT_PROOF_CODEC.decode(longer)
    assert refused.value.code is Code.NON_CANONICAL


def test_value_hash_is_of_the_canonical_account():
    account = Account(7, 2**63, bytes(range(32)))
    assert value_hash(7, 2**63, bytes(range(32))) == hash32(STATE_VALUE, encode(account))
