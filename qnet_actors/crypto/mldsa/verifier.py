"""The `ColumnVerifier` of ML-DSA-65 over the compiled kernels."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from qnet_actors.crypto.mldsa.key_cache import KeyCache, KeyCacheCounters
from qnet_actors.crypto.mldsa.oracle import OracleCounters, SampledOracle
from qnet_actors.crypto.verify import THREADS_MAX, Bytes2d, Verdicts
from qnet_actors.kernels.mldsa import ENTRY_BYTES, PUBLIC_KEY_BYTES, SIGNATURE_BYTES
from qnet_actors.kernels.mldsa_expand import expand_keys
from qnet_actors.kernels.mldsa_verify import verify_rows
from qnet_actors.wire.schemes import Scheme

Rows = npt.NDArray[np.int64]

CACHE_MB: Final = 256
# Rows for which slots are held at a time: enough to fill the lanes, few enough for a small cache.
ROWS_PER_PART: Final = 1_024
# Handing work to another thread costs as much as a few verifications.
ROWS_PER_THREAD_MIN: Final = 64


@dataclass(frozen=True, slots=True)
class VerifierCounters:
    """What the metrics show."""

    verified: int
    """Rows, whatever the verdict."""
    refused: int
    """Rows whose signature is not valid."""
    cache: KeyCacheCounters
    oracle: OracleCounters | None


class MlDsaVerifier:
    """Verifies columns of ML-DSA-65; safe to use from several threads, and releases the GIL."""

    schemes = frozenset({Scheme.ML_DSA_65})

    def __init__(
        self,
        *,
        cache_mb: int = CACHE_MB,
        threads: int = 1,
        oracle: SampledOracle | None = None,
    ) -> None:
        """`threads` is 1 to 64 and counts the caller's; raises ValueError outside that."""
        if not 1 <= threads <= THREADS_MAX:
            raise ValueError(f"threads must be 1 to {THREADS_MAX}, not {threads}")
        self._cache = KeyCache(cache_mb)
        self._oracle = oracle
        self._threads = threads
        self._pool = (
            ThreadPoolExecutor(threads - 1, thread_name_prefix="mldsa") if threads > 1 else None
        )
        self._lock = threading.Lock()
        self._verified = self._refused = 0

    def close(self) -> None:
        """End the threads; what is under way finishes first."""
        if self._pool is not None:
            self._pool.shutdown()

    def counters(self) -> VerifierCounters:
        """Counts since the start."""
        with self._lock:
            verified, refused = self._verified, self._refused
        oracle = None if self._oracle is None else self._oracle.counters()
        return VerifierCounters(verified, refused, self._cache.counters(), oracle)

    def verify_columns(
        self,
        scheme: Scheme,
        table: Sequence[bytes],
        index: npt.NDArray[np.intp],
        messages: Bytes2d,
        signatures: Bytes2d,
        context: bytes,
    ) -> Verdicts:
        """bool[n]: which rows carry a valid signature; see `crypto.ColumnVerifier`.

        Raises ValueError where the caller has not checked what it must, and `VerifierDisagreement`
        where a sampled verdict is not the provider's.
        """
        if scheme not in self.schemes:
            raise ValueError(f"this verifier has no scheme {int(scheme)}")
        # The kernels trust these: they read memory by them.
        if signatures.shape != (len(index), SIGNATURE_BYTES) or len(messages) != len(index):
            raise ValueError("columns of other sizes than the scheme's")
        if len(index) and not 0 <= index.min() <= index.max() < len(table):
            raise ValueError("an index out of range")
        count = len(index)
        verdicts = np.zeros(count, dtype=np.bool_)
        if not count:
            return verdicts
        job = _Job(
            self._cache,
            table,
            np.ascontiguousarray(index, dtype=np.int64),
            np.ascontiguousarray(messages),
            np.ascontiguousarray(signatures),
            np.frombuffer(context, dtype=np.uint8),
            verdicts,
        )
        # Rows with one key stand together: its expansion is then still in the processor's cache.
        order = _sorted_rows(job.index, len(table))
        seconds = self._run(job, order)
        with self._lock:
            self._verified += count
            self._refused += count - int(verdicts.sum())
        if self._oracle is not None:
            self._oracle.watch(
                scheme, table, index, messages, signatures, context, verdicts, seconds
            )
        return verdicts

    def _run(self, job: _Job, order: Rows) -> float:
        """Does the job, over threads where it is large enough; returns CPU seconds."""
        shares = min(self._threads, max(len(order) // ROWS_PER_THREAD_MIN, 1))
        bounds = [len(order) * share // shares for share in range(shares + 1)]
        parts = [order[start:end] for start, end in pairwise(bounds)]
        if self._pool is None or shares == 1:
            return job.run(order)
        others = [self._pool.submit(job.run, part) for part in parts[1:]]
        return job.run(parts[0]) + sum(other.result() for other in others)


@dataclass(frozen=True, slots=True)
class _Job:
    """The columns of one call, as the kernels take them."""

    cache: KeyCache
    table: Sequence[bytes]
    index: Rows
    messages: Bytes2d
    signatures: Bytes2d
    context: npt.NDArray[np.uint8]
    verdicts: Verdicts

    def run(self, order: Rows) -> float:
        """Verifies the rows of `order`, which has those of one key together."""
        started = time.thread_time()
        for start in range(0, len(order), ROWS_PER_PART):
            self._part(order[start : start + ROWS_PER_PART])
        return time.thread_time() - started

    def _part(self, rows: Rows) -> None:
        places = self.index[rows]
        first = np.concatenate(([True], places[1:] != places[:-1]))
        keys = [self.table[place] for place in places[first].tolist()]
        which = np.cumsum(first) - 1
        lease = self.cache.borrow(keys)
        if lease is None:
            entries = np.empty((len(keys), ENTRY_BYTES), dtype=np.uint8)
            _expand(keys, np.arange(len(keys)), entries)
            self._verify(entries, which, rows)
            return
        try:
            if len(lease.fresh):
                fresh = [keys[place] for place in lease.fresh.tolist()]
                _expand(fresh, lease.slots[lease.fresh], self.cache.entries)
                self.cache.publish(keys, lease)
            self._verify(self.cache.entries, lease.slots[which], rows)
        finally:
            self.cache.give_back(lease)

    def _verify(self, entries: Bytes2d, slots_of_rows: Rows, rows: Rows) -> None:
        slots = np.zeros(len(self.index), dtype=np.int64)
        slots[rows] = slots_of_rows
        verify_rows(
            entries, slots, rows, self.messages, self.signatures, self.context, self.verdicts
        )


def _sorted_rows(index: Rows, keys: int) -> Rows:
    # Sorting 16-bit numbers takes a fraction of the time.
    narrow = index.astype(np.uint16) if keys <= 1 << 16 else index
    return np.argsort(narrow, kind="stable")


def _expand(keys: Sequence[bytes], slots: Rows, entries: Bytes2d) -> None:
    if any(len(key) != PUBLIC_KEY_BYTES for key in keys):
        raise ValueError("a public key of another size than the scheme's")
    column = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), PUBLIC_KEY_BYTES)
    expand_keys(column, slots, entries)
