"""Admission by columns does what admission of each transaction by itself does."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from qnet_actors.kernels.expand import expand
from qnet_actors.rooms import Room, StatusChanged, Submit, SubmitResult
from qnet_actors.wire.batches import decode_batch
from qnet_actors.wire.messages import Batches
from tests.mempool.world import Accounts, Client, Driver, block, make_driver, settings

CLIENTS = [Client(number) for number in range(1, 5)]
SETTINGS = settings(
    pool_transactions_max=40, sender_transactions_max=12, nonce_window=6, keys_max=6
)


def transactions() -> st.SearchStrategy[tuple[int, int, int, str]]:
    """(client, nonce ahead of the account, price, what is special)."""
    kinds = ["plain"] * 8 + ["forged", "keyless", "poor", "rotate", "rotated", "expiring", "noise"]
    return st.tuples(
        st.integers(0, 3), st.integers(0, 9), st.sampled_from([5, 5, 5, 9]), st.sampled_from(kinds)
    )


STEPS = st.lists(
    st.one_of(
        st.lists(transactions(), min_size=1, max_size=12).map(lambda t: ("submit", t)),
        st.tuples(st.integers(0, 3), st.integers(1, 4)).map(lambda t: ("run", t)),
        st.integers(0, 3).map(lambda t: ("finish", t)),
        st.tuples(st.integers(0, 3), st.integers(1, 3)).map(lambda t: ("block", t)),
        st.integers(1, 300).map(lambda t: ("wait", t)),
    ),
    min_size=3,
    max_size=25,
)


class Twin:
    """A shard with steps done to it; `simple`: no row is ever taken as a column."""

    def __init__(self, *, simple: bool) -> None:
        self.accounts = Accounts()
        self.nonces = [0] * len(CLIENTS)
        self.height = 0
        self.driver: Driver = make_driver(accounts=self.accounts, settings=SETTINGS)
        self.driver.hold_runs = True
        if simple:
            columns: Any = self.driver.shard._pool.columns
            columns.check = lambda slots, *_: np.zeros(len(slots), dtype=np.bool_)
            columns.add = lambda slots, *_: (
                np.zeros(len(slots), dtype=np.bool_),
                np.zeros(len(slots), dtype=np.uint64),
                np.zeros((len(slots), 2), dtype=np.uint64),
            )

    def data(self, client: int, ahead: int, price: int, kind: str) -> bytes:
        sender, nonce = CLIENTS[client], self.nonces[client] + ahead
        fields: dict[str, Any] = {"price": price}
        match kind:
            case "forged":
                fields["signature"] = bytes(32)
            case "keyless":
                fields["with_key"] = False
            case "poor":
                fields["amount"] = 10**12 - 9_000
            case "rotate":
                return sender.rotate(nonce, sender.rotated(60 + client), **fields)
            case "rotated":
                return sender.rotated(60 + client).send(nonce, **fields)
            case "expiring":
                fields["valid_until"] = 2
            case "noise":
                return sender.send(nonce, **fields)[:-1]
        return sender.send(nonce, **fields)

    def do(self, kind: str, value: Any) -> None:
        driver = self.driver
        match kind:
            case "submit":
                driver.give(Submit(1, tuple(self.data(*terms) for terms in value)))
            case "run":
                client, count = value
                terms = [(client, ahead, 5, "plain") for ahead in range(count)]
                driver.give(Submit(1, tuple(self.data(*each) for each in terms)))
            case "finish":
                if driver.runs:
                    driver.run(value % len(driver.runs))
            case "block":
                client, count = value
                self.height += 1
                self.nonces[client] += count
                address = CLIENTS[client].address
                _, balance, key = self.accounts.get(address)
                self.accounts.set(address, self.nonces[client], balance - 10**4, key)
                driver.give(
                    block(
                        self.accounts,
                        height=self.height,
                        commit_index=self.height,
                        changed=[address],
                    )
                )
            case "wait":
                driver.advance(value)

    def outcome(self) -> tuple[Any, ...]:
        sent = self.driver.sent
        answers = [event.results for event in sent.events(Room.GATEWAY, SubmitResult)]
        statuses = [(e.status, set(e.ids)) for e in sent.events(Room.GATEWAY, StatusChanged)]
        batches = [
            {row.tobytes() for row in expand(decode_batch(data)).ids}
            for message in self.driver.messages(Batches)
            for data in message.batches
        ]
        shard = self.driver.shard
        pool = {entry.id: (entry.state, bool(entry.ticket)) for entry in shard._pool}
        ends = [
            shard.next_nonce(client.address, nonce)
            for client, nonce in zip(CLIENTS, self.nonces, strict=True)
        ]
        return answers, statuses, batches, pool, shard._pool.size_bytes, ends


@given(STEPS)
@hypothesis_settings(max_examples=60, deadline=None)
def test_columns_and_single_transactions_agree(steps: list[tuple[str, Any]]) -> None:
    columns, simple = Twin(simple=False), Twin(simple=True)
    for kind, value in steps:
        columns.do(kind, value)
        simple.do(kind, value)
    for twin in (columns, simple):
        while twin.driver.runs:
            twin.driver.run()
        twin.driver.advance(500)
    assert columns.outcome() == simple.outcome()
    senders = {entry.sender for entry in columns.driver.shard._pool}
    # Nothing is kept of those who have nothing in the pool.
    assert len(columns.driver.shard._pool.columns) == len(senders)


def test_most_of_what_comes_is_taken_as_columns() -> None:
    twin = Twin(simple=False)
    for start in (0, 4):
        for client in range(4):
            twin.do("submit", [(client, start + ahead, 5, "plain") for ahead in range(4)])
            twin.do("finish", 0)
    pool = twin.driver.shard._pool
    assert len(pool) == 32
    assert not pool._queues
    twin.do("block", (0, 3))
    assert len(pool) == 29
    assert not pool._queues
