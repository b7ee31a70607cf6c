"""Entries are cut out of a transaction's bytes, and found again in a batch's columns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnet_actors.kernels.expand import expand
from qnet_actors.mempool.entries import BATCHED, entries_of_batch, entry_of, rows_of
from qnet_actors.wire.batches import build_batch
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import QnetError
from qnet_actors.wire.transactions import (
    RotateKey,
    Transaction,
    amount_total,
    payload_bytes,
    transaction_id,
)
from tests.mempool.world import CHAIN_ID, SCHEME, Client, digest_of
from tests.strategies import bodies, raw_transactions, signed


@given(raw_transactions)
def test_lengths_of_the_canonical_form_are_known(transaction: Transaction) -> None:
    body = transaction.body
    entry = entry_of(transaction, encode(transaction))
    assert entry.id == transaction_id(encode(body))
    assert entry.payload == payload_bytes(body)
    assert entry.cost == amount_total(body.action) + body.gas_limit * body.gas_price
    action = body.action
    assert entry.rotates_to == (action.key_id if isinstance(action, RotateKey) else b"")
    assert (entry.sender, entry.key_id, entry.nonce) == (body.sender, body.key_id, body.nonce)
    assert entry.signature == transaction.witness.signature


@given(st.lists(signed(bodies(chain_id=CHAIN_ID, valid=True), SCHEME), min_size=1, max_size=4))
def test_a_batch_gives_back_its_entries(transactions: list[Transaction]) -> None:
    batch = build_batch(transactions, chain_id=CHAIN_ID, epoch=0, author=0, shard=0, sequence=1)
    found = entries_of_batch(batch, expand(batch))
    for entry, transaction in zip(found, transactions, strict=True):
        made = entry_of(transaction, encode(transaction))
        assert (entry.id, entry.payload, entry.cost) == (made.id, made.payload, made.cost)
        assert (entry.nonce, entry.valid_until) == (made.nonce, made.valid_until)
        assert (entry.rotates_to, entry.signature) == (made.rotates_to, made.signature)
        assert (entry.gas_limit, entry.gas_price) == (made.gas_limit, made.gas_price)
        assert (entry.state, entry.batch) == (BATCHED, batch.digest)


def test_the_keys_of_a_batch_are_given_to_their_rows() -> None:
    alice, bob = Client(1), Client(2)
    transactions = [
        alice.transaction(0),
        bob.transaction(0, with_key=False),
        alice.transaction(1, with_key=False),
    ]
    batch = build_batch(transactions, chain_id=CHAIN_ID, epoch=0, author=0, shard=0, sequence=1)
    found = entries_of_batch(batch, expand(batch))
    assert [entry.public_key for entry in found] == [alice.public_key, b"", alice.public_key]


def test_rows_of_a_column() -> None:
    rows = [digest_of(i) for i in range(5)]
    column = np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(5, 32)
    assert rows_of(column) == rows
    assert rows_of(column[1::2]) == rows[1::2]
    with pytest.raises(QnetError):
        rows_of(column.ravel())
