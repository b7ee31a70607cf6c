"""A peer that has proved itself and then breaks the rules."""

from __future__ import annotations

import asyncio

import pytest

from qnet_actors.links import LinkSettings, Reason
from qnet_actors.links.stream import length_prefix
from qnet_actors.wire.codec import encode
from qnet_actors.wire.limits import FRAME_SIZE_BYTES_MAX
from tests.links.peers import (
    Validator,
    big,
    ended,
    network,
    proved,
    status,
    transport,
    write_frame,
    write_message,
    write_raw,
)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"\xff\xff\xff\xff", Reason.OVERSIZED_FRAME),
        ((FRAME_SIZE_BYTES_MAX + 1).to_bytes(4, "big"), Reason.OVERSIZED_FRAME),
        (length_prefix(b"x") + b"\xc1", Reason.BAD_MESSAGE),
        (length_prefix(b"xxx") + b"\x92\x0b\xc0", Reason.BAD_MESSAGE),
        (length_prefix(encode(status(1)) + b"\0") + encode(status(1)) + b"\0", Reason.BAD_MESSAGE),
        (length_prefix(b"xxxxxx") + b"\x92\x01\xdd\xff\xff\xff", Reason.BAD_MESSAGE),
        (length_prefix(bytes(2000)) + b"\x91" * 2000, Reason.BAD_MESSAGE),
    ],
)
async def test_garbage_ends_the_link_with_a_counted_reason(sent, reason):
    validator = Validator(1)
    async with network(validator), proved(validator.address, 0, 1) as stream:
        write_message(stream, status(1))
        write_raw(stream, sent)
        await ended(stream)
        assert validator.links.counters[0].ends == {reason: 1}
        assert validator.links.up == ()
        # What came before was good.
        assert await validator.received(1) == [status(1)]
        assert validator.inbox.empty()


async def test_a_stream_that_ends_within_a_frame_is_lost():
    validator = Validator(1)
    async with network(validator), proved(validator.address, 0, 1) as stream:
        write_raw(stream, length_prefix(bytes(100)) + bytes(50))
        transport(stream).write_eof()
        await ended(stream)
        assert validator.links.counters[0].ends == {Reason.LOST: 1}


async def test_a_silent_peer_is_let_go():
    validator = Validator(1, settings=LinkSettings(idle_timeout_ms=30))
    async with network(validator), proved(validator.address, 0, 1) as stream:
        await ended(stream)
        assert validator.links.counters[0].ends == {Reason.IDLE: 1}


async def test_a_peer_that_sends_keep_alives_is_no_silent_one():
    settings = LinkSettings(idle_timeout_ms=400, keepalive_ms=20)
    a, b = Validator(0, settings=settings), Validator(1, settings=settings)
    async with network(a, b), asyncio.timeout(10):
        alive = asyncio.Event()
        counters = b.links.counters[0]
        loop = asyncio.get_running_loop()
        started = loop.time()

        def look() -> None:
            # Only frames without content can have been counted: nothing was sent.
            if loop.time() - started > 0.6 and counters.frames_in > 5:
                alive.set()
            else:
                loop.call_later(0.01, look)

        look()
        await alive.wait()
        assert a.links.up == (1,)
        assert counters.ends == {}
        assert b.inbox.empty()


async def test_a_peer_that_reads_nothing_is_let_go():
    settings = LinkSettings(write_timeout_ms=50, queue_frames_max=100)
    validator = Validator(1, settings=settings)
    async with network(validator), proved(validator.address, 0, 1) as stream:
        transport(stream).pause_reading()
        await validator.ups.get()
        link_over = validator.links._links[0]._end
        # More than the buffers of the system take.
        for _ in range(30):
            assert validator.links.send(0, big(1024 * 1024))
        assert await link_over is Reason.WRITE_TIMEOUT
        # What was queued meanwhile goes with the link.
        transport(stream).resume_reading()
        await ended(stream)
        assert validator.links.up == ()


async def test_a_flood_of_small_frames_leaves_others_their_turn():
    turns = 0
    over = asyncio.Event()

    async def other_work() -> None:
        nonlocal turns
        while not over.is_set():
            turns += 1
            await asyncio.sleep(0)

    received = 0
    turns_between: list[int] = []

    def consume(peer, message):
        nonlocal received
        received += 1
        turns_between.append(turns)
        if received == 20_000:
            over.set()

    validator = Validator(1, consume)
    async with network(validator), proved(validator.address, 0, 1) as stream:
        worker = asyncio.get_running_loop().create_task(other_work())
        frame = encode(status(1))
        for _ in range(20_000):
            write_frame(stream, frame)
        await over.wait()
        await worker
    # In no stretch of 200 frames did the other task wait all the time.
    assert all(
        later > earlier
        for earlier, later in zip(turns_between[:-200], turns_between[200:], strict=True)
    )
