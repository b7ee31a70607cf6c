"""A gateway that was itself suspended does not hold its validators for dead."""

from __future__ import annotations

import asyncio

import pytest

from qnet_actors.gateway.metrics import Metrics
from qnet_actors.gateway.patience import STALLS_MAX, TICKS_AFTER_STALL
from qnet_actors.gateway.settings import Settings
from qnet_actors.gateway.upstream import Upstream, Upstreams
from qnet_actors.wire.codes import Code, QnetError
from tests.gateway.fakes import make_backends


class LoopClock:
    """The running loop's clock, which goes on only when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1_000.0
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: self.now_s)

    async def advance(self, by_s: float) -> None:
        self.now_s += by_s
        for _ in range(8):
            await asyncio.sleep(0)


def upstream_of(settings: Settings) -> Upstream:
    (upstream,) = Upstreams(make_backends(), settings, Metrics()).all
    return upstream


async def test_an_answer_that_came_during_a_stall_of_the_gateway_is_read(monkeypatch):
    clock = LoopClock(monkeypatch)
    upstream = upstream_of(Settings(call_timeout_ms=3_000))
    request = asyncio.get_running_loop().create_future()
    call = asyncio.create_task(upstream.call(request))
    await clock.advance(0)
    # Both early in the wait, and where its last tick is the one that comes too late.
    await clock.advance(60)
    for _ in range(11):
        await clock.advance(0.26)
    await clock.advance(60)
    assert not call.done()
    assert upstream.live
    request.set_result(7)
    assert await call == 7
    assert upstream.live


@pytest.mark.parametrize("stall_s", [0.0, 60.0])
async def test_silence_is_a_death_whatever_stalled_before(monkeypatch, stall_s):
    clock = LoopClock(monkeypatch)
    upstream = upstream_of(Settings(call_timeout_ms=1_000))
    call = asyncio.create_task(upstream.call(asyncio.get_running_loop().create_future()))
    await clock.advance(0)
    await clock.advance(stall_s)
    for _ in range(TICKS_AFTER_STALL - 1):
        await clock.advance(0.26)
        assert not call.done()
    await clock.advance(0.26)
    with pytest.raises(QnetError) as refused:
        await call
    assert refused.value.code is Code.NODE_UNREACHABLE
    assert not upstream.live


async def test_a_gateway_that_stalls_all_the_time_gives_up_too(monkeypatch):
    clock = LoopClock(monkeypatch)
    upstream = upstream_of(Settings(call_timeout_ms=1_000))
    call = asyncio.create_task(upstream.call(asyncio.get_running_loop().create_future()))
    await clock.advance(0)
    for _ in range(STALLS_MAX + TICKS_AFTER_STALL):
        assert not call.done()
        await clock.advance(60)
    with pytest.raises(QnetError):
        await call
