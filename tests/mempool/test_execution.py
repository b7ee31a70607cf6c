"""What executed blocks do to the pool, and the statuses that clients are told."""

from __future__ import annotations

from qnet_actors.mempool.store import DropBatches, Executed
from qnet_actors.rooms import (
    BatchesExpiring,
    BatchesReleased,
    CheckpointCertified,
    FromPeer,
    Room,
    StatusChanged,
)
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code
from qnet_actors.wire.messages import BatchAcks
from tests.mempool.exchange import acknowledged, batch, give, offered, pushed, pushed_ids
from tests.mempool.world import (
    BALANCE,
    GAS,
    Accounts,
    Client,
    Driver,
    block,
    certificate,
    digest_of,
    id_of,
    make_driver,
    settings,
)

ALICE, BOB = Client(1), Client(2)


def statuses(driver: Driver) -> list[tuple[str, tuple[bytes, ...]]]:
    events = driver.sent.events(Room.GATEWAY, StatusChanged)
    return [(event.status, event.ids) for event in events if event.status != "batched"]


def world(**fields) -> tuple[Driver, Accounts]:
    accounts = Accounts()
    return make_driver(accounts=accounts, **fields), accounts


def in_pool(driver: Driver) -> int:
    return driver.shard.metrics.pool_transactions


def test_executed_transactions_leave_and_the_batch_is_marked() -> None:
    driver, accounts = world()
    made = acknowledged(driver, ALICE.send(0), ALICE.send(1), BOB.send(0))
    accounts.set(ALICE.address, nonce=2)
    accounts.set(BOB.address, nonce=1)
    driver.give(
        block(
            accounts,
            height=7,
            commit_index=9,
            batches=[made.digest, digest_of(3)],
            changed=[BOB.address, digest_of(99), ALICE.address],
        )
    )
    assert in_pool(driver) == 0
    # The gateway hears of the block itself.
    assert statuses(driver) == []
    assert driver.writes[-1] == Executed((made.digest,), 7, 9)
    assert driver.submit(ALICE.send(1)) == [Code.NONCE_TOO_LOW]


def test_a_nonce_gap_goes_back_to_the_pool_and_into_another_batch() -> None:
    driver, accounts = world()
    made = acknowledged(driver, ALICE.send(0), ALICE.send(1), ALICE.send(2))
    accounts.set(ALICE.address, nonce=1)
    excluded = [id_of(ALICE.send(n)) for n in (1, 2)]
    driver.give(block(accounts, batches=[made.digest], excluded=excluded, changed=[ALICE.address]))
    assert statuses(driver) == []
    assert in_pool(driver) == 2
    driver.advance(300)
    assert pushed_ids(driver)[-2:] == excluded
    assert driver.shard.metrics.transactions_restored == 2
    # The client hears again that it is batched, once a quorum holds the second batch.
    assert [each.header.sequence for each in pushed(driver)] == [1, 2]


def test_excluded_elsewhere_while_its_own_batch_still_comes() -> None:
    driver, accounts = world()
    acknowledged(driver, ALICE.send(0))
    driver.give(block(accounts, batches=[digest_of(5)], excluded=[id_of(ALICE.send(0))]))
    driver.advance(1_000)
    assert in_pool(driver) == 1
    assert driver.shard.metrics.transactions_restored == 0
    assert len(pushed(driver)) == 1


def test_what_ran_out_of_retries_is_evicted() -> None:
    driver, accounts = world(settings=settings(restores_max=2))
    data = ALICE.send(0)
    made = acknowledged(driver, data)
    for _ in range(3):
        assert statuses(driver) == []
        driver.give(block(accounts, batches=[made.digest], excluded=[id_of(data)]))
        driver.advance(300)
        made = pushed(driver)[-1]
        for peer in (1, 2):
            driver.give(FromPeer(peer, BatchAcks((made.digest,))))
    assert statuses(driver) == [("evicted", (id_of(data),))]
    assert in_pool(driver) == 0


def test_expired_in_the_pool_and_in_a_batch() -> None:
    driver, accounts = world()
    carried, waiting = ALICE.send(0, valid_until=5), BOB.send(1, valid_until=5)
    made = acknowledged(driver, carried)
    assert driver.submit(waiting) == [Code.SUCCESS]
    driver.give(block(accounts, height=4))
    assert statuses(driver) == []
    driver.give(block(accounts, height=5))
    # What is in a batch ends when the batch is executed without it.
    assert statuses(driver) == [("expired", (id_of(waiting),))]
    driver.give(block(accounts, height=6, batches=[made.digest], excluded=[id_of(carried)]))
    assert statuses(driver)[1:] == [("expired", (id_of(carried),))]
    assert driver.submit(ALICE.send(0, valid_until=6)) == [Code.EXPIRED]
    assert driver.submit(ALICE.send(0, valid_until=7)) == [Code.SUCCESS]


def test_unpayable_at_its_turn() -> None:
    driver, accounts = world()
    data = ALICE.send(0, amount=BALANCE // 2)
    made = acknowledged(driver, data, ALICE.send(1))
    accounts.set(ALICE.address, nonce=0, balance=1)
    ids = [id_of(data), id_of(ALICE.send(1))]
    driver.give(block(accounts, batches=[made.digest], excluded=ids))
    # The one after it met a gap: it waits for another with the nonce before it.
    assert statuses(driver) == [("unpayable", (ids[0],))]
    assert in_pool(driver) == 1
    driver.advance(1_000)
    assert len(pushed(driver)) == 1


def test_pending_ones_that_a_block_left_unpayable_go_from_the_last() -> None:
    driver, accounts = world()
    cost = 10 * GAS + 1
    # They wait for nonce 0, which another validator carries.
    waiting = [ALICE.send(n) for n in (1, 2, 3)]
    assert driver.submit(*waiting) == [0, 0, 0]
    accounts.set(ALICE.address, nonce=1, balance=2 * cost)
    driver.give(block(accounts, changed=[ALICE.address], bodies=[b"another"]))
    assert statuses(driver) == [("unpayable", (id_of(waiting[2]),))]
    driver.advance(300)
    assert pushed_ids(driver) == [id_of(data) for data in waiting[:2]]


def test_a_later_block_may_have_paid_the_sender() -> None:
    driver, accounts = world()
    assert driver.submit(ALICE.send(1)) == [0]
    accounts.set(ALICE.address, nonce=1, balance=1)
    poor = block(accounts, height=1, changed=[ALICE.address])
    # The state is ahead of the blocks that were told.
    accounts.set(ALICE.address, nonce=1, balance=BALANCE)
    driver.give(poor)
    assert statuses(driver) == []
    assert in_pool(driver) == 1


def test_another_transaction_took_the_nonce() -> None:
    driver, accounts = world()
    data = ALICE.send(0)
    acknowledged(driver, data)
    other = ALICE.transaction(0, amount=5)
    accounts.set(ALICE.address, nonce=1)
    driver.give(
        block(
            accounts,
            batches=[digest_of(4)],
            bodies=[encode(other.body)],
            changed=[ALICE.address],
        )
    )
    assert statuses(driver) == [("nonce_too_low", (id_of(data),))]


def test_executed_by_anothers_batch_is_executed() -> None:
    driver, accounts = world()
    data = ALICE.send(0)
    acknowledged(driver, data)
    accounts.set(ALICE.address, nonce=1)
    body = encode(ALICE.transaction(0).body)
    driver.give(block(accounts, batches=[digest_of(4)], bodies=[body], changed=[ALICE.address]))
    assert statuses(driver) == []
    assert in_pool(driver) == 0
    # Its own batch is on its way all the same.
    assert driver.shard.metrics.batches_unexecuted == 1


def test_left_to_another_and_excluded_there() -> None:
    driver, accounts = world()
    data = ALICE.send(0)
    assert driver.submit(data) == [0]
    made = batch(count=1)
    give(driver, 1, made)
    driver.advance(1_000)
    assert pushed_ids(driver) == []
    driver.give(block(accounts, batches=[made.digest], excluded=[id_of(data)]))
    driver.advance(300)
    assert pushed_ids(driver) == [id_of(data)]


def test_a_rotation_ends_what_the_old_key_signed() -> None:
    driver, accounts = world()
    new = ALICE.rotated(50)
    made = acknowledged(driver, ALICE.send(0), ALICE.send(1))
    assert driver.submit(ALICE.send(3)) == [0]
    # The rotation at nonce 0 came by another validator.
    accounts.set(ALICE.address, nonce=1, key=new.key_id)
    ids = [id_of(ALICE.send(n)) for n in (0, 1)]
    driver.give(
        block(
            accounts,
            batches=[made.digest],
            bodies=[b"the rotation"],
            excluded=ids,
            changed=[ALICE.address],
        )
    )
    told = dict(statuses(driver))
    assert told["nonce_too_low"] == (ids[0],)
    assert set(told["key_not_current"]) == {ids[1], id_of(ALICE.send(3))}
    assert in_pool(driver) == 0


def test_blocks_from_a_peer_end_batches_of_which_nothing_is_left() -> None:
    driver, accounts = world()
    first = acknowledged(driver, ALICE.send(0), BOB.send(0))
    bodies = [encode(client.transaction(0).body) for client in (ALICE, BOB)]
    accounts.set(ALICE.address, nonce=1)
    driver.give(block(accounts, height=1, bodies=bodies[:1], changed=[ALICE.address]))
    assert driver.shard.metrics.batches_unexecuted == 1
    accounts.set(BOB.address, nonce=1)
    driver.give(block(accounts, height=2, commit_index=5, bodies=bodies[1:], changed=[BOB.address]))
    assert statuses(driver) == []
    assert driver.shard.metrics.batches_unexecuted == 0
    assert driver.writes[-1] == Executed((first.digest,), 2, 5)
    assert len(offered(driver)) == 1


def test_batches_of_which_nothing_is_left_are_swept_up() -> None:
    driver, accounts = world()
    spent, half, fresh = (
        batch(1, client=BOB, count=2),
        batch(2, client=ALICE, count=2),
        batch(3, client=Client(9), count=2),
    )
    give(driver, 1, spent, half, fresh)
    accounts.set(BOB.address, nonce=2)
    accounts.set(ALICE.address, nonce=1)
    # A validator that caught up: the block came from a peer and names no batches.
    driver.give(block(accounts, height=8, commit_index=40, bodies=[b"x"]))
    driver.advance(9_000)
    assert driver.writes[-1] != Executed((spent.digest,), 8, 40)
    driver.advance(20_000)
    assert driver.writes[-1] == Executed((spent.digest,), 8, 40)
    driver.give(CheckpointCertified(certificate(8, 40 + 64)))
    held = [each.digest in driver.store for each in (spent, half, fresh)]
    assert held == [False, True, True]


def test_batches_are_pruned_when_final_and_below_gc_round() -> None:
    driver, accounts = world()
    own, other = acknowledged(driver, ALICE.send(0)), batch(count=1, client=BOB)
    give(driver, 1, other)
    accounts.set(ALICE.address, nonce=1)
    accounts.set(BOB.address, nonce=1)
    changed = [ALICE.address, BOB.address]
    digests = [own.digest, other.digest]
    driver.give(block(accounts, height=3, commit_index=10, batches=digests, changed=changed))
    driver.give(CheckpointCertified(certificate(3, 10)))
    assert all(digest in driver.store for digest in digests)
    driver.give(CheckpointCertified(certificate(20, 10 + 64)))
    assert not any(digest in driver.store for digest in digests)
    assert driver.writes[-1] == DropBatches(tuple(digests))
    assert driver.shard.metrics.batches_pruned == 2
    driver.store.crash()
    assert driver.store.load().batches == ()


def test_a_batch_is_held_until_the_validator_lets_it_go() -> None:
    driver, accounts = world()
    driver.releases = False
    other = batch(count=1, client=BOB)
    give(driver, 1, other)
    accounts.set(BOB.address, nonce=1)
    driver.give(block(accounts, batches=[other.digest], changed=[BOB.address]))
    driver.give(CheckpointCertified(certificate(20, 1 + 64)))
    for _ in range(2):
        asked = driver.sent.events(Room.VALIDATOR, BatchesExpiring)[-1]
        assert asked == BatchesExpiring((other.digest,), 0)
        assert other.digest in driver.store
        driver.sent.rooms[Room.VALIDATOR].clear()
        driver.advance(10_000)
    driver.give(BatchesReleased((other.digest,)))
    assert other.digest not in driver.store
    assert driver.writes[-1] == DropBatches((other.digest,))


def test_a_batch_that_nobody_executes_is_dropped_in_the_end() -> None:
    driver, _ = world(settings=settings(unexecuted_lifetime_ms=60_000))
    made = batch(count=1, client=BOB)
    give(driver, 1, made)
    own = acknowledged(driver, ALICE.send(0))
    driver.advance(50_000)
    assert made.digest in driver.store
    driver.advance(20_000)
    assert made.digest not in driver.store
    # An own one is kept: its transactions were promised to be.
    assert own.digest in driver.store
