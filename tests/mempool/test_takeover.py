"""Batches of a dead author: who pools what they promise, when, and how much at a time."""

from __future__ import annotations

from itertools import pairwise

import pytest

from qnet_actors.rooms import BatchReady, Room, StatusChanged
from qnet_actors.wire.batches import Batch
from qnet_actors.wire.codes import Code
from tests.mempool.exchange import batch, give, pushed
from tests.mempool.world import (
    Accounts,
    Bus,
    Client,
    Driver,
    block,
    make_driver,
    settings,
)

ALICE, BOB = Client(1), Client(2)
OWN = 0


def taken_over(driver: Driver) -> int:
    return driver.shard.metrics.batches_taken_over


def execute(driver: Driver, *made: Batch) -> None:
    driver.give(block(Accounts(), batches=[each.digest for each in made]))


def own_nonces(driver: Driver) -> list[int]:
    return [int(nonce) for made in pushed(driver) for nonce in made.columns.nonces]


def test_what_was_passed_over_is_pooled_and_batched_once() -> None:
    driver = make_driver(own_index=OWN)
    give(driver, 3, batch(1, 3))
    driver.advance(2_000)
    assert taken_over(driver) == 0
    later = batch(1, 1, client=BOB)
    give(driver, 1, later)
    execute(driver, later)
    driver.advance(1_000)
    assert (taken_over(driver), own_nonces(driver)) == (1, [0, 1, 2])
    driver.advance(60_000)
    assert (taken_over(driver), own_nonces(driver)) == (1, [0, 1, 2])


def test_what_is_executed_in_time_is_left_to_its_author() -> None:
    driver = make_driver(own_index=OWN)
    for sequence in range(1, 30):
        made = batch(sequence, 3, client=Client(sequence))
        give(driver, 3, made)
        driver.advance(1_500)
        execute(driver, made)
    assert (taken_over(driver), own_nonces(driver)) == (0, [])


def test_where_all_stands_still_nobody_hurries() -> None:
    driver = make_driver(own_index=OWN)
    give(driver, 3, batch(1, 3))
    driver.advance(3_900)
    assert taken_over(driver) == 0
    driver.advance(500)
    assert taken_over(driver) == 1


def test_nothing_is_sealed_twice_where_execution_is_late_but_goes_on() -> None:
    driver = make_driver(own_index=OWN)
    waiting = [batch(n, 3, client=Client(n)) for n in range(1, 11)]
    give(driver, 3, *waiting)
    for _ in range(7):
        driver.advance(1_000)
        execute(driver, waiting.pop(0))
    assert (taken_over(driver), own_nonces(driver)) == (0, [])
    driver.advance(1_900)
    assert taken_over(driver) == 0
    driver.advance(1_500)
    assert taken_over(driver) == len(waiting)


@pytest.mark.parametrize(("author", "turns"), [(3, 0), (2, 1), (1, 2)])
def test_the_next_in_turn_begins(author: int, turns: int) -> None:
    driver = make_driver(own_index=OWN)
    give(driver, author, batch(1, author))
    later = batch(1, author % 3 + 1, client=BOB)
    driver.advance(2_000 + 500 * turns)
    give(driver, later.header.author, later)
    execute(driver, later)
    driver.advance(260)
    assert taken_over(driver) == 1
    early = make_driver(own_index=OWN)
    give(early, author, batch(1, author))
    early.advance(2_000 + 500 * turns - 300)
    give(early, later.header.author, later)
    execute(early, later)
    early.advance(1_500)
    assert taken_over(early) == 0


def test_what_is_spent_is_not_pooled() -> None:
    accounts = Accounts()
    driver = make_driver(own_index=OWN, accounts=accounts)
    give(driver, 3, batch(1, 3))
    accounts.set(ALICE.address, nonce=2)
    driver.advance(6_000)
    assert own_nonces(driver) == [2]


def test_what_the_pool_left_to_the_batch_waits_for_it_no_longer() -> None:
    driver = make_driver(own_index=OWN, settings=settings(seen_wait_ms=100_000))
    # Two batches come in the moment in which the first submission is still unsealed.
    driver.hold_runs = True
    give(driver, 3, batch(1, 3))
    driver.hold_runs = False
    assert driver.submit(*(ALICE.send(n) for n in range(3))) == [Code.SUCCESS] * 3
    while driver.runs:
        driver.run()
    driver.advance(6_000)
    assert own_nonces(driver) == [0, 1, 2]
    assert taken_over(driver) == 1


def ended(driver: Driver) -> list[tuple[str, tuple[bytes, ...]]]:
    return [(e.status, e.ids) for e in driver.sent.events(Room.GATEWAY, StatusChanged)]


@pytest.mark.parametrize("known", [False, True])
def test_what_is_taken_over_gives_way_to_nobody_who_pays_more(known: bool) -> None:
    patient = settings(
        backlog_transactions_min=3,
        backlog_wait_ms=1_500,
        batch_wait_ms_min=10**6,
        batch_wait_ms_max=10**6,
    )
    driver = make_driver(own_index=OWN, settings=patient)
    if known:
        assert driver.submit(*(ALICE.send(n) for n in range(3))) == [Code.SUCCESS] * 3
    give(driver, 3, batch(1, 3))
    driver.advance(4_500)
    assert taken_over(driver) == 1
    assert driver.shard.metrics.pool_transactions == 3
    assert driver.submit(BOB.send(0, price=900)) == [Code.BUSY]
    assert ended(driver) == []
    assert driver.shard.metrics.pool_transactions == 3


def test_a_full_pool_says_nothing_of_what_it_drops_of_a_live_batch() -> None:
    small = settings(pool_transactions_max=3, batch_wait_ms_min=10**6, batch_wait_ms_max=10**6)
    driver = make_driver(own_index=OWN, settings=small)
    give(driver, 3, batch(1, 3))
    driver.advance(4_500)
    assert driver.submit(ALICE.send(2, price=900)) == [Code.NONCE_TOO_LOW]
    assert driver.submit(BOB.send(0, price=900)) == [Code.SUCCESS]
    assert driver.shard.metrics.pool_transactions == 3
    assert ended(driver) == []
    # Of what clients brought here, and nobody else has, it does.
    assert driver.submit(*(Client(n).send(0, price=901) for n in (3, 4, 5))) == [Code.SUCCESS] * 3
    assert [status for status, _ in ended(driver)] == ["evicted"]


def test_an_author_that_lets_all_lie_makes_little_work_at_a_time() -> None:
    driver = make_driver(own_index=OWN, settings=settings(batch_transactions_max=8))
    for sequence in range(1, 11):
        give(driver, 3, batch(sequence, 3, client=Client(sequence), count=4))
    seen = []
    for _ in range(24):
        driver.advance(250)
        seen.append(taken_over(driver))
    steps = [after - before for before, after in pairwise(seen)]
    assert max(steps) == 2
    assert seen[-1] == 10


def test_all_that_a_dead_author_promised_is_offered_by_others_within_seconds() -> None:
    drivers = [make_driver(own_index=index) for index in range(4)]
    bus = Bus(drivers)
    senders = [Client(n) for n in range(10, 16)]
    for sender in senders:
        assert drivers[1].submit(sender.send(0)) == [Code.SUCCESS]
        # What follows goes to another validator, and waits there for what comes before.
        assert drivers[3].submit(sender.send(1)) == [Code.SUCCESS]
    bus.run(400)
    (promised,) = [e.ref for e in drivers[1].sent.events(Room.VALIDATOR, BatchReady)]
    bus.loses = lambda sender, receiver, message: 1 in (sender, receiver)
    bus.run(6_000)
    by_others = [
        event.ref.digest
        for driver in (drivers[0], drivers[2], drivers[3])
        for event in driver.sent.events(Room.VALIDATOR, BatchReady)
    ]
    assert promised.digest not in by_others
    carried = set()
    for digest in by_others:
        made = drivers[0].store.get(digest)
        carried |= {row.tobytes() for row in made.columns.senders}
    assert carried == {sender.address for sender in senders}
