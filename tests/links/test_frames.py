"""Frames in pieces, and the bounds of the queue."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnet_actors.links.backoff import Backoff
from qnet_actors.links.counters import Reason
from qnet_actors.links.frames import Ended, FrameQueue, length_prefix, read_frame
from qnet_actors.links.settings import LinkSettings


async def read_all(stream: bytes, cuts: list[int], size_bytes_max: int) -> list[bytes]:
    """The frames of a stream that comes in pieces; reads alternate with pieces."""
    reader = asyncio.StreamReader()
    frames: list[bytes] = []
    heard: list[int] = []

    async def read() -> None:
        while True:
            frames.append(await read_frame(reader, size_bytes_max, heard.append))

    task = asyncio.get_running_loop().create_task(read())
    bounds = [0, *sorted(cuts), len(stream)]
    for start, end in pairwise(bounds):
        reader.feed_data(stream[start:end])
        await asyncio.sleep(0)
    reader.feed_eof()
    with pytest.raises(Ended) as caught:
        await task
    assert caught.value.reason is Reason.LOST
    assert sum(heard) == len(stream)
    return frames


@given(st.lists(st.binary(max_size=300), max_size=8), st.data())
def test_frames_come_out_whole_however_they_are_cut(payloads, data):
    stream = b"".join(length_prefix(payload) + payload for payload in payloads)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=6))
    assert asyncio.run(read_all(stream, cuts, 300)) == payloads


async def test_a_length_over_the_limit_is_refused_with_nothing_read():
    reader = asyncio.StreamReader()
    reader.feed_data((11).to_bytes(4, "big") + bytes(11))
    with pytest.raises(Ended) as caught:
        await read_frame(reader, 10)
    assert caught.value.reason is Reason.OVERSIZED_FRAME
    assert await reader.read(100) == bytes(11)


@given(
    st.lists(st.none() | st.binary(max_size=20), max_size=40),
    st.integers(1, 6),
    st.integers(1, 60),
)
def test_a_queue_keeps_the_newest_within_its_bounds(steps, frames_max, bytes_max):
    queue = FrameQueue(frames_max, bytes_max)
    model: list[bytes] = []
    for step in steps:
        if step is None:
            assert queue.take() == model
            model = []
        else:
            before = len(model) + 1
            model.append(step)
            while len(model) > 1 and (len(model) > frames_max or sum(map(len, model)) > bytes_max):
                model.pop(0)
            assert queue.push(step) == before - len(model)
        assert len(queue) == len(model)
    assert queue.take() == model


def test_pauses_double_up_to_their_bound_and_chance_takes_up_to_half():
    settings = LinkSettings(backoff_ms=100, backoff_ms_max=1_000)
    least, most = Backoff(settings, lambda: 0.0), Backoff(settings, lambda: 1.0)
    assert [least.pause_ms(0) for _ in range(6)] == [50, 100, 200, 400, 500, 500]
    assert [most.pause_ms(0) for _ in range(6)] == [100, 200, 400, 800, 1_000, 1_000]


def test_a_link_that_stood_for_long_or_a_peer_that_moved_starts_over():
    backoff = Backoff(LinkSettings(backoff_ms=100, backoff_ms_max=1_000), lambda: 1.0)
    assert [backoff.pause_ms(0) for _ in range(3)] == [100, 200, 400]
    assert backoff.pause_ms(999) == 800
    assert backoff.pause_ms(1_000) == 100
    assert backoff.pause_ms(0) == 200
    backoff.reset()
    assert backoff.pause_ms(0) == 100
