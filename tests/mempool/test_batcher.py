"""Batches are put together as `wire` does it, and sealed when they are due."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnet_actors.mempool.batcher import Batcher, assemble
from qnet_actors.mempool.entries import Entry, entry_of
from qnet_actors.mempool.keys import KeyStore
from qnet_actors.mempool.pool import Pool
from qnet_actors.mempool.senders import Account
from qnet_actors.wire.batches import build_batch, decode_batch
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code
from qnet_actors.wire.limits import BATCH_GAS_MAX, BATCH_PAYLOAD_BYTES_MAX, GAS_LIMIT_MAX
from qnet_actors.wire.messages import PublicKey
from qnet_actors.wire.transactions import Access, Transaction
from tests.mempool.test_pool import entry
from tests.mempool.world import CHAIN_ID, SCHEME, ZERO, Client, digest_of, settings
from tests.strategies import bodies, signed

RICH = Account(0, 2**62, ZERO)
TERMS: dict[str, Any] = {"chain_id": CHAIN_ID, "epoch": 3, "author": 2, "shard": 5, "sequence": 9}


@given(st.lists(signed(bodies(chain_id=CHAIN_ID, valid=True), SCHEME), min_size=1, max_size=5))
def test_assembled_as_wire_builds_it(transactions: list[Transaction]) -> None:
    entries = [entry_of(transaction, encode(transaction)) for transaction in transactions]
    assert assemble(entries, **TERMS).encode() == build_batch(transactions, **TERMS).encode()


def batcher(**fields) -> tuple[Batcher, Pool]:
    chosen = settings(**fields)
    pool = Pool(chosen)
    return Batcher(pool, KeyStore(10), chosen), pool


def add(pool: Pool, *entries: Entry) -> None:
    for each in entries:
        assert pool.add(each, RICH).code == Code.SUCCESS


def run(sender: int, count: int, start: int = 0, **fields) -> list[Entry]:
    return [entry(digest_of(sender), n, 1, **fields) for n in range(start, start + count)]


def test_nothing_is_due_where_nothing_is_ready() -> None:
    made, pool = batcher()
    made.look(0)
    assert made.due_ms() is None
    assert made.take(10**9) == []
    # A nonce with a gap before it is not ready.
    add(pool, entry(digest_of(1), 1, 1))
    made.look(0)
    assert made.due_ms() is None


def test_sealed_after_the_wait() -> None:
    made, pool = batcher()
    entries = run(1, 3)
    add(pool, *entries)
    made.look(100)
    assert made.due_ms() == 120
    assert made.take(119) == []
    assert made.take(120) == entries
    pool.batched(entries, ZERO)
    made.look(120)
    assert made.due_ms() is None


def test_sealed_by_count_at_once() -> None:
    made, pool = batcher(batch_transactions_max=4)
    entries = run(1, 6)
    add(pool, *entries)
    made.look(100)
    assert made.due_ms() == 100
    assert made.take(100) == entries[:4]
    made.look(100)
    # What is left over waits for company.
    assert made.due_ms() == 120


def test_sealed_by_bytes_and_never_over_them() -> None:
    made, pool = batcher(batch_size_bytes_max=128 * 1024)
    entries = run(1, 5, size_bytes=40_000)
    add(pool, *entries)
    made.look(100)
    assert made.take(100) == entries[:3]


def test_a_shared_key_counts_once() -> None:
    client = Client(1)
    made, pool = batcher(batch_size_bytes_max=128 * 1024)
    transactions = [client.transaction(n) for n in range(20)]
    entries = [entry_of(t, encode(t)) for t in transactions]
    for each in entries:
        each.public_key = bytes(30_000)
        each.size_bytes += 30_000
    add(pool, *entries)
    made.look(0)
    assert made.take(0) == entries


def test_a_key_that_left_the_store_is_brought_along() -> None:
    made, pool = batcher()
    known, gone = Client(1), Client(2)
    transactions = [known.transaction(0, with_key=False), gone.transaction(0, with_key=False)]
    entries = [entry_of(t, encode(t)) for t in transactions]
    for each, client in zip(entries, (known, gone), strict=True):
        each.public_key = client.public_key
    made._keys.add(PublicKey(SCHEME, known.public_key))
    add(pool, *entries)
    made.look(0)
    assert assemble(made.take(20), **TERMS).public_keys == [gone.public_key]


@pytest.mark.parametrize(
    ("fields", "fit"),
    [
        ({"gas_limit": GAS_LIMIT_MAX}, BATCH_GAS_MAX // GAS_LIMIT_MAX),
        ({"payload_end": 60_000}, BATCH_PAYLOAD_BYTES_MAX // 60_000),
    ],
)
def test_the_limits_of_the_wire_end_a_batch(fields: dict, fit: int) -> None:
    made, pool = batcher(pool_size_bytes_max=2**40)
    entries = run(1, fit + 3, cost=1, **fields)
    add(pool, *entries)
    made.look(0)
    first = made.take(200)
    assert first == entries[:fit]
    pool.batched(first, ZERO)
    made.look(200)
    assert made.take(400) == entries[fit:]


def test_the_largest_transaction_fits_the_smallest_batch() -> None:
    access = tuple(Access(digest_of(n), bytes(200), True) for n in range(256))
    transaction = Client(1).transaction(0, access=access, gas_limit=20_000)
    size = len(encode(transaction))
    assert 60_000 < size <= 64 * 1024
    made, pool = batcher(batch_size_bytes_max=128 * 1024)
    add(pool, entry_of(transaction, encode(transaction)))
    made.look(0)
    batch = assemble(made.take(20), **TERMS)
    assert decode_batch(batch.encode()).digest == batch.digest


def test_one_scheme_a_batch_and_nonces_in_order_over_both() -> None:
    made, pool = batcher()
    ours, theirs = run(1, 2), run(2, 2, scheme=4)
    # One sender in two schemes: a rotation in between.
    after = run(1, 2, start=2, scheme=4)
    back = run(1, 1, start=4)
    add(pool, *ours, *after, *back, *theirs)
    made.look(0)
    batches = []
    for now in range(0, 200, 20):
        while taken := made.take(now):
            pool.batched(taken, digest_of(now))
            batches.append(taken)
            made.look(now)
    assert batches == [theirs, ours, after, back]


def test_what_is_held_back_by_another_scheme_wakes_nobody_at_once() -> None:
    made, pool = batcher()
    add(pool, *run(1, 1), *run(1, 1, start=1, scheme=4))
    made.look(0)
    made._since_ms[255] = 10
    assert made.take(20) == []
    assert made.due_ms() == 30


def test_a_batch_waits_longer_while_one_is_under_way() -> None:
    made, pool = batcher()
    add(pool, *run(1, 3))
    made.look(0)
    made.under_way = True
    assert made.due_ms() == 200
    assert made.take(199) == []
    made.under_way = False
    assert made.due_ms() == 20
    assert len(made.take(199)) == 3


def test_a_full_batch_waits_for_nothing() -> None:
    made, pool = batcher(batch_transactions_max=100)
    made.under_way = True
    add(pool, *run(1, 100))
    made.look(0)
    assert made.due_ms() == 0
    assert len(made.take(0)) == 100
