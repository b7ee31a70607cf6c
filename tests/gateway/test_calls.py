"""Calls over a stream: who may open one, many under way, and what a lost connection leaves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec
import pytest

from qnet_actors.gateway import calls
from qnet_actors.gateway.backend import Call, FramedBackend
from qnet_actors.gateway.calls import CallClient, CallServer, Door
from qnet_actors.gateway.queries import StatusQuery
from qnet_actors.links import Ended, TcpTransport
from qnet_actors.wire.codes import Code, QnetError
from tests.gateway.fakes import FakeBackend, make_backends
from tests.gateway.ledger import Wallet

LOOPBACK = "127.0.0.1"


class Site:
    """A server that can be ended and begun anew, and a client that finds the newest."""

    def __init__(self, backend: FakeBackend) -> None:
        self.backend = backend
        self.server = CallServer(backend)
        self.door: Door | None = None
        self.located = 0
        self.client = CallClient(self.locate)
        self.remote = FramedBackend(0, self.client.call)

    async def begin(self) -> Door:
        self.server = CallServer(self.backend)
        self.door = await self.server.start(LOOPBACK)
        return self.door

    async def locate(self) -> Door:
        self.located += 1
        if self.door is None:
            raise QnetError(Code.NODE_UNREACHABLE)
        return self.door


@contextlib.asynccontextmanager
async def opened() -> AsyncIterator[Site]:
    (backend,) = make_backends()
    site = Site(backend)
    await site.begin()
    try:
        yield site
    finally:
        await site.client.close()
        await site.server.close()


async def refusal(call: object) -> Code:
    with pytest.raises(QnetError) as refused:
        await call  # type: ignore[misc]
    return refused.value.code


async def test_calls_are_under_way_together_and_each_gets_its_own_answer():
    async with opened() as site:
        alice = Wallet(0)
        cursor, _ = await site.remote.poll(0, 0)
        poll = asyncio.create_task(site.remote.poll(cursor, 10_000))
        results = await asyncio.gather(
            *(site.remote.submit([alice.transfer(nonce)]) for nonce in range(20))
        )
        assert [code for ((code, _, _),) in results] == [0] * 20
        assert len({id_ for ((_, id_, _),) in results}) == 20
        assert await site.remote.query(StatusQuery()) == await site.backend.query(StatusQuery())
        site.backend.execute()
        after, events = await poll
        assert events
        assert after > cursor
        assert site.located == 1


async def test_a_lost_connection_fails_what_is_under_way_and_the_next_call_finds_the_new_server():
    async with opened() as site:
        await site.remote.query(StatusQuery())
        cursor, _ = await site.remote.poll(0, 0)
        poll = asyncio.create_task(site.remote.poll(cursor, 10_000))
        await site.remote.query(StatusQuery())
        old = site.door
        await site.server.close()
        assert await refusal(poll) == Code.NODE_UNREACHABLE
        # Nobody listens there any more.
        assert await refusal(site.remote.query(StatusQuery())) == Code.NODE_UNREACHABLE
        site.door = None
        assert await refusal(site.remote.query(StatusQuery())) == Code.NODE_UNREACHABLE
        assert await site.begin() != old
        await site.remote.query(StatusQuery())


async def test_a_call_that_was_given_up_leaves_nothing_and_disturbs_nobody():
    async with opened() as site:
        cursor, _ = await site.remote.poll(0, 0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await site.remote.poll(cursor, 10_000)
        site.backend.execute()
        await site.remote.query(StatusQuery())
        connection = site.client._connection
        assert connection is not None
        assert not connection._waiting


async def test_a_fault_of_the_node_is_internal_and_says_nothing_of_it():
    async with opened() as site:
        site.backend.fault = ZeroDivisionError("inside")
        with pytest.raises(QnetError) as refused:
            await site.remote.poll(1, 0)
        assert refused.value.code == Code.INTERNAL
        assert "inside" not in refused.value.detail


@pytest.mark.parametrize("secret", [b"", bytes(32), bytes(31), bytes(33)])
async def test_whoever_does_not_know_the_secret_gets_no_answer(secret):
    async with opened() as site:
        assert site.door is not None
        client = CallClient(site.locate)
        site.door = msgspec.structs.replace(site.door, secret=secret)
        assert await refusal(client.call(Call.QUERY, b"")) == Code.NODE_UNREACHABLE
        await client.close()


@pytest.mark.parametrize("frame", [b"", bytes(8), bytes(calls.REQUEST_SIZE_BYTES_MAX + 1)])
async def test_what_is_no_request_ends_the_connection(frame):
    async with opened() as site:
        assert site.door is not None
        stream = await TcpTransport().open(site.door.host, site.door.port)
        stream.write((site.door.secret, frame))
        with pytest.raises(Ended):
            await stream.read_frame(1_024)
        await stream.close()
        await site.remote.query(StatusQuery())


async def test_connections_that_say_nothing_are_few_and_a_gateway_still_gets_in(monkeypatch):
    async with opened() as site:
        assert site.door is not None
        monkeypatch.setattr(calls, "STRANGERS_MAX", 2)
        silent = [await TcpTransport().open(site.door.host, site.door.port) for _ in range(3)]
        with pytest.raises(Ended):
            await silent[0].read_frame(1_024)
        await site.remote.query(StatusQuery())
        for stream in silent:
            await stream.close()


async def test_the_secret_is_not_shown():
    door = Door(LOOPBACK, 1, b"s" * 32)
    assert "s" * 4 not in repr(door)


async def test_calls_over_the_bound_wait_for_others_to_end(monkeypatch):
    monkeypatch.setattr(calls, "UNDER_WAY_MAX", 2)
    async with opened() as site:
        cursor, _ = await site.remote.poll(0, 0)
        polls = [asyncio.create_task(site.remote.poll(cursor, 20)) for _ in range(2)]
        queries = [site.remote.query(StatusQuery()) for _ in range(8)]
        await asyncio.gather(*queries, *polls)
