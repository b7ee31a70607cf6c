"""The shard as a room: bodies for the ledger, several shards, restarts on disk, odd events."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from qnet_actors.mempool import (
    FileBatchStore,
    Holdings,
    MemoryBatchStore,
    MempoolSettings,
    MempoolShard,
    shard_of,
)
from qnet_actors.mempool.segments import FORGOTTEN_BATCHES_MAX
from qnet_actors.rooms import (
    BatchesHeld,
    BatchReady,
    Bodies,
    BodiesWanted,
    CheckpointCertified,
    FetchBatches,
    FromPeer,
    Room,
    StatusChanged,
)
from qnet_actors.wire.batches import BatchRef
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.genesis import check_genesis
from qnet_actors.wire.messages import BatchAcks, BatchRequest, DagBlocks
from tests.mempool.exchange import acknowledged, batch, give, pushed
from tests.mempool.world import (
    GENESIS,
    VERIFIER,
    Accounts,
    Bus,
    Client,
    Driver,
    block,
    certificate,
    digest_of,
    id_of,
    make_driver,
    settings,
)

ALICE = Client(1)


def bodies(driver: Driver) -> list[tuple[int, list[bytes]]]:
    events = driver.sent.events(Room.LEDGER, Bodies)
    return [(event.commit_index, [each.digest for each in event.batches]) for event in events]


def next_epoch(old: Driver, *, settings: MempoolSettings, accounts: Accounts) -> Driver:
    """The shard of the epoch after that of `old`, with an empty store, and what waited there."""
    store = MemoryBatchStore()
    shard = MempoolShard(
        genesis=GENESIS,
        committee=GENESIS.committee(),
        own_index=0,
        holdings=Holdings(store, store.load(), settings),
        verifier=VERIFIER,
        reader=accounts,
        settings=settings,
    )
    shard.take_over(old.shard.leftovers())
    return Driver(shard, store)


def test_the_genesis_of_these_tests_is_valid() -> None:
    check_genesis(GENESIS)


def test_bodies_in_the_order_asked() -> None:
    driver = make_driver()
    made = [batch(n, start=10 * n) for n in (1, 2, 3)]
    give(driver, 1, *made)
    digests = [made[at].digest for at in (2, 0, 1)]
    driver.give(BodiesWanted(5, tuple(digests)))
    assert bodies(driver) == [(5, digests)]
    driver.give(BodiesWanted(6, ()))
    assert bodies(driver)[1] == (6, [])


def test_bodies_wait_until_all_are_there() -> None:
    driver = make_driver()
    made = [batch(n, start=10 * n) for n in (1, 2, 3)]
    give(driver, 1, made[0])
    digests = tuple(each.digest for each in made)
    driver.give(BodiesWanted(5, digests))
    driver.give(BodiesWanted(6, digests[:1]))
    assert bodies(driver) == [(6, [made[0].digest])]
    asked = {digest for m in driver.messages(BatchRequest) for digest in m.digests}
    assert asked == set(digests[1:])
    give(driver, 2, made[1])
    driver.advance(100)
    give(driver, 3, made[2])
    driver.advance(100)
    assert bodies(driver)[1:] == [(5, list(digests))]
    wake = driver.shard.wake_ms()
    assert wake is None or wake > driver.now_ms + 100


def test_a_ledger_that_asks_without_end_is_a_fault() -> None:
    driver = make_driver()
    for index in range(1_024):
        driver.shard.handle(BodiesWanted(index, (digest_of(index),)), 0)
    with pytest.raises(QnetError) as error:
        driver.shard.handle(BodiesWanted(1_024, (digest_of(1),)), 0)
    assert error.value.code == Code.INTERNAL


def test_fetches_of_what_is_held_are_answered_at_once() -> None:
    driver, made = make_driver(), batch()
    give(driver, 1, made)
    missing = BatchRef(0, 9, digest_of(9))
    driver.give(FetchBatches(((1, made.ref), (2, missing)), 3))
    assert driver.sent.events(Room.VALIDATOR, BatchesHeld)[-1].digests == (made.digest,)
    assert driver.messages(BatchRequest) == [BatchRequest((missing.digest,))]
    assert driver.sent.peers[-1].peers == (3,)


def test_messages_of_other_rooms_are_counted_and_other_events_refused() -> None:
    driver = make_driver()
    driver.give(FromPeer(1, DagBlocks((b"x",))))
    assert driver.shard.metrics.messages_refused == {Code.UNEXPECTED_MESSAGE: 1}
    with pytest.raises(TypeError):
        driver.shard.handle("an event", 0)


def test_an_idle_shard_wants_no_tick() -> None:
    assert make_driver().shard.wake_ms() is None


def test_settings_that_could_not_work_are_refused() -> None:
    for fields in (
        {"batch_transactions_max": 0},
        {"batch_transactions_max": 1_025},
        {"batch_size_bytes_max": 1_000},
        {"batch_size_bytes_max": 2**30},
        {"batches_unexecuted_max": 1},
    ):
        with pytest.raises(ValueError, match=next(iter(fields))):
            settings(**fields)
    with pytest.raises(ValueError, match="shard"):
        make_driver(shard=2, shard_count=2)


# Several shards of one validator.


def shards_of(store: MemoryBatchStore, count: int, own_index: int = 0) -> list[Driver]:
    holdings = Holdings(store, store.load())
    committee = GENESIS.committee()
    return [
        Driver(
            MempoolShard(
                genesis=GENESIS,
                committee=committee,
                own_index=own_index,
                holdings=holdings,
                verifier=VERIFIER,
                reader=Accounts(),
                shard=shard,
                shard_count=count,
            ),
            store,
        )
        for shard in range(count)
    ]


def test_senders_are_spread_over_shards_and_stay_where_they_are() -> None:
    shards = [shard_of(Client(n).address, 4) for n in range(200)]
    assert shards == [shard_of(Client(n).address, 4) for n in range(200)]
    assert all(20 < shards.count(shard) < 80 for shard in range(4))
    assert {shard_of(Client(n).address, 1) for n in range(9)} == {0}


def test_one_shard_waits_for_what_another_obtains() -> None:
    first, second = shards_of(MemoryBatchStore(), 2)
    made = batch(shard=1, author=3)
    first.give(BodiesWanted(1, (made.digest,)))
    assert len(first.messages(BatchRequest)) == 1
    # Not pushed by its author, and yet wanted: by the other shard.
    give(second, 2, made)
    assert made.digest in second.store
    first.advance(50)
    assert bodies(first) == [(1, [made.digest])]
    assert first.store is second.store


def test_a_restart_with_fewer_shards_hands_their_batches_on() -> None:
    store = MemoryBatchStore()
    made = []
    for shard, driver in enumerate(shards_of(store, 3)):
        assert driver.submit(Client(10 + shard).send(0)) == [0]
        driver.advance(100)
        made += pushed(driver)
    assert [each.header.shard for each in made] == [0, 1, 2]
    store.crash()
    (alone,) = shards_of(store, 1)
    assert {each.digest for each in pushed(alone)} == {each.digest for each in made}
    for peer in (1, 2):
        alone.give(FromPeer(peer, BatchAcks(tuple(each.digest for each in made))))
    offered = alone.sent.events(Room.VALIDATOR, BatchReady)
    assert sorted(event.ref.shard for event in offered) == [0, 1, 2]


# On disk.


def test_a_life_on_disk(tmp_path: Path) -> None:
    accounts = Accounts()

    def started() -> Driver:
        store = FileBatchStore(tmp_path / "batches", power=True, segment_size_bytes=1)
        return make_driver(accounts=accounts, store=store)

    driver = started()
    first = acknowledged(driver, ALICE.send(0))
    second = acknowledged(driver, ALICE.send(1))
    other = batch(client=Client(2))
    give(driver, 1, other)
    accounts.set(ALICE.address, nonce=1)
    driver.give(block(accounts, height=1, batches=[first.digest], changed=[ALICE.address]))
    # The process ends without a word.
    driver = started()
    assert [each.digest for each in pushed(driver)] == [second.digest]
    assert driver.store.get(other.digest).encode() == other.encode()
    assert driver.submit(ALICE.send(2, with_key=False)) == [Code.SUCCESS]
    give(driver, 1, batch(2, start=10, client=Client(2), with_key=False))
    assert driver.shard.metrics.batches_accepted == 1
    driver.advance(300)
    # What the end of a file may have held is left out.
    assert pushed(driver)[-1].header.sequence == 2 + FORGOTTEN_BATCHES_MAX + 1
    driver.give(CheckpointCertified(certificate(1, 1 + 64)))
    assert first.digest not in driver.store
    names = sorted(path.name for path in (tmp_path / "batches").glob("segment-*"))
    assert "segment-000000000001.log" not in names
    driver.store.close()


def test_the_age_of_what_a_restart_brings_back_counts_from_then() -> None:
    first, other = make_driver(), batch()
    give(first, 1, other)
    first.store.crash()
    # Times are of this decade, and the store knows none.
    driver = make_driver(store=first.store, now_ms=1_800_000_000_000)
    driver.advance(500_000)
    assert other.digest in driver.store
    driver.advance(200_000)
    assert other.digest not in driver.store


def test_the_next_epoch_takes_over_all_that_waits_however_crowded_it_is() -> None:
    clients = [Client(n) for n in range(1, 51)]
    # The first nonce of each is missing, so that nothing is batched.
    waiting = [client.send(nonce) for client in clients for nonce in range(1, 51)]
    old = make_driver()
    for at in range(0, len(waiting), 500):
        assert not any(old.submit(*waiting[at : at + 500]))
    accounts = Accounts()
    for client in clients:
        accounts.set(client.address, nonce=1)
    # Of what clients send this one takes ten at a time.
    crowded = settings(backlog_transactions_min=10)
    new = next_epoch(old, settings=crowded, accounts=accounts)
    held = {*map(id_of, waiting)}
    assert {entry.id for entry in new.shard._pool} == held
    assert not new.sent.events(Room.GATEWAY, StatusChanged)
    # What the epoch before had verified is not verified again, and its keys are known.
    assert new.shard.metrics.signatures_verified == 0
    keys = new.shard._holdings.keys
    assert all(keys.get(client.key_id) is not None for client in clients)
    assert new.submit(Client(99).send(0, price=1)) == [Code.BUSY]


def test_what_the_next_epoch_has_no_place_for_is_called_evicted() -> None:
    old = make_driver()
    waiting = [ALICE.send(nonce) for nonce in range(1, 11)]
    assert not any(old.submit(*waiting))
    accounts = Accounts()
    accounts.set(ALICE.address, nonce=2)
    new = next_epoch(old, settings=settings(pool_transactions_max=4), accounts=accounts)
    # The first is spent already, which is no loss.
    lost = {*map(id_of, waiting[5:])}
    (status,) = new.sent.events(Room.GATEWAY, StatusChanged)
    assert (status.status, set(status.ids)) == (Code.EVICTED.label, lost)
    assert new.shard.metrics.transactions_dropped[Code.EVICTED.label] == 5
    new.advance(1_000)
    assert len(new.sent.events(Room.GATEWAY, StatusChanged)) == 1


def test_four_validators_on_disk_agree_on_bytes(tmp_path: Path) -> None:
    drivers = [
        make_driver(own_index=i, store=FileBatchStore(tmp_path / str(i), power=False))
        for i in range(4)
    ]
    bus = Bus(drivers)
    for n, driver in enumerate(drivers):
        assert driver.submit(*[Client(n + 1).send(nonce) for nonce in range(20)]) == [0] * 20
    bus.run(300)
    refs = [
        event.ref for driver in drivers for event in driver.sent.events(Room.VALIDATOR, BatchReady)
    ]
    assert len(refs) == 4
    for ref in refs:
        assert len({driver.store.encoded(ref.digest) for driver in drivers}) == 1
    for driver in drivers:
        driver.store.close()


# The room.


def test_importing_the_room_loads_nothing_heavy() -> None:
    code = (
        "import sys, qnet_actors.mempool as m; m.shard_of\n"
        "heavy = {'numba', 'ray', 'duckdb', 'numpy', 'cryptography'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
