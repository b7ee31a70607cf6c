"""Batches of other validators: verified whole, held, acknowledged; floods meet bounds."""

from __future__ import annotations

from typing import Any

import pytest

from qnet_actors.mempool.store import PutBatch, PutKeys
from qnet_actors.rooms import BatchesHeld, BodiesWanted, FetchBatches, FromPeer, Room
from qnet_actors.wire.batches import Batch, build_batch
from qnet_actors.wire.codes import Code
from qnet_actors.wire.messages import BatchAcks, Batches, BatchRequest, KeyRequest, Keys, PublicKey
from qnet_actors.wire.schemes import Scheme
from tests.mempool.exchange import batch, give, pushed_ids
from tests.mempool.world import (
    CHAIN_ID,
    SCHEME,
    ZERO,
    Client,
    Driver,
    digest_of,
    id_of,
    make_driver,
    settings,
)

ALICE, BOB = Client(1), Client(2)


def held(driver: Driver) -> list[bytes]:
    events = driver.sent.events(Room.VALIDATOR, BatchesHeld)
    return [digest for event in events for digest in event.digests]


def acks(driver: Driver) -> list[tuple[bytes, tuple[int, ...] | None]]:
    return [
        (digest, effect.peers)
        for effect in driver.sent.peers
        if isinstance(effect.message, BatchAcks)
        for digest in effect.message.digests
    ]


def fetch(driver: Driver, made: Batch, peer: int = 2) -> None:
    driver.give(FetchBatches(((made.header.author, made.ref),), peer))


def refused(driver: Driver) -> dict[int, int]:
    return dict(driver.shard.metrics.batches_refused)


def test_a_good_batch_is_written_then_acknowledged_then_held() -> None:
    driver, made = make_driver(), batch()
    give(driver, 1, made)
    assert driver.log == ["write", "BatchAcks", "BatchesHeld"]
    assert acks(driver) == [(made.digest, (1,))]
    assert held(driver) == [made.digest]
    assert driver.store.get(made.digest).digest == made.digest


def test_a_known_batch_is_acknowledged_again_and_not_verified_again() -> None:
    driver, made = make_driver(), batch()
    give(driver, 1, made)
    give(driver, 1, made)
    assert acks(driver) == [(made.digest, (1,))] * 2
    assert driver.shard.metrics.signatures_verified == 3
    # Whoever is not the author has nothing to learn from it.
    give(driver, 2, made)
    assert len(acks(driver)) == 2


def test_one_bad_signature_refuses_the_batch_for_ever() -> None:
    driver, made = make_driver(settings=settings(verify_rows=2)), batch(bad=True)
    give(driver, 1, made)
    assert (held(driver), acks(driver)) == ([], [])
    assert made.digest not in driver.store
    assert driver.writes == []
    verified = driver.shard.metrics.signatures_verified
    give(driver, 1, made)
    assert refused(driver) == {Code.BAD_SIGNATURE: 2}
    assert driver.shard.metrics.signatures_verified == verified
    # Nothing that came with it is kept.
    assert driver.submit(ALICE.send(0, with_key=False)) == [Code.UNKNOWN_KEY]


def test_signatures_are_verified_in_parts_that_may_end_in_any_order() -> None:
    for bad in (False, True):
        driver, made = make_driver(settings=settings(verify_rows=2)), batch(count=7, bad=bad)
        driver.hold_runs = True
        give(driver, 1, made)
        driver.run()
        assert len(driver.runs) == 4
        while driver.runs:
            assert held(driver) == []
            driver.run(-1)
        assert held(driver) == ([] if bad else [made.digest])


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (batch(author=9), Code.UNKNOWN_AUTHOR),
        (batch(epoch=1), Code.WRONG_EPOCH),
        (batch(chain_id=ZERO), Code.WRONG_CHAIN),
        (batch(author=2), Code.UNEXPECTED_MESSAGE),
        (batch(author=0), Code.UNEXPECTED_MESSAGE),
    ],
)
def test_refusals_by_the_header(made: Batch, code: Code) -> None:
    driver = make_driver()
    driver.hold_runs = True
    give(driver, 1, made)
    assert driver.runs == []
    assert refused(driver) == {code: 1}


def test_noise_is_counted_and_nothing_else() -> None:
    driver, made = make_driver(), batch()
    driver.give(FromPeer(1, Batches((b"", b"noise", made.encode()[:-1]))))
    assert refused(driver) == {Code.MALFORMED: 3}
    # A bad copy does not spoil the good one that follows.
    give(driver, 1, made)
    assert held(driver) == [made.digest]


def test_anothers_bad_copy_does_not_keep_the_true_one_out() -> None:
    driver, made = make_driver(), batch()
    fetch(driver, made, peer=2)
    driver.hold_runs = True
    damaged = bytearray(made.encode())
    damaged[-1] ^= 1
    driver.give(FromPeer(2, Batches((bytes(damaged),))))
    give(driver, 1, made)
    driver.run(0)
    while driver.runs:
        driver.run(0)
    assert held(driver) == [made.digest]


def test_a_sequence_used_twice() -> None:
    driver, first, second = make_driver(), batch(1), batch(1, start=5)
    give(driver, 1, first)
    give(driver, 1, second)
    assert refused(driver) == {Code.BAD_SEQUENCE: 1}
    # A block names it: it is obtained, held, and not acknowledged.
    fetch(driver, second)
    give(driver, 2, second)
    assert held(driver) == [first.digest, second.digest]
    assert [digest for digest, _ in acks(driver)] == [first.digest]
    give(driver, 1, second)
    assert [digest for digest, _ in acks(driver)] == [first.digest]


def test_two_batches_of_one_sequence_verified_at_once() -> None:
    driver, first, second = make_driver(), batch(1), batch(1, start=5)
    driver.hold_runs = True
    give(driver, 1, first, second)
    while driver.runs:
        driver.run()
    assert held(driver) == [first.digest]
    assert refused(driver) == {Code.BAD_SEQUENCE: 1}


def test_a_peer_may_have_so_many_bytes_on_their_way() -> None:
    made = [batch(n, start=10 * n) for n in range(1, 6)]
    size = len(made[0].encode())
    driver = make_driver(settings=settings(peer_pending_size_bytes_max=3 * size + 10))
    driver.hold_runs = True
    give(driver, 1, *made)
    assert refused(driver) == {Code.BUSY: 2}
    assert len(driver.runs) == 3
    # Another peer is not held back by it.
    give(driver, 2, batch(1, author=2, start=90))
    assert len(driver.runs) == 4
    driver.hold_runs = False
    while driver.runs:
        driver.run()
    give(driver, 1, *made)
    assert len(held(driver)) == 6


def test_an_author_may_have_so_many_batches_here() -> None:
    made = [batch(n, start=10 * n) for n in range(1, 5)]
    driver = make_driver(settings=settings(author_batches_max=3))
    give(driver, 1, *made)
    assert held(driver) == [each.digest for each in made[:3]]
    assert refused(driver) == {Code.BUSY: 1}
    # What a block names is held all the same.
    fetch(driver, made[3])
    give(driver, 1, made[3])
    assert held(driver)[-1] == made[3].digest


def test_an_author_may_name_so_many_batches_that_no_commit_names() -> None:
    made = [batch(n, start=10 * n) for n in range(1, 4)]
    # Whatever their sequences: a liar may name several batches of one.
    made += [batch(3, start=50), batch(3, start=60)]
    driver = make_driver(settings=settings(author_batches_max=2, author_named_factor=2))
    for each in made:
        fetch(driver, each)
        give(driver, 2, each)
    assert held(driver) == [each.digest for each in made[:4]]
    assert refused(driver) == {Code.BUSY: 1}
    # Others are not concerned, and a commit's batches are needed whatever they take.
    fetch(driver, other := batch(1, author=3, start=70), peer=3)
    give(driver, 3, other)
    driver.give(BodiesWanted(1, (made[4].digest,)))
    give(driver, 2, made[4])
    assert held(driver)[-2:] == [other.digest, made[4].digest]
    assert not driver.shard._holdings.committed


def test_a_peer_may_have_so_many_batches_on_their_way() -> None:
    driver = make_driver(settings=settings(peer_pending_batches_max=2))
    driver.hold_runs = True
    give(driver, 1, *[batch(n, start=10 * n) for n in range(1, 5)])
    assert refused(driver) == {Code.BUSY: 2}
    while driver.runs:
        driver.run()
    give(driver, 1, batch(3, start=30))
    assert len(driver.runs) == 1


def test_who_pushes_invalid_batches_is_not_listened_to_for_ever_longer() -> None:
    driver = make_driver()
    for n, wait_ms in ((1, 1_000), (2, 2_000), (3, 4_000)):
        give(driver, 1, batch(n, start=10 * n, bad=True))
        good = batch(100 + n, start=1_000 + 10 * n)
        driver.advance(wait_ms - 1)
        give(driver, 1, good)
        assert good.digest not in held(driver)
        # Nobody else is held back, nor what a block names.
        other = batch(n, author=2, start=2_000 + 10 * n)
        give(driver, 2, other)
        fetch(driver, batch(200 + n, start=3_000 + 10 * n))
        give(driver, 1, batch(200 + n, start=3_000 + 10 * n))
        assert held(driver)[-2:] == [other.digest, batch(200 + n, start=3_000 + 10 * n).digest]
        driver.advance(1)
        give(driver, 1, good)
        assert held(driver)[-1] == good.digest


def test_who_passes_on_an_invalid_batch_that_was_asked_for_is_not_punished() -> None:
    driver, bad = make_driver(), batch(author=3, bad=True)
    fetch(driver, bad)
    give(driver, 2, bad)
    assert refused(driver) == {Code.BAD_SIGNATURE: 1}
    good = batch(author=2)
    give(driver, 2, good)
    assert held(driver) == [good.digest]


def test_the_same_batch_twice_from_one_peer_is_verified_once() -> None:
    driver, made = make_driver(), batch()
    driver.hold_runs = True
    give(driver, 1, made, made)
    assert len(driver.runs) == 1
    assert refused(driver) == {Code.DUPLICATE: 1}


# Keys.


def key_of(client: Client) -> PublicKey:
    return PublicKey(SCHEME, client.public_key)


def test_missing_keys_are_asked_of_the_sender_and_kept_with_the_batch() -> None:
    driver, made = make_driver(), batch(with_key=False)
    give(driver, 1, made)
    assert driver.messages(KeyRequest) == [KeyRequest((ALICE.key_id,))]
    assert driver.sent.peers[-1].peers == (1,)
    # Keys that nobody asked for are not kept.
    driver.give(FromPeer(1, Keys((key_of(BOB),))))
    assert held(driver) == []
    driver.give(FromPeer(1, Keys((key_of(ALICE),))))
    assert held(driver) == [made.digest]
    assert driver.writes == [PutBatch(made.digest, made.encode()), PutKeys((key_of(ALICE),))]
    assert driver.submit(BOB.send(0, with_key=False)) == [Code.UNKNOWN_KEY]
    # The next batch of this sender needs nothing more.
    give(driver, 1, batch(2, start=50, with_key=False))
    assert len(driver.messages(KeyRequest)) == 1


def test_keys_of_a_batch_with_a_bad_signature_are_not_kept() -> None:
    driver = make_driver()
    give(driver, 1, batch(with_key=False, bad=True))
    driver.give(FromPeer(1, Keys((key_of(ALICE),))))
    assert refused(driver) == {Code.BAD_SIGNATURE: 1}
    assert driver.submit(ALICE.send(0, with_key=False)) == [Code.UNKNOWN_KEY]


def test_keys_are_asked_for_again_in_turn_and_given_up() -> None:
    driver = make_driver(settings=settings(key_attempts_max=4))
    give(driver, 1, batch(with_key=False))
    driver.advance(60_000)
    asked = [e.peers for e in driver.sent.peers if isinstance(e.message, KeyRequest)]
    assert asked == [(1,), (2,), (3,), (1,)]
    assert refused(driver) == {Code.UNKNOWN_KEY: 1}
    # Not for ever: with the key at hand the same batch is valid.
    give(driver, 1, batch(with_key=False))
    driver.give(FromPeer(3, Keys((key_of(ALICE),))))
    assert len(held(driver)) == 1


def test_a_key_that_comes_by_another_way() -> None:
    driver, made = make_driver(), batch(with_key=False)
    give(driver, 1, made)
    assert driver.submit(ALICE.send(0)) == [Code.SUCCESS]
    driver.advance(1_000)
    assert held(driver) == [made.digest]


def test_a_key_id_of_another_scheme_is_never_valid() -> None:
    other = PublicKey(Scheme.ED25519, digest_of(5))
    from qnet_actors.wire.schemes import key_id

    client = Client(1)
    client.key_id = key_id(other.scheme, other.public_key)
    driver = make_driver()
    give(driver, 1, batch(client=client, with_key=False))
    driver.give(FromPeer(1, Keys((other,))))
    assert refused(driver) == {Code.UNKNOWN_KEY: 1}
    give(driver, 1, batch(client=client, with_key=False))
    assert refused(driver) == {Code.UNKNOWN_KEY: 2}
    assert len(driver.messages(KeyRequest)) == 1


def test_two_batches_wait_for_the_same_key() -> None:
    driver, made = make_driver(), [batch(n, start=10 * n, with_key=False) for n in (1, 2)]
    give(driver, 1, *made)
    driver.give(FromPeer(1, Keys((key_of(ALICE), key_of(BOB)))))
    assert held(driver) == [each.digest for each in made]


def test_keys_that_come_one_by_one() -> None:
    driver = make_driver()
    terms: dict[str, Any] = {"chain_id": CHAIN_ID, "epoch": 0, "author": 1, "shard": 0}
    made = [
        build_batch([c.transaction(n, with_key=False) for c in (ALICE, BOB)], sequence=n, **terms)
        for n in (1, 2)
    ]
    give(driver, 1, *made)
    driver.give(FromPeer(1, Keys((key_of(ALICE), key_of(ALICE)))))
    driver.give(FromPeer(1, Keys((key_of(ALICE),))))
    assert held(driver) == []
    driver.give(FromPeer(1, Keys((key_of(BOB),))))
    assert held(driver) == [each.digest for each in made]
    assert not driver.shard._inbox._askers


# Pooled transactions in batches of others.


def test_what_another_batch_carries_is_left_to_it_and_tried_again_in_time() -> None:
    driver = make_driver()
    assert driver.submit(ALICE.send(0), BOB.send(0)) == [0, 0]
    give(driver, 1, batch(count=1))
    driver.advance(1_000)
    assert pushed_ids(driver) == [id_of(BOB.send(0))]
    # Nobody has executed it: an author may withhold what it took.
    driver.advance(6_000)
    assert pushed_ids(driver) == [id_of(BOB.send(0)), id_of(ALICE.send(0))]


def test_a_transaction_is_left_to_others_once_only() -> None:
    driver = make_driver()
    driver.submit(ALICE.send(0))
    give(driver, 1, batch(1, count=1))
    driver.advance(4_990)
    assert pushed_ids(driver) == []
    driver.advance(10)
    give(driver, 2, batch(1, author=2, count=1))
    driver.advance(100)
    assert pushed_ids(driver) == [id_of(ALICE.send(0))]


def test_a_fetched_batch_may_come_from_anybody_and_its_author_is_told() -> None:
    driver, made = make_driver(), batch(author=3)
    fetch(driver, made, peer=2)
    assert driver.messages(BatchRequest) == [BatchRequest((made.digest,))]
    give(driver, 2, made)
    assert held(driver) == [made.digest]
    assert acks(driver) == [(made.digest, (3,))]
    assert driver.shard.metrics.batches_fetched == 1


def test_an_own_batch_that_was_lost_can_be_fetched() -> None:
    driver, made = make_driver(), batch(author=0)
    fetch(driver, made, peer=2)
    give(driver, 2, made)
    assert held(driver) == [made.digest]
    assert acks(driver) == []


def test_a_batch_that_is_being_verified_is_not_fetched_besides() -> None:
    driver, made = make_driver(), batch()
    driver.hold_runs = True
    give(driver, 1, made)
    fetch(driver, made)
    assert driver.messages(BatchRequest) == []
    while driver.runs:
        driver.run()
    assert held(driver) == [made.digest]
    driver.advance(20_000)
    assert driver.messages(BatchRequest) == []


def test_a_batch_that_turns_out_bad_is_fetched_on() -> None:
    driver, made = make_driver(), batch()
    driver.hold_runs = True
    damaged = bytearray(made.encode())
    damaged[-1] ^= 1
    driver.give(FromPeer(1, Batches((bytes(damaged),))))
    fetch(driver, made)
    driver.run()
    driver.advance(1_000)
    assert BatchRequest((made.digest,)) in driver.messages(BatchRequest)


def test_what_is_not_from_a_validator_is_passed_over() -> None:
    driver, made = make_driver(), batch()
    for peer in (-1, 0, 4):
        give(driver, peer, made)
    assert held(driver) == []
    assert driver.shard.metrics.messages_refused[Code.UNKNOWN_AUTHOR] == 3
