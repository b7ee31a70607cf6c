"""Hashes of the state tree, proofs that an account is or is not in it, and their verifier.

The tree is a sparse Merkle tree over the hash of the address, most significant bit first, made
compact: an empty subtree is 32 zero bytes, and a subtree with a single leaf is that leaf's hash.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from qnet_actors.wire.codec import Codec, Digest, Struct, Unsigned, encode
from qnet_actors.wire.hashing import (
    STATE_KEY,
    STATE_LEAF,
    STATE_NODE,
    STATE_VALUE,
    ZERO_DIGEST,
    hasher,
)

DEPTH_MAX: Final = 256

_key = hasher(STATE_KEY)
_value = hasher(STATE_VALUE)
_leaf = hasher(STATE_LEAF)
_node = hasher(STATE_NODE)


class Account(Struct, frozen=True):
    """What the state holds of an account; its canonical bytes are hashed into the tree."""

    nonce: Unsigned
    balance: Unsigned
    key_id: Digest
    """Zeros: the account has no key yet."""


class OtherLeaf(Struct, frozen=True):
    """The leaf that stands where a proved-absent account would."""

    key_hash: Digest
    value_hash: Digest


class AccountProof(Struct, frozen=True):
    """The siblings on the way from the root to a terminal, and that terminal.

    An inclusion proof has no `other`: the verifier computes the leaf.  An exclusion proof has the
    lone leaf of the subtree that the account would be in, or None where that subtree is empty.
    """

    siblings: Annotated[tuple[Digest, ...], msgspec.Meta(max_length=DEPTH_MAX)]
    """From the root down."""
    other: OtherLeaf | None


ACCOUNT_PROOF_CODEC: Final = Codec[AccountProof](AccountProof, 16 * 1024)


def key_hash(address: bytes) -> bytes:
    """Where in the tree an address stands."""
    state = _key.copy()
    state.update(address)
    return state.digest()


def value_hash(nonce: int, balance: int, key_id: bytes) -> bytes:
    """The hash of an account's canonical bytes."""
    state = _value.copy()
    state.update(encode((nonce, balance, key_id)))
    return state.digest()


def leaf_hash(key: bytes, value: bytes) -> bytes:
    """The hash of a leaf from its two hashes."""
    state = _leaf.copy()
    state.update(key + value)
    return state.digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node from its two subtrees."""
    state = _node.copy()
    state.update(left + right)
    return state.digest()


def bit(key: bytes, depth: int) -> int:
    """The bit of a key hash that decides the side below a node at `depth`."""
    return key[depth >> 3] >> (7 - (depth & 7)) & 1


def verify_account(
    root: bytes, address: bytes, account: Account | None, proof: AccountProof
) -> bool:
    """Whether `proof` shows that under `root` the account is `account` (None: it is not there)."""
    value = None
    if account is not None:
        value = value_hash(account.nonce, account.balance, account.key_id)
    return verify_key(root, key_hash(address), value, proof)


def verify_key(root: bytes, key: bytes, value: bytes | None, proof: AccountProof) -> bool:
    """Whether under `root` the key hash has this value hash (None: it is not there).

    Every step is hashed: a proof holds no hint of what is a leaf or what rose, for honouring one
    would let whoever proves leave a subtree out.
    """
    depth = len(proof.siblings)
    if depth > DEPTH_MAX:
        return False
    if value is not None:
        if proof.other is not None:
            return False
        current = leaf_hash(key, value)
    elif proof.other is None:
        current = ZERO_DIGEST
    else:
        other = proof.other.key_hash
        if other == key or any(bit(other, i) != bit(key, i) for i in range(depth)):
            return False
        current = leaf_hash(other, proof.other.value_hash)
    for i in range(depth - 1, -1, -1):
        sibling = proof.siblings[i]
        pair = (sibling, current) if bit(key, i) else (current, sibling)
        current = node_hash(*pair)
    return current == root
