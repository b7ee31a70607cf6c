"""Which shard of a validator a sender belongs to."""

from __future__ import annotations

from qnet_actors.wire.hashing import SHARD, hash32


def shard_of(sender: bytes, shard_count: int) -> int:
    """hash(sender) mod count, so that one shard sees all nonces of a sender."""
    return int.from_bytes(hash32(SHARD, sender)[:8], "big") % shard_count
