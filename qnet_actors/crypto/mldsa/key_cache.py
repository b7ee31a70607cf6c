"""Expanded public keys, kept between batches: bounded, the least recently used leave first.

Expanding a key costs several verifications.  A key is looked up by all of its bytes, never by the
account that uses it, so that a rotated key cannot meet the expansion of another.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from qnet_actors.kernels.mldsa import CACHE_LINE_BYTES, ENTRY_BYTES

Bytes2d = npt.NDArray[np.uint8]
Slots = npt.NDArray[np.int64]

KEYS_MIN: Final = 64
# Finding the oldest slots looks at all of them, so more than one is freed at a time.
_EVICTED_SHARE: Final = 64


@dataclass(slots=True)
class Lease:
    """Slots that stay as they are until the lease is given back."""

    slots: Slots
    """One a key, in the order of the keys."""
    fresh: npt.NDArray[np.intp]
    """Which of the keys have an empty slot: the borrower expands them and then publishes."""


@dataclass(frozen=True, slots=True)
class KeyCacheCounters:
    """Counts since the start; a key counts once for each batch part that uses it."""

    hits: int
    misses: int
    evictions: int
    refusals: int
    """Parts that found no room, because others held every slot."""
    keys: int
    """Held now."""
    capacity: int


class KeyCache:
    """Slots for expanded keys; safe to use from several threads."""

    def __init__(self, size_mb: int) -> None:
        """Room for `size_mb` * 10^6 / 27,712 keys, at least 64.

        Memory is taken from the system only as slots are first used.
        """
        self.capacity = max(size_mb * 1_000_000 // ENTRY_BYTES, KEYS_MIN)
        # Entries are whole cache lines, which the kernel fetches ahead: they start on one.
        memory = np.zeros(self.capacity * ENTRY_BYTES + CACHE_LINE_BYTES, dtype=np.uint8)
        start = -memory.ctypes.data % CACHE_LINE_BYTES
        end = start + self.capacity * ENTRY_BYTES
        self.entries: Bytes2d = memory[start:end].reshape(self.capacity, ENTRY_BYTES)
        self._lock = threading.Lock()
        self._slot_of: dict[bytes, int] = {}
        self._key_of: dict[int, bytes] = {}
        self._published = np.zeros(self.capacity, dtype=np.bool_)
        self._free = list(range(self.capacity - 1, -1, -1))
        self._borrowers = np.zeros(self.capacity, dtype=np.int32)
        self._used_at = np.zeros(self.capacity, dtype=np.int64)
        self._clock = 0
        self._hits = self._misses = self._evictions = self._refusals = 0

    def counters(self) -> KeyCacheCounters:
        """How the cache has done so far."""
        with self._lock:
            return KeyCacheCounters(
                self._hits,
                self._misses,
                self._evictions,
                self._refusals,
                len(self._slot_of),
                self.capacity,
            )

    def borrow(self, keys: Sequence[bytes]) -> Lease | None:
        """Slots for distinct `keys`; None where there is no room, since others hold the slots."""
        find = self._slot_of.get
        with self._lock:
            slots = np.array([find(key, -1) for key in keys], dtype=np.int64)
            fresh = np.flatnonzero(slots < 0)
            held = slots[slots >= 0]
            # Before slots are emptied for the fresh ones, so that these are not among them.
            self._borrowers[held] += 1
            if len(fresh):
                reserved = self._reserve(len(fresh))
                if reserved is None:
                    self._borrowers[held] -= 1
                    self._refusals += 1
                    return None
                slots[fresh] = reserved
                self._borrowers[reserved] += 1
            self._clock += 1
            self._used_at[slots] = self._clock
            self._hits += len(held)
            self._misses += len(fresh)
        return Lease(slots, fresh)

    def publish(self, keys: Sequence[bytes], lease: Lease) -> None:
        """Makes the fresh slots of a lease, expanded by now, known to everybody."""
        with self._lock:
            for place in lease.fresh.tolist():
                key, slot = keys[place], int(lease.slots[place])
                # Another thread may have expanded the same key meanwhile; this slot is then freed
                # with the lease.
                if key not in self._slot_of:
                    self._slot_of[key] = slot
                    self._key_of[slot] = key
                    self._published[slot] = True

    def give_back(self, lease: Lease) -> None:
        """Ends a lease; fresh slots that were not published are empty again."""
        with self._lock:
            self._borrowers[lease.slots] -= 1
            taken = lease.slots[lease.fresh]
            self._free += taken[~self._published[taken]].tolist()

    def _reserve(self, count: int) -> Slots | None:
        if len(self._free) < count:
            self._evict(max(count - len(self._free), self.capacity // _EVICTED_SHARE))
        if len(self._free) < count:
            return None
        reserved = self._free[-count:]
        del self._free[-count:]
        return np.array(reserved, dtype=np.int64)

    def _evict(self, count: int) -> None:
        """Frees the `count` published slots used longest ago, or all that nobody has borrowed."""
        idle = np.flatnonzero(self._published & (self._borrowers == 0))
        if count < len(idle):
            idle = idle[np.argpartition(self._used_at[idle], count)[:count]]
        for slot in idle.tolist():
            del self._slot_of[self._key_of.pop(slot)]
        self._published[idle] = False
        self._free += idle.tolist()
        self._evictions += len(idle)
