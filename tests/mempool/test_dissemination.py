"""Own batches reach a quorum over links that lose, and are offered in order."""

from __future__ import annotations

import random
import shutil
from itertools import pairwise
from pathlib import Path

import pytest

from qnet_actors.kernels.expand import expand
from qnet_actors.mempool import FileBatchStore
from qnet_actors.rooms import (
    BatchesDropped,
    BatchesHeld,
    FromPeer,
    PeerUp,
    Room,
)
from qnet_actors.wire.batches import Batch, BatchRef
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code
from qnet_actors.wire.messages import BatchAcks, Batches, KeyRequest, Keys
from tests.mempool.exchange import batched_ids, offered, pushed
from tests.mempool.world import (
    Accounts,
    Bus,
    Client,
    Driver,
    block,
    digest_of,
    genesis_of,
    id_of,
    make_driver,
    settings,
)

ALICE = Client(1)


def ack(driver: Driver, peer: int, *digests: bytes) -> None:
    driver.give(FromPeer(peer, BatchAcks(digests)))


def sealed(driver: Driver, count: int, client: Client = ALICE) -> list[Batch]:
    """`count` more own batches of one transaction each."""
    before = len(pushed(driver))
    for n in range(count):
        assert driver.submit(client.send(before + n)) == [Code.SUCCESS]
        driver.advance(250)
    return pushed(driver)[before:]


def test_written_before_pushed_and_offered_on_a_quorum() -> None:
    driver = make_driver()
    (made,) = sealed(driver, 1)
    assert driver.log == ["SubmitResult", "write", "Batches"]
    assert driver.sent.peers[0].peers is None
    ack(driver, 1, made.digest, digest_of(5))
    assert (offered(driver), batched_ids(driver)) == ([], [])
    ack(driver, 1, made.digest)
    assert offered(driver) == []
    # With its own stake, three of four.
    ack(driver, 2, made.digest)
    assert offered(driver) == [made.ref]
    assert batched_ids(driver) == [id_of(ALICE.send(0))]
    ack(driver, 3, made.digest)
    assert len(offered(driver)) == 1
    assert driver.shard.metrics.acks_received == 3


def test_stake_counts_not_heads() -> None:
    driver = make_driver(genesis=genesis_of(stakes=(1, 1, 1, 10)))
    # Another genesis, another chain.
    chain = genesis_of(stakes=(1, 1, 1, 10)).chain_id()
    assert driver.submit(ALICE.send(0, chain_id=chain)) == [Code.SUCCESS]
    driver.advance(50)
    (made,) = pushed(driver)
    ack(driver, 1, made.digest)
    ack(driver, 2, made.digest)
    assert offered(driver) == []
    ack(driver, 3, made.digest)
    assert offered(driver) == [made.ref]


def test_a_validator_that_is_the_quorum_needs_nobody() -> None:
    genesis = genesis_of(1)
    driver = make_driver(genesis=genesis)
    assert driver.submit(ALICE.send(0, chain_id=genesis.chain_id())) == [Code.SUCCESS]
    driver.advance(50)
    assert len(offered(driver)) == 1
    assert driver.messages(Batches) == []
    assert driver.log == ["SubmitResult", "write", "StatusChanged", "BatchReady"]


def test_offered_in_order_of_sequence_whichever_quorum_comes_first() -> None:
    driver = make_driver()
    made = sealed(driver, 4)
    assert [each.header.sequence for each in made] == [1, 2, 3, 4]
    for at in (2, 1, 3, 0):
        for peer in (1, 2):
            ack(driver, peer, made[at].digest)
        # The client is told at once: durable is durable.
        assert id_of(ALICE.send(at)) in batched_ids(driver)
    assert offered(driver) == [each.ref for each in made]


def test_pushed_again_with_back_off_to_those_that_are_silent() -> None:
    driver = make_driver(settings=settings(resend_ms_min=1_000, resend_ms_max=4_000))
    (made,) = sealed(driver, 1)
    ack(driver, 2, made.digest)
    start, seen = driver.now_ms, []
    for _ in range(150):
        count = len(driver.sent.peers)
        driver.advance(100)
        seen += [(driver.now_ms - start, effect.peers) for effect in driver.sent.peers[count:]]
    assert [peers for _, peers in seen] == [(1, 3)] * 5
    times = [at for at, _ in seen]
    assert [b - a for a, b in pairwise(times)] == [2_000, 4_000, 4_000, 4_000]
    ack(driver, 1, made.digest)
    count = len(driver.sent.peers)
    driver.advance(20_000)
    assert len(driver.sent.peers) == count


def test_a_link_that_stands_again_gets_what_it_may_have_lost() -> None:
    driver = make_driver()
    made = sealed(driver, 3)
    ack(driver, 3, made[0].digest)
    for peer in (1, 2):
        ack(driver, peer, made[1].digest)
    count = len(driver.sent.peers)
    driver.give(PeerUp(3))
    (again,) = driver.sent.peers[count:]
    assert again.peers == (3,)
    assert again.message == Batches((made[2].encode(),))


def test_few_batches_are_without_a_quorum_and_then_submissions_wait() -> None:
    driver = make_driver(settings=settings(batches_without_quorum_max=3))
    made = sealed(driver, 3)
    assert driver.shard.metrics.batches_without_quorum == 3
    assert driver.submit(ALICE.send(3)) == [Code.BUSY]
    for peer in (1, 2):
        ack(driver, peer, made[1].digest)
    assert driver.submit(ALICE.send(3)) == [Code.SUCCESS]
    driver.advance(300)
    assert driver.submit(ALICE.send(4)) == [Code.BUSY]


def test_batches_not_executed_are_bounded_too() -> None:
    driver = make_driver(settings=settings(batches_without_quorum_max=2, batches_unexecuted_max=3))
    accounts = Accounts()
    made = []
    for _ in range(3):
        made += sealed(driver, 1)
        for peer in (1, 2):
            ack(driver, peer, made[-1].digest)
    assert driver.submit(ALICE.send(3)) == [Code.BUSY]
    accounts.set(ALICE.address, nonce=1, balance=10**12)
    driver.give(block(accounts, batches=[made[0].digest], changed=[ALICE.address]))
    assert driver.submit(ALICE.send(3)) == [Code.SUCCESS]


def test_nothing_is_sealed_while_congested_and_no_tick_spins() -> None:
    driver = make_driver(settings=settings(batches_without_quorum_max=1))
    driver.hold_runs = True
    from qnet_actors.rooms import Submit

    driver.give(Submit(1, (ALICE.send(0),)))
    driver.give(Submit(2, (ALICE.send(1),)))
    driver.run()
    driver.advance(50)
    driver.run()
    driver.advance(5_000)
    assert len(pushed(driver)) == 1
    for peer in (1, 2):
        ack(driver, peer, pushed(driver)[0].digest)
    driver.advance(50)
    assert len(pushed(driver)) == 2


def test_dropped_batches_are_offered_again_in_order() -> None:
    driver = make_driver()
    made = sealed(driver, 3)
    for each in made[:2]:
        for peer in (1, 2):
            ack(driver, peer, each.digest)
    unknown = BatchRef(0, 9, digest_of(9))
    driver.give(BatchesDropped((made[1].ref, unknown, made[0].ref, made[2].ref)))
    # The third was never offered: it has no quorum yet.
    assert offered(driver) == [made[0].ref, made[1].ref, made[0].ref, made[1].ref]


def test_executed_batches_are_not_offered_again() -> None:
    driver, accounts = make_driver(), Accounts()
    (made,) = sealed(driver, 1)
    for peer in (1, 2):
        ack(driver, peer, made.digest)
    accounts.set(ALICE.address, nonce=1)
    driver.give(block(accounts, batches=[made.digest], changed=[ALICE.address]))
    driver.give(BatchesDropped((made.ref,)))
    driver.advance(200_000)
    assert offered(driver) == [made.ref]
    assert driver.shard.metrics.batches_unexecuted == 0


def test_a_batch_that_ends_makes_way_for_those_behind_it() -> None:
    first = make_driver(settings=settings(batches_without_quorum_max=8))
    clients = [Client(n) for n in (1, 2, 3)]
    made = []
    for client in clients:
        assert first.submit(client.send(0)) == [Code.SUCCESS]
        first.advance(250)
        made.append(pushed(first)[-1])
    first.store.crash()
    # Two at a time: the third waits for its turn to be pushed.
    driver = make_driver(store=first.store, settings=settings(batches_without_quorum_max=2))
    assert len(pushed(driver)) == 2
    for peer in (1, 2):
        ack(driver, peer, made[1].digest)
    assert len(pushed(driver)) == 3
    assert offered(driver) == []
    # The first is executed by way of a block from a peer, without ever having had its quorum.
    accounts = Accounts()
    accounts.set(clients[0].address, nonce=1)
    body = encode(clients[0].transaction(0).body)
    driver.give(block(accounts, bodies=[body], changed=[clients[0].address]))
    assert offered(driver) == [made[1].ref]
    for peer in (1, 2):
        ack(driver, peer, made[2].digest)
    assert offered(driver) == [made[1].ref, made[2].ref]


def test_what_is_offered_and_never_executed_is_offered_again_ever_more_rarely() -> None:
    driver = make_driver(settings=settings(offer_again_ms=1_000))
    (made,) = sealed(driver, 1)
    for peer in (1, 2):
        ack(driver, peer, made.digest)
    for elapsed, count in ((999, 1), (1, 2), (1_999, 2), (1, 3), (4_000, 4)):
        driver.advance(elapsed)
        assert len(offered(driver)) == count


# Four shards on a bus.


def network(**fields) -> Bus:
    return Bus([make_driver(own_index=i, **fields) for i in range(4)])


def test_every_batch_is_held_by_all() -> None:
    bus = network()
    clients = [Client(n) for n in range(1, 9)]
    for n, client in enumerate(clients):
        codes = bus.drivers[n % 4].submit(*[client.send(nonce) for nonce in range(5)])
        assert codes == [0] * 5
    bus.run(500)
    for index, driver in enumerate(bus.drivers):
        held = driver.sent.events(Room.VALIDATOR, BatchesHeld)
        others = {
            ref.digest
            for other, at in zip(bus.drivers, range(4), strict=True)
            for ref in offered(other)
            if at != index
        }
        assert {d for event in held for d in event.digests} == others
        assert len(offered(driver)) == 1


@pytest.mark.parametrize("seed", range(6))
def test_losses_delay_and_lose_nothing(seed: int) -> None:
    quick = settings(
        resend_ms_min=50,
        resend_ms_max=200,
        fetch_ms_min=50,
        fetch_ms_max=100,
        batch_transactions_max=3,
    )
    bus = network(settings=quick)
    choose = random.Random(seed)
    bus.loses = lambda sender, receiver, message: choose.random() < 0.4
    sent = [ALICE.send(n, with_key=n == 0) for n in range(30)]
    for at in range(0, 30, 6):
        assert bus.drivers[0].submit(*sent[at : at + 6]) == [0] * 6
        bus.run(60)
    bus.run(3_000)
    driver = bus.drivers[0]
    refs = offered(driver)
    assert [ref.sequence for ref in refs] == list(range(1, len(refs) + 1))
    assert sorted(batched_ids(driver)) == sorted(id_of(data) for data in sent)
    # Within each batch, and from batch to batch, nonces are in order.
    order = [int(nonce) for ref in refs for nonce in driver.store.get(ref.digest).columns.nonces]
    assert order == list(range(30))
    holders = {ref.digest: sum(ref.digest in d.store for d in bus.drivers) for ref in refs}
    assert all(count >= 3 for count in holders.values())


def test_a_restart_disseminates_anew_what_was_not_executed() -> None:
    bus = network(settings=settings(batch_transactions_max=2))
    store, accounts = bus.drivers[0].store, Accounts()
    bus.loses = lambda sender, receiver, message: isinstance(message, Batches)
    codes = bus.drivers[0].submit(*[ALICE.send(n) for n in range(6)])
    assert codes == [0] * 6
    bus.run(100)
    before = [each.digest for each in pushed(bus.drivers[0])]
    assert len(before) == 3
    assert offered(bus.drivers[0]) == []
    # The first is executed, and the process dies.
    accounts.set(ALICE.address, nonce=2)
    bus.drivers[0].give(block(accounts, batches=before[:1], changed=[ALICE.address]))
    bus.loses = lambda sender, receiver, message: False
    store.crash()
    again = make_driver(store=store, accounts=accounts, own_index=0)
    bus.replace(0, again)
    bus.run(500)
    assert [ref.digest for ref in offered(again)] == before[1:]
    assert batched_ids(again) == [id_of(ALICE.send(n)) for n in range(2, 6)]
    # Its transactions are known to the pool, and the sequence goes on above the highest used.
    assert again.submit(ALICE.send(3), ALICE.send(6)) == [Code.DUPLICATE, Code.SUCCESS]
    bus.run(200)
    assert [ref.sequence for ref in offered(again)] == [2, 3, 4]
    assert [row.tobytes() for row in expand(store.get(offered(again)[-1].digest)).ids] == [
        id_of(ALICE.send(6))
    ]


def test_what_a_damaged_store_forgot_does_not_hold_up_what_is_sealed_after_it(
    tmp_path: Path,
) -> None:
    bus = network()
    author = make_driver(own_index=0, store=FileBatchStore(tmp_path / "whole", power=False))
    bus.replace(0, author)
    assert author.submit(ALICE.send(0)) == [Code.SUCCESS]
    bus.run(200)
    # Its end will be missing: others hold a second batch that the author does not know of.
    shutil.copytree(tmp_path / "whole", tmp_path / "damaged")
    assert author.submit(ALICE.send(1)) == [Code.SUCCESS]
    bus.run(200)
    forgotten = pushed(author)[-1]
    assert forgotten.digest in bus.drivers[1].store
    author.store.close()
    again = make_driver(own_index=0, store=FileBatchStore(tmp_path / "damaged", power=False))
    bus.replace(0, again)
    assert forgotten.digest not in again.store
    assert again.submit(Client(2).send(0), Client(2).send(1)) == [Code.SUCCESS] * 2
    bus.run(500)
    assert batched_ids(again)[-2:] == [id_of(Client(2).send(n)) for n in range(2)]
    assert offered(again)[-1].sequence > forgotten.header.sequence
    again.store.close()


def test_a_restart_pushes_no_more_at_once_than_is_allowed() -> None:
    first = make_driver(settings=settings(batches_without_quorum_max=8))
    made = sealed(first, 8)
    first.store.crash()
    again = make_driver(store=first.store, settings=settings(batches_without_quorum_max=3))
    assert [each.digest for each in pushed(again)] == [each.digest for each in made[:3]]
    assert again.submit(ALICE.send(8)) == [Code.BUSY]
    for peer in (1, 2):
        ack(again, peer, made[0].digest)
    assert len(pushed(again)) == 4
    for each in made[1:]:
        for peer in (1, 2):
            ack(again, peer, each.digest)
    assert [ref.sequence for ref in offered(again)] == list(range(1, 9))


def test_keys_that_peers_lack_come_from_the_author() -> None:
    bus = network()
    assert bus.drivers[0].submit(ALICE.send(0)) == [0]
    bus.run(200)
    # Two of the others lose their memory, and with it the key.
    for index in (1, 2):
        bus.replace(index, make_driver(own_index=index))
    assert bus.drivers[0].submit(ALICE.send(1, with_key=False)) == [0]
    bus.run(200)
    assert [ref.sequence for ref in offered(bus.drivers[0])] == [1, 2]
    for index in (1, 2):
        assert len(bus.drivers[index].messages(KeyRequest)) == 1
    assert len(bus.drivers[0].messages(Keys)) == 2
