"""Frames in pieces, and what is read before it is wanted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnet_actors.links.counters import Reason
from qnet_actors.links.stream import Ended, Stream, length_prefix


class FakeTransport:
    """Gives a stream bytes as the system would: no more than its buffer takes, none if paused."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.waiting = b""
        self.paused = False
        self.closing = self.ending = False
        self.written: list[bytes] = []
        stream.connection_made(self)

    def feed(self, data: bytes) -> None:
        self.waiting += data
        self._flow()

    def _flow(self) -> None:
        while self.waiting and not self.paused:
            buffer = self.stream.get_buffer(-1)
            assert len(buffer), "a transport may not be given an empty buffer"
            size = min(len(buffer), len(self.waiting))
            buffer[:size] = self.waiting[:size]
            self.waiting = self.waiting[size:]
            self.stream.buffer_updated(size)
        if self.ending and not self.waiting:
            self.stream.eof_received()

    def end(self) -> None:
        """No more will come after what waits."""
        self.ending = True
        self._flow()

    def pause_reading(self) -> None:
        assert not self.paused
        self.paused = True

    def resume_reading(self) -> None:
        assert self.paused
        self.paused = False
        asyncio.get_running_loop().call_soon(self._flow)

    def is_closing(self) -> bool:
        return self.closing

    def writelines(self, parts: list[bytes]) -> None:
        self.written += parts

    def get_write_buffer_size(self) -> int:
        return sum(map(len, self.written))

    def abort(self) -> None:
        self.closing = True
        self.stream.connection_lost(None)


async def read_all(data: bytes, cuts: list[int], read_ahead_bytes: int) -> list[bytes]:
    """The frames of a stream that comes in pieces, then its end."""
    stream = Stream(read_ahead_bytes)
    transport = FakeTransport(stream)
    frames: list[bytes] = []

    async def read() -> None:
        while True:
            frames.append(bytes(await stream.read_frame(300)))

    task = asyncio.get_running_loop().create_task(read())
    bounds = [0, *sorted(cuts), len(data)]
    for place in range(len(bounds) - 1):
        transport.feed(data[bounds[place] : bounds[place + 1]])
        await asyncio.sleep(0)
    transport.end()
    with pytest.raises(Ended) as caught:
        await task
    assert caught.value.reason is Reason.LOST
    return frames


@given(
    st.lists(st.binary(max_size=300), max_size=8),
    st.sampled_from([1, 8, 9, 16, 100, 1_000, 10_000]),
    st.data(),
)
def test_frames_come_out_whole_however_they_are_cut(payloads, read_ahead_bytes, data):
    whole = b"".join(length_prefix(payload) + payload for payload in payloads)
    cuts = data.draw(st.lists(st.integers(0, len(whole)), max_size=6))
    assert asyncio.run(read_all(whole, cuts, read_ahead_bytes)) == payloads


async def test_a_length_over_the_limit_is_refused_before_anything_is_set_aside():
    stream = Stream(64)
    FakeTransport(stream).feed((11).to_bytes(4, "big"))
    with pytest.raises(Ended) as caught:
        await stream.read_frame(10)
    assert caught.value.reason is Reason.OVERSIZED_FRAME
    assert stream._rest is None


async def test_what_is_not_wanted_stays_with_the_system():
    stream = Stream(100)
    transport = FakeTransport(stream)
    frame = length_prefix(bytes(46)) + bytes(46)
    transport.feed(frame * 10)
    assert transport.paused
    assert len(transport.waiting) == 400
    for _ in range(10):
        assert await stream.read_frame(46) == bytes(46)
    assert transport.waiting == b""


async def test_a_large_frame_does_not_bring_the_next_one_with_it():
    stream = Stream(100)
    transport = FakeTransport(stream)
    task = asyncio.get_running_loop().create_task(stream.read_frame(1_000))
    await asyncio.sleep(0)
    transport.feed(length_prefix(bytes(1_000)) + bytes(1_000) + length_prefix(b"next") + b"next")
    # The head came before anyone knew how large the frame is; then it is received into its place.
    assert await task == bytes(1_000)
    assert transport.paused
    assert await stream.read_frame(10) == b"next"


async def test_everything_goes_out_in_one_write():
    stream = Stream(100)
    transport = FakeTransport(stream)
    assert stream.write((b"one", b"", b"three")) == 4 + 3 + 4 + 4 + 5
    assert b"".join(transport.written) == b"\0\0\0\3one\0\0\0\0\0\0\0\5three"
    assert stream.waiting_bytes == 20


async def test_drain_waits_for_the_transport():
    stream = Stream(100)
    FakeTransport(stream)
    await stream.drain()
    stream.pause_writing()
    waiting = asyncio.get_running_loop().create_task(stream.drain())
    await asyncio.sleep(0)
    assert not waiting.done()
    stream.resume_writing()
    await waiting


async def test_a_lost_connection_ends_reading_writing_and_waiting():
    stream = Stream(100)
    FakeTransport(stream).feed(length_prefix(bytes(50)) + bytes(20))
    reading = asyncio.get_running_loop().create_task(stream.read_frame(50))
    stream.pause_writing()
    draining = asyncio.get_running_loop().create_task(stream.drain())
    await asyncio.sleep(0)
    await stream.close()
    await draining
    with pytest.raises(Ended):
        await reading
    with pytest.raises(Ended):
        stream.write((b"late",))
    assert stream.waiting_bytes == 0
    await stream.close()
