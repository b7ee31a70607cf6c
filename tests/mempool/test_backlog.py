"""How much a shard takes on, and that it says `busy` before a queue is minutes long."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pytest

from qnet_actors.mempool import MempoolSettings
from qnet_actors.mempool.backlog import Backlog
from qnet_actors.rooms import FromPeer, Room, Submit, SubmitResult
from qnet_actors.wire.codes import Code
from qnet_actors.wire.messages import BatchAcks
from tests.mempool.exchange import pushed
from tests.mempool.world import Accounts, Client, Driver, block, make_driver, settings

CLIENTS = [Client(number) for number in range(1, 9)]
SMALL = settings(backlog_transactions_min=4, backlog_wait_ms=8_000)


LOADED = 10**6


def capacity(backlog: Backlog, now_ms: int, under_way: int = LOADED) -> int:
    backlog.look(now_ms, under_way)
    return backlog.capacity


def test_capacity_is_what_the_last_seconds_execute_in_the_time_allowed() -> None:
    backlog = Backlog(settings(backlog_transactions_min=10, backlog_wait_ms=1_500))
    assert capacity(backlog, 0) == 10
    backlog.executed(60, 1_000)
    backlog.executed(40, 1_999)
    assert capacity(backlog, 1_999) == 150 // 4
    backlog.executed(300, 2_500)
    assert capacity(backlog, 2_600) == 150
    assert backlog.sealed_max == 100
    # While there is work, a pause lowers the rate by and by.
    assert capacity(backlog, 5_000) == 450 // 4
    assert capacity(backlog, 6_000) == 600 // 8
    assert capacity(backlog, 9_000) == 450 // 8
    assert capacity(backlog, 10_000) == 10


def test_what_was_not_asked_for_is_no_reason_to_take_on_less() -> None:
    backlog = Backlog(settings(backlog_transactions_min=10, backlog_wait_ms=1_000))
    backlog.executed(400, 1_000)
    assert capacity(backlog, 1_000, 400) == 100
    assert capacity(backlog, 60_000, 49) == 100
    backlog.executed(80, 60_000)
    assert capacity(backlog, 60_000, 49) == 100
    # More than ever counts at once, less where there was enough to do.
    backlog.executed(720, 61_000)
    assert capacity(backlog, 61_000, 0) == 200
    backlog.executed(160, 70_000)
    assert capacity(backlog, 70_000, 100) == 40


def busy(driver: Driver, client: Client, nonce: int) -> bool:
    (code,) = driver.submit(client.send(nonce))
    assert code in (Code.SUCCESS, Code.BUSY)
    return code == Code.BUSY


def test_a_shard_of_which_nothing_is_executed_takes_on_the_least_and_no_more() -> None:
    driver = make_driver(settings=SMALL)
    taken = [not busy(driver, client, 0) for client in CLIENTS]
    assert taken == [True] * 4 + [False] * 4
    driver.advance(1_000)
    # Batched is not executed.
    assert busy(driver, CLIENTS[5], 0)
    assert driver.shard.metrics.refused[Code.BUSY] == 5


def test_execution_makes_room_and_raises_the_bound() -> None:
    accounts = Accounts()
    driver = make_driver(settings=SMALL, accounts=accounts)
    assert not any(busy(driver, client, 0) for client in CLIENTS[:4])
    driver.advance(300)
    made = pushed(driver)
    for batch in made:
        for peer in (1, 2):
            driver.give(FromPeer(peer, BatchAcks((batch.digest,))))
    for client in CLIENTS[:4]:
        accounts.set(client.address, nonce=1)
    addresses = [client.address for client in CLIENTS[:4]]
    driver.give(block(accounts, batches=[batch.digest for batch in made], changed=addresses))
    # One a second was executed, so eight may be on their way.
    assert not any(busy(driver, client, 1) for client in CLIENTS[:4])
    assert not any(busy(driver, client, 0) for client in CLIENTS[4:])
    assert busy(driver, CLIENTS[0], 2)


def test_what_is_being_verified_counts_and_what_waits_behind_a_gap_does_not() -> None:
    driver = make_driver(settings=SMALL)
    driver.hold_runs = True
    driver.give(Submit(1, tuple(client.send(5) for client in CLIENTS[:4])))
    driver.give(Submit(2, (CLIENTS[4].send(0),)))
    codes = [r[0] for r in driver.sent.events(Room.GATEWAY, SubmitResult)[-1].results]
    assert codes == [Code.BUSY]
    driver.hold_runs = False
    driver.run()
    assert not any(busy(driver, client, 0) for client in CLIENTS[4:])


def test_what_takes_long_on_its_way_is_given_that_time_in_a_shard() -> None:
    accounts = Accounts()
    driver = make_driver(settings=settings(backlog_transactions_min=8), accounts=accounts)
    assert not any(busy(driver, client, 0) for client in CLIENTS)
    driver.advance(6_900)
    for client in CLIENTS:
        accounts.set(client.address, nonce=1)
    made = [batch.digest for batch in pushed(driver)]
    addresses = [client.address for client in CLIENTS]
    driver.give(block(accounts, batches=made, changed=addresses))
    driver.advance(300)
    # Eight in four seconds, each of which took more than half of the longest time.
    taken = [not busy(driver, client, nonce) for nonce in (1, 2) for client in CLIENTS]
    assert taken == [True] * 9 + [False] * 7


class Road:
    """What becomes of an endless supply: sealed as the backlog allows, executed later.

    `way_ms` from sealing to execution, by the time of sealing, and at most `served` a second.
    """

    STEP_MS = 100

    def __init__(self, offered: int, way_ms: Callable[[int], int], served: int = 10**6) -> None:
        self.offered, self._way_ms, self.served = offered, way_ms, served
        self.backlog = Backlog(MempoolSettings())
        self.now_ms = 0
        self.refused = 0
        self._ready = 0
        self._sealed: deque[tuple[int, int, int]] = deque()
        """(when it may be executed, when it was sealed, transactions)."""

    @property
    def sealed(self) -> int:
        return sum(count for _, _, count in self._sealed)

    @property
    def under_way(self) -> int:
        return self._ready + self.sealed

    def run(self, seconds: int) -> int:
        """Transactions executed in so many seconds."""
        end_ms, done = self.now_ms + seconds * 1_000, 0
        while self.now_ms < end_ms:
            self.now_ms += self.STEP_MS
            done += self._execute()
            self.backlog.look(self.now_ms, self.under_way)
            room = max(0, self.backlog.capacity - self.under_way)
            supply = self.offered * self.STEP_MS // 1_000
            self._ready += min(room, supply)
            self.refused += max(0, supply - room)
            count = min(self._ready, self.backlog.sealed_max - self.sealed)
            if count > 0:
                due_ms = self.now_ms + self._way_ms(self.now_ms)
                self._sealed.append((due_ms, self.now_ms, count))
                self._ready -= count
        return done

    def _execute(self) -> int:
        left, ages_ms = self.served * self.STEP_MS // 1_000, list[int]()
        served = left
        while left and self._sealed and self._sealed[0][0] <= self.now_ms:
            due_ms, at_ms, count = self._sealed.popleft()
            if count > left:
                self._sealed.appendleft((due_ms, at_ms, count - left))
                left = 0
            else:
                left -= count
                ages_ms.append(self.now_ms - at_ms)
        if left < served:
            self.backlog.executed(served - left, self.now_ms, ages_ms)
        return served - left


@pytest.mark.parametrize("way_ms", [300, 600, 1_000, 2_000])
def test_a_long_way_does_not_wear_the_rate_down(way_ms: int) -> None:
    road = Road(4_000, lambda now_ms: 300 if now_ms < 20_000 else way_ms)
    road.run(240)
    assert road.run(60) >= 0.98 * 60 * 4_000
    assert road.run(600) >= 0.98 * 600 * 4_000


def test_a_way_that_is_long_by_turns_does_not_either() -> None:
    road = Road(4_000, lambda now_ms: 1_000 if now_ms % 1_500 < 700 else 2_000)
    road.run(240)
    assert road.run(60) >= 0.95 * 60 * 4_000


def test_an_overload_makes_no_long_queue() -> None:
    road = Road(6_000, lambda _: 300, served=2_000)
    road.run(120)
    assert road.backlog.wait_ms(road.now_ms) == 3_000
    assert road.sealed <= 4_000
    # However long it lasts, there is an end to it.
    road.run(1_200)
    assert road.sealed <= 2_000 * 3
    assert road.backlog.capacity <= 2_000 * 4.5
    # A lull shows how it is.
    road.offered = 100
    road.run(16)
    assert road.backlog.wait_ms(road.now_ms) == 3_000


def test_half_the_load_after_an_overload_is_refused_at_no_short_stall() -> None:
    road = Road(6_000, lambda _: 300, served=2_000)
    road.run(20)
    assert road.refused
    road.offered = 1_000
    road.run(3)
    road.refused = 0
    for _ in range(8):
        road.run(2)
        road.served = 0
        road.run(2)
        road.served = 2_000
    assert not road.refused


def test_a_rate_of_before_is_forgotten_where_work_shows_that_it_is_gone() -> None:
    road = Road(6_000, lambda _: 300, served=2_000)
    road.run(20)
    road.offered = 200
    road.run(60)
    assert road.backlog.capacity == 6_000
    road.offered, road.served = 6_000, 500
    road.run(15)
    assert 1_000 <= road.backlog.capacity <= 1_500
    assert road.under_way <= 1_500
