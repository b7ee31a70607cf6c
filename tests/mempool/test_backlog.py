"""How much a shard takes on, and that it says `busy` before a queue is minutes long."""

from __future__ import annotations

from qnet_actors.mempool.backlog import Backlog
from qnet_actors.rooms import FromPeer, Room, Submit, SubmitResult
from qnet_actors.wire.codes import Code
from qnet_actors.wire.messages import BatchAcks
from tests.mempool.test_dissemination import pushed
from tests.mempool.world import Accounts, Client, Driver, block, make_driver, settings

CLIENTS = [Client(number) for number in range(1, 9)]
SMALL = settings(backlog_transactions_min=4, backlog_wait_ms=8_000)


def capacity(backlog: Backlog, now_ms: int) -> int:
    backlog.look(now_ms)
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
    # A pause lowers the rate by and by; what was long ago is no reason to take on.
    assert capacity(backlog, 5_000) == 450 // 4
    assert capacity(backlog, 6_000) == 10


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
