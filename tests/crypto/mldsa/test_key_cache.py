"""The key cache: bounded, least recently used out first, borrowed slots untouched."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnet_actors.crypto.mldsa.key_cache import KEYS_MIN, KeyCache
from qnet_actors.kernels.mldsa import ENTRY_BYTES


@pytest.fixture
def cache():
    return KeyCache(0)


def key(number: int) -> bytes:
    return number.to_bytes(4, "little")


def use(cache: KeyCache, numbers: list[int]) -> list[int]:
    """Borrows, fills, publishes and gives back; returns which were fresh."""
    keys = [key(number) for number in numbers]
    lease = cache.borrow(keys)
    assert lease is not None
    fresh = [numbers[place] for place in lease.fresh.tolist()]
    for place in lease.fresh.tolist():
        cache.entries[lease.slots[place], :4] = np.frombuffer(keys[place], dtype=np.uint8)
    cache.publish(keys, lease)
    for name, slot in zip(keys, lease.slots, strict=True):
        assert cache.entries[slot, :4].tobytes() == name
    cache.give_back(lease)
    return fresh


def test_size_in_mb_and_alignment():
    cache = KeyCache(64)
    assert cache.capacity == 64_000_000 // ENTRY_BYTES
    assert cache.entries.shape == (cache.capacity, ENTRY_BYTES)
    assert cache.entries.ctypes.data % 64 == 0
    assert ENTRY_BYTES % 64 == 0
    assert KeyCache(0).capacity == KEYS_MIN


def test_held_keys_are_hits(cache):
    assert use(cache, [1, 2, 3]) == [1, 2, 3]
    assert use(cache, [3, 4, 1]) == [4]
    counters = cache.counters()
    assert (counters.hits, counters.misses, counters.keys) == (2, 4, 4)


def test_least_recently_used_leave_first(cache):
    use(cache, list(range(cache.capacity)))
    use(cache, list(range(1, cache.capacity)))
    assert use(cache, [1000]) == [1000]
    assert use(cache, list(range(1, cache.capacity))) == []
    assert use(cache, [0]) == [0]
    assert cache.counters().evictions == 2


def test_borrowed_slots_stay(cache):
    keys = [key(number) for number in range(10)]
    lease = cache.borrow(keys)
    cache.publish(keys, lease)
    before = lease.slots.copy()
    for round_ in range(20):
        use(cache, [100 + 50 * round_ + i for i in range(50)])
    again = cache.borrow(keys)
    assert (again.slots == before).all()
    assert not len(again.fresh)
    cache.give_back(again)
    cache.give_back(lease)


def test_no_room_is_said_and_changes_nothing(cache):
    held = [key(number) for number in range(cache.capacity - 3)]
    lease = cache.borrow(held)
    cache.publish(held, lease)
    assert cache.borrow([*held[:2], *(key(1000 + i) for i in range(4))]) is None
    assert cache.counters().refusals == 1
    assert use(cache, [1000, 1001, 1002]) == [1000, 1001, 1002]
    cache.give_back(lease)
    assert use(cache, list(range(2000, 2000 + cache.capacity))) != []


def test_more_keys_than_slots(cache):
    assert cache.borrow([key(number) for number in range(cache.capacity + 1)]) is None


def test_slots_that_were_not_filled_are_empty_again(cache):
    lease = cache.borrow([key(1), key(2)])
    cache.give_back(lease)
    assert use(cache, [1, 2]) == [1, 2]
    assert use(cache, list(range(cache.capacity))) != []


def test_two_that_expand_the_same_key_keep_one(cache):
    one, other = cache.borrow([key(1)]), cache.borrow([key(1)])
    assert one.slots[0] != other.slots[0]
    cache.publish([key(1)], one)
    cache.publish([key(1)], other)
    cache.give_back(one)
    cache.give_back(other)
    assert cache.counters().keys == 1
    # No slot is lost: the cache still holds its capacity.
    others = list(range(2, 2 + cache.capacity))
    assert use(cache, others) == others
    assert use(cache, others) == []


@settings(max_examples=50)
@given(st.lists(st.sets(st.integers(0, 90), min_size=1, max_size=40), max_size=30))
def test_nothing_is_lost_or_mixed_up(uses):
    cache = KeyCache(0)
    for numbers in uses:
        use(cache, sorted(numbers))
    counters = cache.counters()
    assert counters.keys <= cache.capacity
    assert counters.hits + counters.misses == sum(map(len, uses))
    assert counters.misses - counters.evictions == counters.keys
    use(cache, list(range(100, 100 + cache.capacity)))
    assert cache.counters().keys == cache.capacity


def test_threads_share_it():
    cache = KeyCache(0)
    failures = []

    def work(seed: int) -> None:
        choice = random.Random(seed)
        try:
            for _ in range(300):
                numbers = choice.sample(range(150), 12)
                keys = [key(number) for number in numbers]
                lease = cache.borrow(keys)
                if lease is None:
                    continue
                for place in lease.fresh.tolist():
                    name = np.frombuffer(keys[place], dtype=np.uint8)
                    cache.entries[lease.slots[place], :4] = name
                cache.publish(keys, lease)
                for wanted, slot in zip(keys, lease.slots, strict=True):
                    assert cache.entries[slot, :4].tobytes() == wanted
                cache.give_back(lease)
        except AssertionError as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert cache.counters().keys <= cache.capacity
