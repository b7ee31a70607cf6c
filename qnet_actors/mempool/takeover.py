"""Takes what held batches promise into the pool, where nobody else brings it to execution.

A quorum holds a batch and its clients are told so before its author names it in a DAG block.  An
author that dies in between leaves a promise that no block keeps, and whatever its senders sign next
waits behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from qnet_actors.kernels.expand import expand
from qnet_actors.mempool.entries import SEEN, Entry, entries_of_batch, rows_of
from qnet_actors.mempool.metrics import MempoolMetrics
from qnet_actors.mempool.pool import Pool
from qnet_actors.mempool.retention import Retention
from qnet_actors.mempool.settings import MempoolSettings
from qnet_actors.mempool.store import BatchStore

_LOOK_MS: Final = 250


class Takeover:
    """Of the batches of one shard; a transaction is executed once, whoever else names it too."""

    def __init__(
        self,
        *,
        validators: int,
        own_index: int,
        pool: Pool,
        retention: Retention,
        store: BatchStore,
        take_over: Callable[[Sequence[Entry]], None],
        settings: MempoolSettings,
        metrics: MempoolMetrics,
    ) -> None:
        """`take_over` pools verified entries of which the nonces are not spent."""
        self._validators = validators
        self._own_index = own_index
        self._pool = pool
        self._retention = retention
        self._store = store
        self._take_over = take_over
        self._settings = settings
        self._metrics = metrics
        self._look_ms = 0

    def _pool_batch(self, digest: bytes) -> int:
        """Pools the transactions of a held batch; returns how many it has.

        Those that the pool left to this batch wait for it no longer.
        """
        batch = self._store.get(digest)
        if batch is None:
            return 0
        expanded = expand(batch)
        known = [e for e in map(self._pool.get, rows_of(expanded.ids)) if e is not None]
        for entry in known:
            entry.promised = True
        self._pool.restore([e for e in known if e.state == SEEN and e.batch == digest])
        entries = entries_of_batch(batch, expanded)
        for entry in entries:
            entry.brings_key = bool(entry.public_key)
        self._take_over(entries)
        return batch.header.count

    def tick(self, now_ms: int, *, busy: bool) -> None:
        """Pools batches of others that were passed over; while `busy`, what is here comes first.

        At a look no more than one batch goes beyond the transactions that a batch may have: an
        author that lets all its batches lie makes little work at a time, once a batch.
        """
        if not self._retention.untaken(self._own_index):
            # What comes from now on is not due before then.
            self._look_ms = now_ms + self._settings.takeover_wait_ms
        if now_ms < self._look_ms:
            return
        self._look_ms = now_ms + _LOOK_MS
        left = 0 if busy else self._settings.batch_transactions_max
        for digest in self._retention.passed_over(now_ms, self._wait_ms) if left else ():
            self._retention.taken(digest)
            self._metrics.batches_taken_over += 1
            left -= self._pool_batch(digest)
            if left <= 0:
                break

    def _wait_ms(self, author: int) -> int | None:
        """How long an author's batch is waited for here; None: for ever, it is an own one.

        The validator behind the author is the first to stop waiting.  Then, each time, as many do
        as have before: the batch of one author is not taken over by all at once, and yet soon by
        one that is alive and holds it.
        """
        distance = (self._own_index - author) % self._validators
        if distance == 0:
            return None
        settings = self._settings
        return settings.takeover_wait_ms + settings.takeover_turn_ms * (distance - 1).bit_length()

    def wake_ms(self) -> int | None:
        return self._look_ms if self._retention.untaken(self._own_index) else None
