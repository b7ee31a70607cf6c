"""When a batch is sealed, what goes into it, and how it is put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from qnet_actors.kernels.submissions import cut_bodies, join
from qnet_actors.mempool.entries import PENDING, Entry, signature_rows
from qnet_actors.mempool.keys import KeyStore
from qnet_actors.mempool.pool import Pool
from qnet_actors.mempool.settings import MempoolSettings
from qnet_actors.wire.batches import BATCH_VERSION, Batch, BatchHeader
from qnet_actors.wire.hashing import BATCH_BODIES, BATCH_WITNESSES, hash32
from qnet_actors.wire.limits import BATCH_GAS_MAX, BATCH_PAYLOAD_BYTES_MAX

_HEADER_BYTES: Final = 1_024
"""An upper bound of the header, the framing and the last payload offset."""


class Batcher:
    """Seals by bytes, by count, or after a wait that adapts to the load.

    The load shows in how long a quorum takes to hold the last batch.  While one is on its way the
    next gathers, up to the longest wait; when none is, it goes after the shortest.  So an idle
    network adds little latency, and a busy one makes fewer and larger batches.
    """

    def __init__(self, pool: Pool, keys: KeyStore, settings: MempoolSettings) -> None:
        self._pool = pool
        self._keys = keys
        self._settings = settings
        self.under_way = False
        """Whether an own batch is not held by a quorum yet; the shard says so."""
        # When the oldest ready transaction of a scheme was first seen here.
        self._since_ms: dict[int, int] = {}

    @property
    def wait_ms(self) -> int:
        """How long the oldest waits now, where its batch does not fill up before."""
        settings = self._settings
        return settings.batch_wait_ms_max if self.under_way else settings.batch_wait_ms_min

    def due_ms(self) -> int | None:
        """When a batch is to be sealed as things are; `look` comes first."""
        due = [
            since if self._is_full(scheme) else since + self.wait_ms
            for scheme, since in self._since_ms.items()
        ]
        return min(due, default=None)

    def look(self, now_ms: int) -> None:
        """Notes since when there is something to seal; called whenever the pool may have moved."""
        for scheme, ready in self._pool.ready.items():
            if len(ready):
                self._since_ms.setdefault(scheme, now_ms)
            else:
                self._since_ms.pop(scheme, None)

    def _is_full(self, scheme: int) -> bool:
        ready = self._pool.ready[scheme]
        return (
            len(ready) >= self._settings.batch_transactions_max
            or ready.size_bytes + _HEADER_BYTES >= self._settings.batch_size_bytes_max
        )

    def take(self, now_ms: int) -> list[Entry]:
        """The entries of a batch that is due, in order, all of one scheme; empty: none is due.

        They are ready no more, and `Pool.batched` must follow.
        """
        for scheme, since in sorted(self._since_ms.items(), key=lambda item: (item[1], item[0])):
            full = self._is_full(scheme)
            if not full and now_ms < since + self.wait_ms:
                continue
            entries = self._fill(scheme)
            if not entries:
                # All of it follows transactions of another scheme, which are not due yet.
                self._since_ms[scheme] = now_ms
                continue
            self._since_ms.pop(scheme)
            return entries
        return []

    def _fill(self, scheme: int) -> list[Entry]:
        settings, ready = self._settings, self._pool.ready[scheme]
        # A sender that went over to another scheme has entries in two queues.
        mixed = sum(1 for other in self._pool.ready.values() if len(other)) > 1
        blocked: list[tuple[Entry, int]] = []
        taken: set[bytes] = set()
        entries: list[Entry] = []
        brought: set[bytes] = set()
        size_bytes, gas, payload_bytes = _HEADER_BYTES, 0, 0
        while len(entries) < settings.batch_transactions_max:
            entry = ready.first()
            if entry is None:
                break
            if mixed:
                before = self._pool.before(entry)
                if before is not None and before.state == PENDING and before.id not in taken:
                    blocked.append((entry, ready.pop()))
                    continue
                taken.add(entry.id)
            size_bytes += entry.size_bytes
            if not entry.brings_key and self._keys.get(entry.key_id) is None:
                # It left the store while the transaction waited, and nobody could be told it.
                entry.brings_key = bool(entry.public_key)
                size_bytes += len(entry.public_key)
            if entry.brings_key and entry.key_id in brought:
                size_bytes -= len(entry.public_key)
            gas += entry.gas_limit
            payload_bytes += entry.payload_end - entry.payload_at
            # The first always fits: no transaction reaches any of these bounds.
            if entries and (
                size_bytes > settings.batch_size_bytes_max
                or gas > BATCH_GAS_MAX
                or payload_bytes > BATCH_PAYLOAD_BYTES_MAX
            ):
                break
            if entry.brings_key:
                brought.add(entry.key_id)
            ready.pop()
            entries.append(entry)
        ready.put_back(blocked)
        return entries


def assemble(
    entries: Sequence[Entry],
    *,
    chain_id: bytes,
    epoch: int,
    author: int,
    shard: int,
    sequence: int,
) -> Batch:
    """The batch of `entries`, of one scheme: `wire.batches.build_batch` without rows to encode."""
    data, starts = join([entry.data for entry in entries])
    payloads = np.array([entry.payload_at for entry in entries], dtype=np.int64)
    payload_ends = np.array([entry.payload_end for entry in entries], dtype=np.int64)
    bodies = b"".join(cut_bodies(data, starts, payloads, payload_ends))
    signatures = signature_rows(data, starts[:-1] + payload_ends, entries[0].scheme)
    keys = dict.fromkeys([entry.public_key for entry in entries if entry.brings_key])
    witnesses = b"".join([signatures.tobytes(), *keys])
    header = BatchHeader(
        version=BATCH_VERSION,
        chain_id=chain_id,
        epoch=epoch,
        author=author,
        shard=shard,
        sequence=sequence,
        scheme=entries[0].scheme,
        count=len(entries),
        key_count=len(keys),
        bodies_root=hash32(BATCH_BODIES, bodies),
        witnesses_root=hash32(BATCH_WITNESSES, witnesses),
    )
    return Batch(header, bodies, witnesses)
