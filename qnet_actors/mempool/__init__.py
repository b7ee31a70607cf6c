"""Mempool shards: admission, batching, dissemination, and the store of batches.

Names are loaded when they are first asked for, so that importing this room costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qnet_actors.lazy import lazy

if TYPE_CHECKING:
    from qnet_actors.mempool.entries import Entry
    from qnet_actors.mempool.holdings import Holdings
    from qnet_actors.mempool.metrics import MempoolMetrics
    from qnet_actors.mempool.routing import shard_of
    from qnet_actors.mempool.segments import FileBatchStore
    from qnet_actors.mempool.settings import MempoolSettings
    from qnet_actors.mempool.shard import MempoolShard
    from qnet_actors.mempool.store import BatchStore, MemoryBatchStore, Recovered
    from qnet_actors.mempool.validity import Verifier, check_batch, check_form, open_batch
else:
    __getattr__ = lazy(
        __name__,
        {
            "entries": ("Entry",),
            "holdings": ("Holdings",),
            "metrics": ("MempoolMetrics",),
            "routing": ("shard_of",),
            "segments": ("FileBatchStore",),
            "settings": ("MempoolSettings",),
            "shard": ("MempoolShard",),
            "store": ("BatchStore", "MemoryBatchStore", "Recovered"),
            "validity": ("Verifier", "check_batch", "check_form", "open_batch"),
        },
    )

__all__ = [
    "BatchStore",
    "Entry",
    "FileBatchStore",
    "Holdings",
    "MemoryBatchStore",
    "MempoolMetrics",
    "MempoolSettings",
    "MempoolShard",
    "Recovered",
    "Verifier",
    "check_batch",
    "check_form",
    "open_batch",
    "shard_of",
]
