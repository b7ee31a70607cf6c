"""The fast path against the specification, on blocks of many shapes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qnet_actors.ledger.execute import execute, open_batch
from qnet_actors.ledger.outcome import Outcome
from qnet_actors.ledger.reference import execute_reference
from qnet_actors.state import State
from qnet_actors.wire.batches import Batch
from qnet_actors.wire.blocks import RECEIPT_CODEC, WriteSet
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.limits import U64_MAX
from qnet_actors.wire.transactions import (
    GAS_TRANSFER,
    Access,
    MultiTransfer,
    Payment,
    RotateKey,
    Transfer,
)
from tests.ledger.world import a_batch, a_genesis, a_transaction, address, reward

GENESIS = a_genesis()
HEIGHT = 10
NEW_KEY = b"\x77" * 32
ACCOUNTS = 6

Rows = dict[bytes, tuple[int, int, bytes]]


def state_of(rows: Rows) -> State:
    ordered = sorted(rows.items())
    state = State()
    accounts = WriteSet(
        addresses=b"".join(a for a, _ in ordered),
        nonces=b"".join(v[0].to_bytes(8, "little") for _, v in ordered),
        balances=b"".join(v[1].to_bytes(8, "little") for _, v in ordered),
        key_ids=b"".join(v[2] for _, v in ordered),
    )
    state.load(HEIGHT - 1, accounts)
    return state


def both(batches: list[Batch], rows: Rows, rewards: list[bytes] | None = None) -> Outcome:
    """Executes on both paths, holds one to the other, and returns the outcome."""
    state = state_of(rows)
    names = rewards or [reward(batch.header.author) for batch in batches]
    bodies = [
        [batch.columns.body(row, batch.header) for row in range(batch.header.count)]
        for batch in batches
    ]
    slow = execute_reference(HEIGHT, list(zip(names, bodies, strict=True)), state)
    fast = execute(HEIGHT, [open_batch(batch) for batch in batches], names, state)
    assert fast == slow
    return fast


def statuses(outcome: Outcome) -> list[int]:
    return [RECEIPT_CODEC.decode(receipt).status for receipt in outcome.receipts]


def after(outcome: Outcome, rows: Rows) -> Rows:
    written = outcome.write_set
    result = dict(rows)
    for i in range(len(written.addresses) // 32):
        result[written.addresses[32 * i : 32 * i + 32]] = (
            int(np.frombuffer(written.nonces, "<u8")[i]),
            int(np.frombuffer(written.balances, "<u8")[i]),
            written.key_ids[32 * i : 32 * i + 32],
        )
    return result


# Few accounts and few values, so that the interesting ones meet.
people = st.integers(0, ACCOUNTS - 1)
names = st.one_of(people.map(address), st.integers(0, 3).map(reward), st.just(address(99)))
amounts = st.one_of(st.integers(0, 3_000), st.sampled_from([U64_MAX, U64_MAX - 1, 2**63, 2**62, 0]))
payments = st.builds(Payment, names, amounts)
multi = st.lists(payments, min_size=1, max_size=4).filter(
    lambda lines: sum(p.amount for p in lines) <= U64_MAX
)
actions = st.one_of(
    st.builds(Transfer, names, amounts),
    st.builds(Transfer, names, amounts),
    st.builds(Transfer, names, amounts),
    multi.map(lambda lines: MultiTransfer(tuple(lines))),
    st.builds(RotateKey, st.sampled_from([NEW_KEY, address(0), address(1)])),
)


@st.composite
def transactions(draw):
    sender = draw(people)
    access = draw(st.sampled_from([(), (), (), (Access(address(9), b"k", False),)]))
    return a_transaction(
        GENESIS,
        sender,
        draw(st.sampled_from([0, 0, 1, 1, 2, 3, 4, U64_MAX, U64_MAX - 1])),
        draw(actions),
        key_id=draw(st.sampled_from([address(sender), address(sender), NEW_KEY, address(0)])),
        gas_price=draw(st.sampled_from([1, 1, 2, 2**31])),
        valid_until=draw(st.sampled_from([0, 0, HEIGHT - 1, HEIGHT, HEIGHT + 1])),
        access=access,
    )


balances = st.one_of(
    st.integers(0, 12_000), st.sampled_from([U64_MAX, U64_MAX - 1, 2**63, 2**62, GAS_TRANSFER])
)
accounts = st.dictionaries(
    people.map(address),
    st.tuples(
        st.sampled_from([0, 0, 0, 1, U64_MAX, U64_MAX - 1]),
        balances,
        st.sampled_from([bytes(32), bytes(32), NEW_KEY, address(0), address(1)]),
    ),
)
blocks = st.lists(
    st.tuples(st.integers(0, 3), st.lists(transactions(), min_size=1, max_size=12)), max_size=4
)


@settings(max_examples=150, deadline=None)
@given(blocks, accounts)
@example([], {})
def test_fast_path_equals_the_reference(block, rows):
    batches = [a_batch(txs, author, i + 1) for i, (author, txs) in enumerate(block)]
    both(batches, rows)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_payees_and_authors_that_are_senders(data):
    """The reward addresses are accounts that send and receive in the same block."""
    block = data.draw(blocks)
    batches = [a_batch(txs, author, i + 1) for i, (author, txs) in enumerate(block)]
    rewards = [address(data.draw(people)) for _ in batches]
    rows = {address(n): (0, 10**9, bytes(32)) for n in range(ACCOUNTS)}
    both(batches, rows, rewards)


def rich(*numbers: int, balance: int = 10_000) -> Rows:
    return {address(n): (0, balance, bytes(32)) for n in numbers}


def test_transfer_moves_amount_and_fee():
    rows = rich(1)
    batch = a_batch([a_transaction(GENESIS, 1, 0, Transfer(address(2), 300), gas_price=2)])
    outcome = both([batch], rows)
    result = after(outcome, rows)
    assert statuses(outcome) == [Code.SUCCESS]
    assert result[address(1)] == (1, 10_000 - 300 - 2_000, address(1))
    assert result[address(2)] == (0, 300, bytes(32))
    assert result[reward(0)] == (0, 2_000, bytes(32))
    assert outcome.gas_used == GAS_TRANSFER


def test_overdraft_keeps_fee_and_nonce_and_loses_all_else():
    rows = rich(1)
    outcome = both([a_batch([a_transaction(GENESIS, 1, 0, Transfer(address(2), 9_001))])], rows)
    assert statuses(outcome) == [Code.INSUFFICIENT_BALANCE]
    assert after(outcome, rows)[address(1)] == (1, 9_000, address(1))
    assert address(2) not in after(outcome, rows)
    assert outcome.failed_count == 1


def test_multi_transfer_is_all_or_nothing():
    rows = {**rich(1), address(3): (0, U64_MAX, bytes(32))}
    lines = (Payment(address(2), 5), Payment(address(3), 5))
    outcome = both([a_batch([a_transaction(GENESIS, 1, 0, MultiTransfer(lines))])], rows)
    assert statuses(outcome) == [Code.BALANCE_OVERFLOW]
    assert set(after(outcome, rows)) == {address(1), address(3), reward(0)}


def test_not_included_leaves_nothing():
    rows = rich(1, 2)
    rows[address(4)] = (0, 500, bytes(32))
    batch = a_batch(
        [
            a_transaction(GENESIS, 1, 1),
            a_transaction(GENESIS, 2, 0, valid_until=HEIGHT - 1),
            a_transaction(GENESIS, 2, 0, key_id=NEW_KEY),
            a_transaction(GENESIS, 4, 0),
        ]
    )
    outcome = both([batch], rows)
    assert (outcome.ids, outcome.receipts, len(outcome.excluded)) == ([], [], 4)
    assert outcome.write_set.addresses == b""


def test_rotated_key_holds_at_once():
    rows = rich(1)
    batch = a_batch(
        [
            a_transaction(GENESIS, 1, 0, RotateKey(NEW_KEY)),
            a_transaction(GENESIS, 1, 1, Transfer(address(2), 1)),
            a_transaction(GENESIS, 1, 1, Transfer(address(2), 2), key_id=NEW_KEY),
        ]
    )
    outcome = both([batch], rows)
    assert statuses(outcome) == [Code.SUCCESS, Code.SUCCESS]
    assert after(outcome, rows)[address(1)] == (2, 10_000 - 2_000 - 1_000 - 2, NEW_KEY)
    assert len(outcome.excluded) == 1


def test_one_sender_many_nonces_and_a_copy_of_each():
    rows = rich(1, balance=10**9)
    once = [a_transaction(GENESIS, 1, nonce) for nonce in range(50)]
    outcome = both([a_batch(once, 0, 1), a_batch(once, 1, 2)], rows)
    assert len(outcome.receipts) == len(outcome.excluded) == 50
    assert after(outcome, rows)[address(1)][0] == 50
    assert reward(1) not in after(outcome, rows)


def test_received_money_can_be_sent_on_in_the_same_block():
    rows = rich(1)
    chain = [a_transaction(GENESIS, n, 0, Transfer(address(n + 1), 9_000 - 2_000 * n))
             for n in range(1, 5)]  # fmt: skip
    outcome = both([a_batch(chain)], rows)
    assert statuses(outcome) == [Code.SUCCESS] * 4


def test_zero_amount_to_nobody_creates_nobody():
    rows = rich(1)
    outcome = both([a_batch([a_transaction(GENESIS, 1, 0, Transfer(address(2), 0))])], rows)
    assert set(after(outcome, rows)) == {address(1), reward(0)}


def test_fees_that_overflow_stop_the_node():
    rows = {**rich(1), reward(0): (0, U64_MAX, bytes(32))}
    batch = a_batch([a_transaction(GENESIS, 1, 0)])
    body = batch.columns.body(0, batch.header)
    with pytest.raises(QnetError, match="supply"):
        execute(HEIGHT, [open_batch(batch)], [reward(0)], state_of(rows))
    with pytest.raises(QnetError, match="supply"):
        execute_reference(HEIGHT, [(reward(0), [body])], state_of(rows))


@pytest.mark.parametrize("count", [1, 200])
def test_receipts_of_every_gas_size(count):
    """Gas of two bytes takes the fast encoder, gas of four the slow one; both are canonical."""
    lines = tuple(Payment(address(100 + i), 1) for i in range(count))
    rows = rich(1, balance=10**9)
    outcome = both([a_batch([a_transaction(GENESIS, 1, 0, MultiTransfer(lines))])], rows)
    assert RECEIPT_CODEC.decode(outcome.receipts[0]).gas_used == 500 + 500 * count
