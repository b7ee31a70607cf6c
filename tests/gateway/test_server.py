from __future__ import annotations

import asyncio
import socket

import httpx
import msgspec
import pytest
import uvloop

from qnet_actors.client import AsyncClient
from qnet_actors.gateway.app import create_app
from qnet_actors.gateway.server import GatewayServer, bind
from qnet_actors.gateway.settings import Settings
from qnet_actors.wire.codes import Code, QnetError
from tests.gateway.fakes import make_backends
from tests.gateway.ledger import Wallet
from tests.gateway.serving import served

REQUEST = b"GET /api/v1/status HTTP/1.1\r\nHost: gateway\r\n"


async def talk(port: int, *parts: bytes) -> bytes:
    """What comes back until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        async with asyncio.timeout(20):
            return await reader.read()
    finally:
        writer.close()


async def test_a_request_is_answered_without_naming_the_server():
    async with served(make_backends()) as server:
        answer = await talk(server.port, REQUEST + b"Connection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\nserver:" not in answer.lower()


@pytest.mark.parametrize("path", [b"/healthz", b"/api/v1/status", b"/docs", b"/"])
async def test_head_is_get_without_the_body(path):
    async with served(make_backends(auto=True)) as server:
        rest = b" %b HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n" % path
        head = await talk(server.port, b"HEAD" + rest)
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert head.endswith(b"\r\n\r\n")
        got, _, body = (await talk(server.port, b"GET" + rest)).partition(b"\r\n\r\n")
        assert body
        length = b"content-length: %d" % len(body)
        assert length in got.lower()
        assert length in head.lower()


@pytest.mark.parametrize("parts", [[], [b"GET"], [REQUEST]])
async def test_a_head_that_does_not_come_in_time_is_given_up(parts):
    async with served(make_backends(), Settings(header_timeout_ms=20)) as server:
        assert await talk(server.port, *parts) == b""


async def test_so_is_a_second_head_on_the_same_connection():
    async with served(make_backends(), Settings(header_timeout_ms=50)) as server:
        answer = await talk(server.port, REQUEST + b"\r\n" + REQUEST)
        assert answer.count(b"HTTP/1.1 200 OK") == 1


async def test_a_body_that_does_not_come_is_a_problem_document():
    settings = Settings(first_byte_timeout_ms=20)
    async with served(make_backends(), settings) as server:
        head = (
            b"POST /api/v1/tx/submit HTTP/1.1\r\nHost: gateway\r\n"
            b"Content-Type: application/msgpack\r\nContent-Length: 10\r\n\r\n"
        )
        answer = await talk(server.port, head)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert msgspec.json.decode(answer.partition(b"\r\n\r\n")[2])["code"] == "request_timeout"


@pytest.mark.parametrize(
    ("head", "code"),
    [
        (REQUEST + b"X: " + b"a" * 20_000 + b"\r\n\r\n", Code.TOO_LARGE),
        (REQUEST + b"".join(b"X-%d: a\r\n" % i for i in range(5_000)), Code.TOO_LARGE),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n", Code.TOO_LARGE),
        (b"\x16\x03\x01 this is not HTTP\r\n\r\n", Code.MALFORMED),
        (REQUEST + b"Content-Length: x\r\n\r\n", Code.MALFORMED),
    ],
)
async def test_a_head_that_is_too_large_or_none_is_refused_and_closed(head, code):
    async with served(make_backends()) as server:
        answer = await talk(server.port, head)
        assert answer.startswith(b"HTTP/1.1 %d " % code.http_status)
        assert msgspec.json.decode(answer.partition(b"\r\n\r\n")[2])["code"] == code.label


async def test_connections_are_bounded():
    async with served(make_backends(), Settings(connections_max=2)) as server:
        held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(2)]
        await asyncio.sleep(0)
        answer = await talk(server.port)
        assert answer.startswith(b"HTTP/1.1 503 ")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"retry-after: 1" in head
        assert msgspec.json.decode(body)["code"] == "busy"
        for _, writer in held:
            writer.close()
            await writer.wait_closed()


async def test_a_port_that_is_taken_is_named():
    async with served(make_backends()) as server:
        settings = Settings(port=server.port)
        second = GatewayServer(create_app(make_backends(), settings), settings)
        with pytest.raises(QnetError) as refused:
            await second.start()
        assert refused.value.code == Code.PORT_IN_USE
        assert str(server.port) in refused.value.detail


def test_a_host_that_is_none_is_a_matter_of_configuration():
    for host in ("no such host", "192.0.2.1"):
        with pytest.raises(QnetError) as refused:
            bind(host, 0)
        assert refused.value.code == Code.CONFIGURATION_INVALID


async def test_what_has_begun_is_answered_before_the_end():
    (backend,) = make_backends()
    backend.gate = asyncio.Event()
    settings = Settings(port=0)
    server = GatewayServer(create_app([backend], settings), settings)
    await server.start()
    async with httpx.AsyncClient(base_url=server.url) as http:
        sending = asyncio.create_task(
            http.post(
                "/api/v1/tx/submit",
                content=Wallet(0).transfer(0),
                headers={"content-type": "application/msgpack"},
            )
        )
        async with asyncio.timeout(10):
            while not backend.calls:  # noqa: ASYNC110 - the fake has nothing to wait for
                await asyncio.sleep(0)
        closing = asyncio.create_task(server.close())
        await asyncio.sleep(0)
        backend.gate.set()
        assert (await sending).status_code == 202
    await closing
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", server.port), timeout=1).close()


def test_the_url_is_one_that_can_be_reached():
    def url(host: str) -> str:
        settings = Settings(host=host)
        made = GatewayServer(create_app(make_backends(), settings), settings)
        made.port = 9
        return made.url

    assert url("0.0.0.0") == url("127.0.0.1") == "http://127.0.0.1:9"
    assert url("::1") == "http://[::1]:9"


def test_it_runs_on_uvloop_as_the_actor_does():
    async def run() -> None:
        async with served(make_backends(auto=True)) as server, AsyncClient(server.url) as client:
            assert (await client.status()).ready
            async with client.subscribe(blocks=True) as messages:
                assert (await anext(messages)).type == "subscribed"
                await client.transfer(Wallet(0).signer, bytes(32), 1)
                assert (await anext(messages)).type == "block"

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


async def test_a_body_is_not_waited_for_where_it_would_be_refused():
    backends = make_backends(1)
    async with served(backends, Settings(queue_wait_ms_max=1, queue_waiting_min=1)) as server:
        backends[0].gate = asyncio.Event()
        upstream = server.app.state.gateway.upstreams.all[0]
        taken = []
        for wallet in map(Wallet, range(2)):
            call = upstream.submit([wallet.transfer(0)], 1)
            taken.append(asyncio.create_task(call))
            # The first is under way by then, and the second has waited too long.
            await asyncio.wait(taken, timeout=0.02)
        assert upstream.refused_gas_price > 1
        data = Wallet(2).transfer(0)
        begin = (
            "POST /api/v1/tx/submit HTTP/1.1\r\nHost: x\r\n"
            f"Content-Type: application/msgpack\r\nContent-Length: {len(data)}\r\n\r\n"
        ).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        async with asyncio.timeout(20):
            writer.write(begin + data[:9])
            assert b" 503 " in await reader.readline()
            said = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert b"retry-after: 1" in said
            length = int(said.partition(b"content-length: ")[2].partition(b"\r")[0])
            assert b'"busy"' in await reader.readexactly(length)
            backends[0].gate.set()
            await asyncio.gather(*taken)
            # The rest of the body is passed over, and the connection serves on.
            writer.write(data[9:] + begin + data)
            assert b" 202 " in await reader.readline()
            writer.close()
            await writer.wait_closed()
