"""BLAKE3-256 in derive-key mode: one context string a use, so digests of kinds never meet."""

from __future__ import annotations

from typing import Final

from blake3 import blake3

DIGEST_BYTES: Final = 32
ZERO_DIGEST: Final = bytes(DIGEST_BYTES)

GENESIS: Final = "qnet genesis v1"
KEY: Final = "qnet key v1"
TRANSACTION: Final = "qnet tx v1"
BATCH: Final = "qnet batch v1"
BATCH_BODIES: Final = "qnet batch bodies v1"
BATCH_WITNESSES: Final = "qnet batch witnesses v1"
DAG_BLOCK: Final = "qnet dag block v1"
DAG_CONTENT: Final = "qnet dag content v1"
COMMIT: Final = "qnet commit v1"
COMMITTEE: Final = "qnet committee v1"
BLOCK: Final = "qnet block v1"
CHECKPOINT: Final = "qnet checkpoint v1"
RECEIPT: Final = "qnet receipt v1"
WRITE_SET: Final = "qnet write set v1"
TRANSACTIONS_LEAF: Final = "qnet transactions leaf v1"
TRANSACTIONS_NODE: Final = "qnet transactions node v1"
RECEIPTS_LEAF: Final = "qnet receipts leaf v1"
RECEIPTS_NODE: Final = "qnet receipts node v1"
STATE_KEY: Final = "qnet state key v1"
STATE_VALUE: Final = "qnet state value v1"
STATE_LEAF: Final = "qnet state leaf v1"
STATE_NODE: Final = "qnet state node v1"
LEADER: Final = "qnet leader v1"
REGISTRY: Final = "qnet registry v1"
REGISTRATION: Final = "qnet registration v1"
RULES: Final = "qnet rules v1"
EPOCH_SEED: Final = "qnet epoch seed v1"
SHARD: Final = "qnet shard v1"
HOME: Final = "qnet home validator v1"
LINK: Final = "qnet link v1"

# Deriving the key of a context costs a compression; a copied hasher starts after it.  The contexts
# above are the only ones that the program uses, so the table is bounded.
_HASHERS: dict[str, blake3] = {}


def hasher(context: str) -> blake3:
    """A fresh BLAKE3 hasher in derive-key mode for `context`."""
    base = _HASHERS.get(context)
    if base is None:
        base = _HASHERS.setdefault(context, blake3(derive_key_context=context))
    return base.copy()


def hash32(context: str, *parts: bytes | bytearray | memoryview) -> bytes:
    """The 32-byte digest of the concatenation of `parts` under `context`."""
    state = hasher(context)
    for part in parts:
        state.update(part)
    return state.digest()


def merkle_root(leaf_context: str, node_context: str, leaves: list[bytes]) -> bytes:
    """The root of the binary Merkle tree over `leaves`, in the shape of RFC 6962 section 2.1.

    A leaf is hashed under `leaf_context`, a pair of nodes under `node_context`; a node without a
    sibling rises as it is.  No leaves: 32 zero bytes.
    """
    if not leaves:
        return ZERO_DIGEST
    level = [hash32(leaf_context, leaf) for leaf in leaves]
    while len(level) > 1:
        pairs = [hash32(node_context, a, b) for a, b in zip(level[::2], level[1::2], strict=False)]
        if len(level) % 2:
            pairs.append(level[-1])
        level = pairs
    return level[0]
