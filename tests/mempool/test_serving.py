"""Peers get what they ask for, within bounds."""

from __future__ import annotations

from qnet_actors.rooms import FromPeer
from qnet_actors.wire.codec import encode
from qnet_actors.wire.limits import FRAME_SIZE_BYTES_MAX
from qnet_actors.wire.messages import (
    MESSAGE_CODEC,
    Batches,
    BatchRequest,
    KeyRequest,
    Keys,
    PublicKey,
)
from tests.mempool.exchange import batch, give
from tests.mempool.world import SCHEME, Client, Driver, digest_of, make_driver, settings


def served(driver: Driver) -> list[bytes]:
    return [data for message in driver.messages(Batches) for data in message.batches]


def with_batches(count: int, **fields) -> tuple[Driver, list[bytes], list[bytes]]:
    driver = make_driver(settings=settings(**fields))
    made = [batch(n, start=10 * n) for n in range(1, count + 1)]
    give(driver, 1, *made)
    return driver, [each.digest for each in made], [each.encode() for each in made]


def test_batches_are_served_once_each_to_who_asked() -> None:
    driver, digests, data = with_batches(3)
    driver.give(FromPeer(2, BatchRequest((digests[2], digest_of(9), digests[0], digests[0]))))
    assert served(driver) == [data[2], data[0]]
    assert driver.sent.peers[-1].peers == (2,)
    driver.give(FromPeer(2, BatchRequest((digest_of(9),))))
    assert len(driver.messages(Batches)) == 1


def test_an_allowance_a_second_for_each_peer() -> None:
    driver, digests, data = with_batches(4, served_size_bytes_max=2_000)
    fit = 2_000 // len(data[0])
    assert 0 < fit < 4
    request = BatchRequest(tuple(digests))
    driver.give(FromPeer(2, request))
    driver.give(FromPeer(2, request))
    assert served(driver) == data[:fit]
    driver.give(FromPeer(3, request))
    assert served(driver) == data[:fit] * 2
    driver.advance(1_000)
    driver.give(FromPeer(2, request))
    assert served(driver) == data[:fit] * 3


def test_one_batch_over_the_allowance_is_served_all_the_same() -> None:
    driver, digests, data = with_batches(2, served_size_bytes_max=1)
    driver.give(FromPeer(2, BatchRequest(tuple(digests))))
    assert served(driver) == data[:1]


def test_answers_fit_into_frames(monkeypatch) -> None:
    from qnet_actors.mempool import serving

    driver, digests, data = with_batches(5)
    monkeypatch.setattr(serving, "_MESSAGE_BYTES", 2 * len(data[0]) + 10)
    driver.give(FromPeer(2, BatchRequest(tuple(digests))))
    assert [len(message.batches) for message in driver.messages(Batches)] == [2, 2, 1]
    assert served(driver) == data
    for message in driver.messages(Batches):
        assert MESSAGE_CODEC.decode(encode(message)) == message
    assert settings().batch_size_bytes_max * 2 < FRAME_SIZE_BYTES_MAX


def test_keys_are_served() -> None:
    driver, alice = make_driver(), Client(1)
    assert driver.submit(alice.send(0)) == [0]
    driver.give(FromPeer(2, KeyRequest((digest_of(1), alice.key_id, alice.key_id))))
    assert driver.messages(Keys) == [Keys((PublicKey(SCHEME, alice.public_key),))]
    driver.give(FromPeer(2, KeyRequest((digest_of(1),))))
    assert len(driver.messages(Keys)) == 1


def test_keys_have_the_same_allowance() -> None:
    driver = make_driver(settings=settings(served_size_bytes_max=70))
    clients = [Client(n) for n in range(1, 5)]
    assert driver.submit(*[client.send(0) for client in clients]) == [0] * 4
    driver.give(FromPeer(2, KeyRequest(tuple(client.key_id for client in clients))))
    assert [len(message.keys) for message in driver.messages(Keys)] == [2]
