"""One call in flight that carries everything queued, and frames taken once and in order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from qnet_actors.network.split import channel as module
from qnet_actors.network.split.channel import Channel, Frame, Receiver
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import QnetError


async def test_one_call_is_in_flight_and_carries_what_was_queued():
    receiver, got, under_way = Receiver(3), list[tuple[bytes, ...]](), 0
    gate, answers, faults = asyncio.Event(), list[Any](), list[str]()
    carried = asyncio.Semaphore(0)

    async def call(frame: bytes) -> int:
        nonlocal under_way
        under_way += 1
        assert under_way == 1
        await gate.wait()
        got.append(receiver.items(frame))
        under_way -= 1
        carried.release()
        return len(got)

    channel = Channel("a>b", 3, call, faults.append, answers.append)
    channel.put(b"1")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for item in (b"2", b"3", b"4"):
        channel.put(item)
    gate.set()
    for _ in range(2):
        await carried.acquire()
    channel.nudge()
    await carried.acquire()
    await channel.close()
    assert got == [(b"1",), (b"2", b"3", b"4"), ()]
    assert answers[:2] == [1, 2]
    assert not faults


async def test_a_call_that_fails_or_hangs_is_a_fault():
    faults: list[str] = []

    async def fails(_: bytes) -> None:
        raise ConnectionError("gone")

    async def hangs(_: bytes) -> None:
        await asyncio.Event().wait()

    for call in (fails, hangs):
        channel = Channel("a>b", 1, call, faults.append, timeout_seconds=0.01)
        channel.put(b"x")
        await channel._task
    assert ["ConnectionError" in faults[0], "TimeoutError" in faults[1]] == [True, True]


async def test_a_queue_is_busy_then_full(monkeypatch):
    monkeypatch.setattr(module, "BUSY_BYTES", 4)
    monkeypatch.setattr(module, "QUEUE_ITEMS_MAX", 3)
    gate = asyncio.Event()

    async def call(_: bytes) -> None:
        await gate.wait()

    channel = Channel("a>b", 1, call, lambda _: None)
    for _ in range(3):
        channel.put(b"xx")
    assert channel.busy
    with pytest.raises(QnetError):
        channel.put(b"xx")
    gate.set()
    await channel.calm()
    assert not channel.busy
    await channel.close()


@pytest.mark.parametrize(
    "frame",
    [Frame(1, "a", 1, ()), Frame(2, "a", 3, ()), Frame(2, "a", 1, ()), Frame(2, "b", 2, ())],
)
def test_frames_of_another_life_or_out_of_order_are_refused(frame):
    receiver = Receiver(2)
    assert receiver.items(encode(Frame(2, "a", 1, (b"x",)))) == (b"x",)
    with pytest.raises(QnetError):
        receiver.items(encode(frame))
