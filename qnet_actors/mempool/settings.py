"""The bounds and times of a mempool shard: local choices, on which validators need not agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from qnet_actors.wire.limits import BATCH_SIZE_BYTES_MAX, BATCH_TRANSACTIONS_MAX

MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class MempoolSettings:
    """Raises ValueError where a batch could leave the limits of the wire."""

    pool_transactions_max: int = 65_536
    pool_size_bytes_max: int = 256 * MIB
    sender_transactions_max: int = 1_024
    nonce_window: int = 64
    """How far a nonce may be ahead of the first one missing."""
    replacement_percent: int = 10
    restores_max: int = 16
    """How often a transaction that was not included goes back to the pool."""
    seen_wait_ms: int = 5_000
    """How long a pooled transaction is left to another author's batch that carries it."""
    takeover_wait_ms: int = 2_000
    """How long a batch of another author is passed over before the first other pools it."""
    takeover_turn_ms: int = 500
    """After so long again more of the others do."""

    submit_transactions_max: int = 4_096
    backlog_wait_ms: int = 3_000
    """What is taken on is what is executed in this time; more displaces what pays less."""
    backlog_wait_ms_max: int = 4_500
    """The same where batches take longer to be executed than two thirds of that time allow."""
    backlog_transactions_min: int = 1_024
    """So many are taken on whatever was executed of late."""
    verifying_size_bytes_max: int = 64 * MIB
    keys_max: int = 65_536

    batch_transactions_max: int = BATCH_TRANSACTIONS_MAX
    batch_size_bytes_max: int = 4 * MIB
    batch_wait_ms_min: int = 20
    batch_wait_ms_max: int = 200
    batches_without_quorum_max: int = 16
    batches_unexecuted_max: int = 128

    resend_ms_min: int = 1_000
    resend_ms_max: int = 16_000
    offer_again_ms: int = 30_000
    """After this, and after twice as long each time, a batch not executed is offered again."""
    fetch_ms_min: int = 200
    fetch_ms_max: int = 5_000
    fetches_max: int = 65_536
    fetch_lifetime_ms: int = 600_000

    author_batches_max: int = 256
    """Batches of one shard of one author that are pushed, held and not executed."""
    author_size_bytes_max: int = 1024 * MIB
    author_named_factor: int = 2
    """How many times as much may be held of what its blocks name and no commit does."""
    peer_pending_size_bytes_max: int = 64 * MIB
    """Bytes of one peer's batches that are being verified or wait for keys."""
    peer_pending_batches_max: int = 256
    penalty_ms_min: int = 1_000
    """How long an author is not listened to that pushed an invalid batch; doubles each time."""
    penalty_ms_max: int = 60_000
    key_attempts_max: int = 12
    verify_rows: int = 256
    """Signatures that one job verifies."""
    served_size_bytes_max: int = 64 * MIB
    """What one peer is served on request in a second."""

    sweep_age_ms: int = 10_000
    """From which age on batches are looked at for whether anything of them is left to execute."""
    unexecuted_lifetime_ms: int = 600_000
    """How long another author's batch is held that no commit names."""
    witness_retention_ms: int | None = 0
    """How long batches are kept after they are final; None: for ever."""

    def __post_init__(self) -> None:
        if not 1 <= self.batch_transactions_max <= BATCH_TRANSACTIONS_MAX:
            raise ValueError(f"batch_transactions_max is 1 to {BATCH_TRANSACTIONS_MAX}")
        if not 128 * 1024 <= self.batch_size_bytes_max <= BATCH_SIZE_BYTES_MAX:
            # The smallest bound leaves room for the largest transaction.
            raise ValueError(f"batch_size_bytes_max is 131072 to {BATCH_SIZE_BYTES_MAX}")
        if self.batches_unexecuted_max < self.batches_without_quorum_max:
            raise ValueError("batches_unexecuted_max is below batches_without_quorum_max")
