"""Strangers, liars and replays at the door of a validator, and at the far end of a dial."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from qnet_actors.links import LinkSettings, Reason
from qnet_actors.links.handshake import (
    HELLO_CODEC,
    LINK_VERSION,
    Hello,
    Proof,
    Role,
    proof_digest,
    prove_acceptor,
    prove_dialler,
)
from qnet_actors.links.stream import Ended, Stream, length_prefix
from qnet_actors.wire.codec import encode
from qnet_actors.wire.hashing import ZERO_DIGEST
from qnet_actors.wire.schemes import CONTEXT_DAG_BLOCK, CONTEXT_LINK
from tests.links.peers import (
    CHAIN,
    PEER_KEYS,
    Validator,
    ended,
    hostile_server,
    identity,
    network,
    read_payload,
    signer,
    stranger,
    transport,
    write_frame,
    write_raw,
)

NONCE = b"n" * 32


def hello(index: int = 0, **changes: object) -> bytes:
    own = Hello(LINK_VERSION, CHAIN, PEER_KEYS[index].id, NONCE)
    return encode(msgspec.structs.replace(own, **changes))


async def knock(validator: Validator, *frames: bytes) -> None:
    """Sends frames as a stranger and waits until the door is shut."""
    async with stranger(validator.address) as stream:
        for frame in frames:
            write_frame(stream, frame)
        await ended(stream)


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (hello(version=1), Reason.WRONG_VERSION),
        (hello(chain_id=b"d" * 32), Reason.WRONG_CHAIN),
        (hello(index=1), Reason.WRONG_PEER),
        (hello(index=4), Reason.WRONG_PEER),
        (hello(key_id=bytes(32)), Reason.WRONG_PEER),
        (b"", Reason.BAD_HELLO),
        (b"GET / HTTP/1.1\r\n\r\n", Reason.BAD_HELLO),
        (hello() + b"\0", Reason.BAD_HELLO),
        (hello()[:-1], Reason.BAD_HELLO),
        (b"\xcc\x02".join(hello().split(b"\x02", 1)), Reason.BAD_HELLO),
        (bytes(129), Reason.OVERSIZED_FRAME),
    ],
)
async def test_a_hello_that_is_not_right_shuts_the_door(first, reason):
    validator = Validator(1)
    async with network(validator):
        await knock(validator, first)
        assert validator.links.strangers.ends == {reason: 1}
        assert validator.links.up == ()


async def test_a_length_over_the_limit_is_refused_before_its_bytes_come():
    validator = Validator(1)
    async with network(validator), stranger(validator.address) as stream:
        write_raw(stream, b"\xff\xff\xff\xff")
        await ended(stream)
        assert validator.links.strangers.ends == {Reason.OVERSIZED_FRAME: 1}


async def test_a_connection_that_closes_at_once_is_counted():
    validator = Validator(1)
    async with network(validator), stranger(validator.address) as stream:
        write_raw(stream, length_prefix(hello())[:2])
        transport(stream).write_eof()
        await ended(stream)
        assert validator.links.strangers.ends == {Reason.LOST: 1}


async def test_a_connection_that_says_nothing_runs_into_the_time_limit():
    validator = Validator(1, settings=LinkSettings(handshake_timeout_ms=20))
    async with network(validator):
        async with stranger(validator.address) as stream:
            await ended(stream)
        assert validator.links.strangers.ends == {Reason.HANDSHAKE_TIMEOUT: 1}
        # Saying hello and no more is no better.
        await knock(validator, hello())
        assert validator.links.strangers.ends == {Reason.HANDSHAKE_TIMEOUT: 2}


async def test_the_oldest_stranger_makes_room_and_a_validator_still_gets_in():
    a, b = Validator(0), Validator(1, settings=LinkSettings(handshakes_max=2))
    async with network(a, b, connect=False), stranger(b.address) as first:
        write_frame(first, hello())
        await read_payload(first)
        async with stranger(b.address) as second:
            write_frame(second, hello())
            await read_payload(second)
            a.links.set_peers({1: b.address})
            assert await a.ups.get() == 1
            await ended(first)
            assert b.links.strangers.ends == {Reason.CROWDED_OUT: 1}


def proofs() -> dict[str, object]:
    """What a stranger may sign or not sign to pass for validator 0."""

    def signed(index: int, role: Role, context: bytes = CONTEXT_LINK, swap: bool = False):
        def make(own: bytes, theirs: bytes) -> bytes:
            hellos = (theirs, own) if swap else (own, theirs)
            digest = proof_digest(role, ZERO_DIGEST, *hellos)
            return encode(Proof(signer(index).sign(digest, context)))

        return make

    return {
        "another member's key": signed(2, Role.DIALLER),
        "a key of nobody": signed(4, Role.DIALLER),
        "the other role": signed(0, Role.ACCEPTOR),
        "the hellos swapped": signed(0, Role.DIALLER, swap=True),
        "another context": signed(0, Role.DIALLER, CONTEXT_DAG_BLOCK),
        "an empty signature": lambda own, theirs: encode(Proof(b"")),
        "zeros": lambda own, theirs: encode(Proof(bytes(32))),
        "no signature": lambda own, theirs: b"",
        "garbage": lambda own, theirs: b"\xc1" * 40,
    }


@pytest.mark.parametrize("make", proofs().values(), ids=proofs().keys())
async def test_a_proof_that_is_not_right_shuts_the_door(make):
    validator = Validator(1)
    async with network(validator), stranger(validator.address) as stream:
        write_frame(stream, hello())
        theirs = await read_payload(stream)
        write_frame(stream, make(hello(), theirs))
        await ended(stream)
        assert validator.links.strangers.ends == {Reason.BAD_PROOF: 1}
        assert validator.ups.empty()


async def test_a_proof_of_an_earlier_handshake_proves_nothing():
    validator = Validator(1)
    async with network(validator):
        async with stranger(validator.address) as stream:
            write_frame(stream, hello())
            theirs = await read_payload(stream)
            digest = proof_digest(Role.DIALLER, ZERO_DIGEST, hello(), theirs)
            proof = encode(Proof(signer(0).sign(digest, CONTEXT_LINK)))
            write_frame(stream, proof)
            await read_payload(stream)
            assert await validator.ups.get() == 0
        async with stranger(validator.address) as replayed:
            write_frame(replayed, hello())
            assert await read_payload(replayed) != theirs
            write_frame(replayed, proof)
            await ended(replayed)
        assert validator.links.strangers.ends == {Reason.BAD_PROOF: 1}
        assert validator.links.counters[0].ups == 1


async def test_a_stranger_gets_no_signature_before_it_has_proved_itself():
    validator = Validator(1)
    async with network(validator), stranger(validator.address) as stream:
        write_frame(stream, hello())
        assert HELLO_CODEC.decode(await read_payload(stream)).key_id == PEER_KEYS[1].id
        write_frame(stream, encode(Proof(bytes(32))))
        with pytest.raises(Ended):
            await read_payload(stream)


def answering(*frames: bytes):
    """A server that reads a frame before each that it sends."""

    async def behave(stream):
        for frame in frames:
            await stream.read_frame(10_000)
            write_frame(stream, frame)
        await ended(stream)

    return behave


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ((hello(index=2),), Reason.WRONG_PEER),
        ((hello(index=0),), Reason.WRONG_PEER),
        ((hello(index=4),), Reason.WRONG_PEER),
        ((hello(index=1, chain_id=b"d" * 32),), Reason.WRONG_CHAIN),
        ((b"SSH-2.0-server\r\n",), Reason.BAD_HELLO),
        ((hello(index=1), encode(Proof(bytes(32)))), Reason.BAD_PROOF),
        ((hello(index=1), b"\xc0"), Reason.BAD_PROOF),
    ],
)
async def test_a_dialler_leaves_who_is_not_the_one_it_dialled(frames, reason):
    settings = LinkSettings(backoff_ms=600_000, backoff_ms_max=600_000)
    validator = Validator(0, settings=settings)
    left = asyncio.Event()

    async def behave(stream):
        await answering(*frames)(stream)
        left.set()

    async with network(validator), hostile_server(behave) as address:
        validator.links.set_peers({1: address})
        await left.wait()
        assert validator.links.counters[1].ends == {reason: 1}
        assert validator.ups.empty()


async def test_what_the_dialler_signed_cannot_be_sent_back_to_it():
    settings = LinkSettings(backoff_ms=600_000, backoff_ms_max=600_000)
    validator = Validator(0, settings=settings)
    left = asyncio.Event()

    async def reflect(stream):
        await stream.read_frame(10_000)
        write_frame(stream, hello(index=1))
        write_frame(stream, await stream.read_frame(10_000))
        await ended(stream)
        left.set()

    async with network(validator), hostile_server(reflect) as address:
        validator.links.set_peers({1: address})
        await left.wait()
        assert validator.links.counters[1].ends == {Reason.BAD_PROOF: 1}


@pytest.mark.parametrize(("binding", "accepted"), [(b"b" * 32, True), (b"x" * 32, False)])
async def test_a_handshake_relayed_into_another_channel_fails(binding, accepted):
    """Both ends sign the channel binding, so they notice when theirs differ."""
    outcomes: asyncio.Queue = asyncio.Queue()

    def bind(stream: Stream, binding: bytes) -> None:
        vars(stream)["binding"] = binding

    async def acceptor(stream):
        bind(stream, b"b" * 32)
        with identity(1) as own:
            try:
                outcomes.put_nowait(await prove_acceptor(stream, own))
            except Ended as error:
                outcomes.put_nowait(error.reason)
                await stream.close()

    async with hostile_server(acceptor) as address, stranger(address) as stream:
        bind(stream, binding)
        with identity(0) as own:
            if accepted:
                assert await prove_dialler(stream, own, 1) == 1
                assert await outcomes.get() == 0
            else:
                with pytest.raises(Ended) as caught:
                    await prove_dialler(stream, own, 1)
                assert caught.value.reason is Reason.LOST
                assert await outcomes.get() is Reason.BAD_PROOF
