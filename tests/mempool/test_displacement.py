"""Who pays more takes the place of who pays least, in a shard that has all it may take on."""

from __future__ import annotations

from qnet_actors.rooms import Room, StatusChanged, Submit, SubmitResult
from qnet_actors.wire.codes import Code
from tests.mempool.exchange import pushed
from tests.mempool.world import Client, Driver, id_of, make_driver, settings

CLIENTS = [Client(number) for number in range(1, 9)]
ALICE, BOB, CAROL, DAVE = CLIENTS[:4]
PATIENT = settings(
    backlog_transactions_min=3,
    backlog_wait_ms=1_500,
    batch_wait_ms_min=10**6,
    batch_wait_ms_max=10**6,
)
"""What is taken stays ready."""


def full(*prices: int) -> Driver:
    driver = make_driver(settings=PATIENT)
    data = [client.send(0, price=price) for client, price in zip(CLIENTS, prices, strict=False)]
    assert driver.submit(*data) == [Code.SUCCESS] * len(data)
    return driver


def evicted(driver: Driver) -> list[bytes]:
    events = driver.sent.events(Room.GATEWAY, StatusChanged)
    return [id_ for event in events if event.status == "evicted" for id_ in event.ids]


def reason(driver: Driver) -> str:
    """Why the latest submission's only transaction was refused."""
    answer: SubmitResult = driver.sent.events(Room.GATEWAY, SubmitResult)[-1]
    return answer.results[0][2]


def test_only_a_higher_price_is_taken_and_the_lowest_leaves() -> None:
    driver = full(5, 9, 7)
    assert driver.submit(DAVE.send(0, price=5)) == [Code.BUSY]
    # Whoever was refused learns what would do.
    (result,) = driver.sent.events(Room.GATEWAY, SubmitResult)[-1].results
    assert result[1:] == (
        id_of(DAVE.send(0, price=5)),
        "at present only a gas price above 5 is taken",
    )
    assert driver.submit(DAVE.send(0, price=6)) == [Code.SUCCESS]
    assert evicted(driver) == [id_of(ALICE.send(0, price=5))]
    assert driver.shard.metrics.transactions_dropped["evicted"] == 1
    # What left may come again, for more than is the lowest now.
    assert driver.submit(ALICE.send(0, price=6)) == [Code.BUSY]
    assert driver.submit(ALICE.send(0, price=8)) == [Code.SUCCESS]
    assert driver.shard.metrics.pool_transactions == 3


def test_a_cheap_one_is_refused_without_a_look_at_its_signature() -> None:
    driver = full(5, 5, 5)
    before = driver.shard.metrics.signatures_verified
    assert driver.submit(DAVE.send(0, price=5), CLIENTS[4].send(0, price=4)) == [Code.BUSY] * 2
    assert driver.shard.metrics.signatures_verified == before
    forged = DAVE.send(0, price=6, signature=bytes(32))
    assert driver.submit(forged) == [Code.BAD_SIGNATURE]
    assert evicted(driver) == []


def test_each_newcomer_takes_one_place_and_the_last_find_none() -> None:
    driver = full(5, 6, 9)
    codes = driver.submit(*[client.send(0, price=7) for client in CLIENTS[3:]])
    assert codes == [Code.SUCCESS, Code.SUCCESS, Code.BUSY, Code.BUSY, Code.BUSY]
    assert evicted(driver) == [id_of(ALICE.send(0, price=5)), id_of(BOB.send(0, price=6))]


def test_who_waits_for_a_nonce_or_behind_a_cheap_one_of_his_own_displaces_nobody() -> None:
    driver = full(5, 6, 9)
    # Their prices would do, so no gateway may take them for what is refused to everybody.
    assert driver.submit(DAVE.send(1, price=50)) == [Code.POOL_FULL]
    assert reason(driver) == "the first nonce missing is 0; send it first"
    assert driver.submit(ALICE.send(1, price=50)) == [Code.POOL_FULL]
    told = "it waits for an earlier one; at present only a gas price above 5 is taken"
    assert reason(driver) == told
    assert driver.submit(DAVE.send(1, price=5), ALICE.send(1, price=5)) == [Code.BUSY] * 2
    assert evicted(driver) == []
    assert driver.submit(BOB.send(1, price=50)) == [Code.SUCCESS]
    # By then Bob's first, and so his second, are the lowest.
    assert evicted(driver) == [id_of(ALICE.send(0, price=5))]


def test_a_promised_one_at_the_end_keeps_its_place_and_the_next_one_leaves() -> None:
    driver = full(5, 6, 9)
    promised = driver.shard._pool.get(id_of(ALICE.send(0, price=5)))
    assert promised is not None
    promised.promised = True
    assert driver.submit(DAVE.send(0, price=6)) == [Code.BUSY]
    assert reason(driver) == "at present only a gas price above 6 is taken"
    assert driver.submit(DAVE.send(0, price=7)) == [Code.SUCCESS]
    assert evicted(driver) == [id_of(BOB.send(0, price=6))]


def test_a_replacement_needs_no_place() -> None:
    driver = full(5, 6, 9)
    assert driver.submit(ALICE.send(0, price=8)) == [Code.SUCCESS]
    assert evicted(driver) == []
    assert driver.submit(DAVE.send(0, price=7)) == [Code.SUCCESS]
    assert evicted(driver) == [id_of(BOB.send(0, price=6))]


def test_what_is_verified_meanwhile_may_lose_the_place_to_another() -> None:
    driver = full(5, 9, 9)
    driver.hold_runs = True
    driver.give(Submit(1, (DAVE.send(0, price=7),)))
    driver.hold_runs = False
    driver.run()
    assert evicted(driver) == [id_of(ALICE.send(0, price=5))]
    # One place that two want: the first in line has it, the second pays no more than what is left.
    driver.hold_runs = True
    driver.give(Submit(2, (ALICE.send(0, price=8),)))
    driver.hold_runs = False
    driver.run()
    assert driver.submit(CLIENTS[5].send(0, price=8)) == [Code.BUSY]
    assert evicted(driver)[1:] == [id_of(DAVE.send(0, price=7))]


def test_sealing_stops_where_two_thirds_of_the_backlog_are_in_batches() -> None:
    driver = make_driver(settings=settings(backlog_transactions_min=6, batch_transactions_max=2))
    data = [client.send(0, price=5) for client in CLIENTS[:6]]
    for each in data:
        assert driver.submit(each) == [Code.SUCCESS]
        driver.advance(300)
    assert [batch.header.count for batch in pushed(driver)] == [1, 1, 1, 1]
    assert driver.submit(CLIENTS[6].send(0, price=5)) == [Code.BUSY]
    assert driver.submit(CLIENTS[6].send(0, price=6)) == [Code.SUCCESS]
    assert evicted(driver) == [id_of(data[5])]
