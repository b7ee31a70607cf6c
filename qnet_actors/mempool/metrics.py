"""What a shard counts, as plain integers that a host may export."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class MempoolMetrics:
    """Counters since the start; `pool_*`, `batches_*` of the moment are set at each tick."""

    submitted: int = 0
    admitted: int = 0
    refused: Counter[int] = field(default_factory=Counter)
    """Submitted transactions by the code that refused them."""
    signatures_verified: int = 0
    batches_sealed: int = 0
    transactions_batched: int = 0
    batches_received: int = 0
    batches_accepted: int = 0
    batches_refused: Counter[int] = field(default_factory=Counter)
    """Batches of others by the code that refused them."""
    messages_refused: Counter[int] = field(default_factory=Counter)
    acks_sent: int = 0
    acks_received: int = 0
    batches_resent: int = 0
    batches_fetched: int = 0
    batches_served: int = 0
    batches_pruned: int = 0
    batches_taken_over: int = 0
    """Batches of other authors whose transactions were pooled here."""
    transactions_dropped: Counter[str] = field(default_factory=Counter)
    """Pooled transactions that came to an end without execution, by status."""
    transactions_restored: int = 0

    pool_transactions: int = 0
    pool_size_bytes: int = 0
    batches_without_quorum: int = 0
    batches_unexecuted: int = 0
