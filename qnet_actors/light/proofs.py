"""Hashes of the state tree, proofs that an account is or is not in it, and their verifier.

The tree is a sparse Merkle tree over the hash of the address, most significant bit first, made
compact: an empty subtree is 32 zero bytes, and a subtree with a single leaf is that leaf's hash.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from qnet_actors.wire.codec import Codec, Digest, Struct, Unsigned, encode
from qnet_actors.wire.codes import Code, QnetError
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
    Two keys that share a long prefix stand deep, but next to empty subtrees: those are bits.
    """

    empty: Annotated[bytes, msgspec.Meta(max_length=DEPTH_MAX // 8)]
    """A bit for each sibling from the root down, the most significant first: 1 where it is empty.
    Zero bits fill the last byte."""
    siblings: Annotated[tuple[Digest, ...], msgspec.Meta(max_length=DEPTH_MAX)]
    """Those that are not empty, from the root down."""
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


def pack_proof(siblings: Sequence[bytes], other: OtherLeaf | None) -> AccountProof:
    """The proof with these siblings, from the root down, zeros for empty ones."""
    depth = len(siblings)
    bits = 0
    for sibling in siblings:
        bits = bits << 1 | (sibling == ZERO_DIGEST)
    width = (depth + 7) // 8
    return AccountProof(
        (bits << (8 * width - depth)).to_bytes(width),
        tuple(sibling for sibling in siblings if sibling != ZERO_DIGEST),
        other,
    )


def proof_siblings(proof: AccountProof) -> list[bytes]:
    """All siblings of a proof from the root down, zeros for empty ones.

    Raises `QnetError(BAD_PROOF)` where the proof is not the only one of its path: bits that are
    missing, left over or set beyond the path, an empty sibling spelt out, or one at the end, where
    a terminal never has it.
    """
    bits = int.from_bytes(proof.empty)
    depth = len(proof.siblings) + bits.bit_count()
    beyond = 8 * len(proof.empty) - depth
    if depth > DEPTH_MAX or not 0 <= beyond < 8 or ZERO_DIGEST in proof.siblings:
        raise QnetError(Code.BAD_PROOF, "the siblings do not fit the bits for the empty ones")
    bits, past = divmod(bits, 1 << beyond)
    if past or bits & 1:
        raise QnetError(Code.BAD_PROOF, "a bit says empty where no sibling can be")
    full = iter(proof.siblings)
    return [ZERO_DIGEST if bits >> (depth - 1 - i) & 1 else next(full) for i in range(depth)]


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

    Every step is hashed, with the zeros of an empty sibling too: a proof holds no hint of what is a
    leaf or what rose, for honouring one would let whoever proves leave a subtree out.
    """
    try:
        siblings = proof_siblings(proof)
    except QnetError:
        return False
    depth = len(siblings)
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
        sibling = siblings[i]
        pair = (sibling, current) if bit(key, i) else (current, sibling)
        current = node_hash(*pair)
    return current == root
