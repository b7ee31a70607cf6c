"""Mempool shards: admission, batching, dissemination, and the store of batches.

Names are loaded when they are first asked for, so that importing this room costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

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

_HOME = {
    "BatchStore": "store",
    "Entry": "entries",
    "FileBatchStore": "segments",
    "Holdings": "holdings",
    "MemoryBatchStore": "store",
    "MempoolMetrics": "metrics",
    "MempoolSettings": "settings",
    "MempoolShard": "shard",
    "Recovered": "store",
    "Verifier": "validity",
    "check_batch": "validity",
    "check_form": "validity",
    "open_batch": "validity",
    "shard_of": "routing",
}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


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
