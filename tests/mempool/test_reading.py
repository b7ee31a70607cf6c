"""Submissions read as columns give what reading each transaction by itself gives."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnet_actors.mempool.entries import Entry
from qnet_actors.mempool.keys import KeyStore
from qnet_actors.mempool.pool import Pool
from qnet_actors.mempool.reading import Reading, Result
from qnet_actors.mempool.senders import Account
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code
from qnet_actors.wire.messages import PublicKey
from qnet_actors.wire.schemes import Scheme, key_id
from qnet_actors.wire.transactions import Transaction
from tests.mempool.world import CHAIN_ID, SCHEME, ZERO, Client, settings
from tests.strategies import bodies, raw_transactions, signed, small_schemes

ALICE, BOB = Client(1), Client(2)
HEIGHT = 5
SCHEMES = frozenset({int(SCHEME), int(Scheme.ED25519)})


def reading(*pooled: Entry) -> Reading:
    pool = Pool(settings())
    for each in pooled:
        assert pool.add(each, Account(0, 2**62, ZERO)).code == Code.SUCCESS
    keys = KeyStore(10, [PublicKey(SCHEME, ALICE.public_key)])
    return Reading(chain_id=CHAIN_ID, schemes=SCHEMES, pool=pool, keys=keys, epochs_end=False)


def fields_of(entry: Entry) -> dict[str, Any]:
    fields = msgspec.structs.asdict(entry)
    # Which of its keys are at hand is a matter of the store, and is looked up later otherwise.
    if not entry.brings_key:
        fields["public_key"] = b""
    return fields


def check(subject: Reading, transactions: list[bytes]) -> list[Result | None]:
    """Holds the columns to `_decode`, transaction by transaction; returns the refusals."""
    results: list[Result | None] = [None] * len(transactions)
    found = subject.read(tuple(transactions), HEIGHT, results)
    expected: list[Result | None] = [None] * len(transactions)
    alone = [subject._decode(data, HEIGHT, expected, at) for at, data in enumerate(transactions)]
    assert results == expected
    assert found.places == [at for at, entry in enumerate(alone) if entry is not None]
    rows = found.rows
    for row, (place, entry) in enumerate(zip(found.places, rows.entries, strict=True)):
        other = alone[place]
        assert other is not None
        assert fields_of(entry) == fields_of(other)
        assert (entry.payload, entry.signature) == (other.payload, other.signature)
        assert found.senders[row].tobytes() == entry.sender
        assert found.key_ids[row].tobytes() == entry.key_id
        assert (rows.nonces[row], rows.prices[row]) == (entry.nonce, entry.gas_price)
        assert rows.sizes[row] == entry.size_bytes
        assert rows.costs[row] == min(entry.cost, 2**64 - 1)
        if rows.plain[row]:
            assert rows.costs[row] == entry.cost
            assert not entry.rotates_to
        start = sum(map(len, transactions[:place]))
        assert found.ends[row] == start + entry.payload_end
    return results


@st.composite
def keyed(draw: st.DrawFn) -> Transaction:
    """A transaction that brings the key which its key id names, or perhaps another."""
    transaction: Transaction = draw(
        signed(bodies(chain_id=CHAIN_ID, valid=True), draw(small_schemes))
    )
    key = transaction.witness.public_key
    if key and draw(st.booleans()):
        named = key_id(transaction.witness.scheme, key)
        body = msgspec.structs.replace(transaction.body, key_id=named)
        transaction = msgspec.structs.replace(transaction, body=body)
    return transaction


@st.composite
def submitted(draw: st.DrawFn) -> bytes:
    """Bytes of a transaction, most of them good, some cut, changed or of something else."""
    plain = signed(bodies(chain_id=CHAIN_ID, valid=True, plain=True), SCHEME)
    loose = signed(bodies(chain_id=CHAIN_ID, plain=True), SCHEME)
    data = encode(draw(plain | keyed() | loose | raw_transactions))
    match draw(st.integers(0, 5)):
        case 0:
            at = draw(st.integers(0, len(data) - 1))
            return data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]
        case 1:
            return data[: draw(st.integers(0, len(data)))] + draw(st.binary(max_size=2))
        case _:
            return data


@given(st.lists(submitted(), min_size=1, max_size=8))
def test_columns_say_what_each_transaction_says(transactions: list[bytes]) -> None:
    check(reading(), transactions)


@pytest.mark.parametrize("at", range(0, 420, 3))
def test_every_changed_byte_is_seen(at: int) -> None:
    data = ALICE.send(300, valid_until=70_000, price=200, amount=2**40)
    for value in (0, 0x7F, 0xC4, 0xCC, 0xCF, 0xFF):
        for place in range(at, at + 3):
            place %= len(data)
            check(reading(), [data[:place] + bytes([value]) + data[place + 1 :], BOB.send(0)])


def test_edges_of_what_is_plain() -> None:
    fine = [
        ALICE.send(0, amount=2**64 - 1, price=1),
        ALICE.send(2**64 - 1, price=2**31, gas_limit=2**31, amount=1),
        ALICE.send(0, valid_until=HEIGHT + 1, with_key=False),
    ]
    assert check(reading(), fine) == [None] * 3
    wrong = [
        ALICE.send(0, valid_until=HEIGHT),
        ALICE.send(0, price=2**31 + 1),
        ALICE.send(0, gas_limit=2**31 + 1),
        ALICE.send(0, gas_limit=999),
        ALICE.send(0, price=0),
        b"",
    ]
    results = check(reading(), wrong)
    assert all(result is not None for result in results)


def test_a_key_that_is_not_the_named_one_is_refused() -> None:
    transaction = ALICE.transaction(0)
    witness = msgspec.structs.replace(transaction.witness, public_key=BOB.public_key)
    (result,) = check(reading(), [encode(msgspec.structs.replace(transaction, witness=witness))])
    assert result is not None
    assert result[0] == Code.UNKNOWN_KEY


def test_what_the_pool_has_is_a_duplicate() -> None:
    empty = reading()
    results: list[Result | None] = [None]
    (entry,) = empty.read((ALICE.send(0),), HEIGHT, results).rows.entries
    refused = check(reading(entry), [ALICE.send(1), ALICE.send(0)])
    assert refused[0] is None
    assert refused[1] == (Code.DUPLICATE, entry.id, Code.DUPLICATE.description)
