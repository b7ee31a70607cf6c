"""What is held for those who wait: bounded, and gone when nobody waits."""

from __future__ import annotations

import asyncio
import math

import pytest

from qnet_actors.gateway.held import Held
from qnet_actors.gateway.settings import Settings
from qnet_actors.gateway.submission import Parsed
from qnet_actors.gateway.upstream import home
from qnet_actors.wire.codes import Code, QnetError
from tests.gateway.fakes import SLOW_RETRY, world
from tests.gateway.ledger import Wallet, id_of


def item(number: int, size_bytes: int = 10) -> Parsed:
    return Parsed(bytes([number]) * 32, bytes(32), bytes(size_bytes), 1)


def test_what_a_validator_took_is_told_in_order_until_nobody_waits() -> None:
    held, one, other = Held(10, 1_000), object(), object()
    items = [item(n) for n in range(4)]
    held.add(items)
    assert held.of(one) == []
    for each in (items[2], items[0], items[1]):
        held.took(each, one)
    held.took(items[3], other)
    assert held.of(one) == items[:3]
    held.took(items[0], other)
    held.drop(items[1].id)
    held.drop(items[1].id)
    assert held.of(one) == [items[2]]
    assert held.of(other) == [items[0], items[3]]


def test_past_a_bound_the_oldest_are_held_no_more() -> None:
    held, one = Held(2, 1_000), object()
    items = [item(n) for n in range(5)]
    held.add(items[1:4])
    for each in items:
        held.took(each, one)
    assert held.of(one) == items[2:4]
    held = Held(10, 25)
    held.add([items[1], items[1], items[2], items[3]])
    assert len(held) == 2
    held.drop(items[2].id)
    held.add([items[4]])
    for each in items:
        held.took(each, one)
    assert held.of(one) == items[3:]
    held.add([item(5, size_bytes=26)])
    assert len(held) == 0


@pytest.mark.parametrize("full", [True, False])
async def test_what_nobody_could_take_when_its_holder_died_is_kept(full):
    async with world(2, settings=SLOW_RETRY) as w:
        data = Wallet(0).transfer(0)
        position, _ = home(Wallet(0).address, 2)
        dying, other = w.backends[position], w.backends[1 - position]
        upstream = w.gateway.upstreams.all[position]
        waiting = asyncio.create_task(w.submit(data, wait="executed", timeout_ms=30_000))
        await w.settle()
        other.busy = full
        other.fault = None if full else QnetError(Code.NODE_UNREACHABLE, "gone")
        upstream._failed()
        await w.settle()
        assert len(other.calls) == 1
        assert [item.data for item in w.gateway._held.of(upstream)] == [data]
        dying.execute()
        await w.settle()
        assert (await waiting).status_code == 200
        assert len(w.gateway._held) == 0


async def test_where_nobody_takes_anything_each_is_told_so():
    async with world(1, settings=Settings(busy_pause_ms=60_000)) as w:
        w.backend.busy = True
        data = [Wallet(seed).transfer(0) for seed in range(2)]
        assert {each.code for each in await w.gateway.submit(data)} == {Code.BUSY}
        (upstream,) = w.gateway.upstreams.all
        upstream._room_at_s = math.inf
        outcomes = await w.gateway.submit(data)
        assert [each.code for each in outcomes] == [Code.DISK_FULL] * 2


async def test_a_retry_and_a_shorter_wait_leave_it_held_for_who_waits_on():
    async with world(1) as w:
        data = Wallet(0).transfer(0)
        first = asyncio.create_task(w.submit(data, wait="executed", timeout_ms=30_000))
        await w.settle()
        w.backend.refused[data] = Code.DUPLICATE
        assert (await w.submit(data, wait="executed")).json()["code"] == "duplicate"
        assert len(w.gateway._held) == 1
        with pytest.raises(QnetError) as over:
            await w.gateway.wait(id_of(data), "final", asyncio.get_running_loop().time())
        assert over.value.code is Code.WAIT_TIMEOUT
        assert len(w.gateway._held) == 1
        w.backend.execute()
        await w.settle()
        assert (await first).status_code == 200
        assert len(w.gateway._held) == 0


async def test_the_last_whose_wait_is_over_leaves_nothing_held():
    async with world(1) as w:
        data = Wallet(0).transfer(0)
        first = asyncio.create_task(w.submit(data, wait="executed", timeout_ms=1))
        await w.settle()
        with pytest.raises(QnetError):
            await w.gateway.wait(id_of(data), "final", asyncio.get_running_loop().time() + 0.002)
        assert (await first).json()["code"] == "wait_timeout"
        assert len(w.gateway._held) == 0
