"""What an unknown client may send, on real connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from socket import SO_RCVBUF, SO_SNDBUF, SOL_SOCKET
from typing import Any

import msgspec
import pytest

from qnet_actors.gateway import guards
from qnet_actors.gateway.settings import Rate, Settings
from tests.gateway.fakes import make_backends
from tests.gateway.serving import served

CHUNKED = (
    b"POST /api/v1/tx/submit HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/msgpack\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
ENDLESS = {
    "url": b"GET /",
    "header name": b"GET /healthz HTTP/1.1\r\nHost: gateway\r\n",
    "header value": b"GET /healthz HTTP/1.1\r\nHost: gateway\r\nX: ",
    "chunk extension": CHUNKED + b"1;",
    "trailer name": CHUNKED + b"1\r\na\r\n0\r\n",
    "trailer value": CHUNKED + b"1\r\na\r\n0\r\nX: ",
}
UPGRADE = (
    b"GET /api/v1/ws HTTP/1.1\r\nHost: gateway\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
MASK = bytes(4)
SENT_BYTES_MAX = 4 * 1024 * 1024


def frame(head: int, payload: bytes = b"") -> bytes:
    """A masked frame of a client (RFC 6455, section 5.2); the mask changes nothing."""
    return bytes([head, 0x80 | len(payload)]) + MASK + payload


async def push(writer: asyncio.StreamWriter, piece: bytes, size_bytes_max: int) -> int:
    """Sends until the other side has had enough, and returns how much it let through."""
    sent = 0
    try:
        while sent < size_bytes_max:
            writer.write(piece)
            await writer.drain()
            sent += len(piece)
    except ConnectionError:
        pass
    return sent


async def rest(reader: asyncio.StreamReader) -> bytes:
    """What comes until the connection ends, which it has to within a time."""
    found = b""
    async with asyncio.timeout(20):
        try:
            while part := await reader.read(65_536):
                found += part
        except ConnectionError:
            pass
    return found


@asynccontextmanager
async def connected(
    settings: Settings,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, Any]]:
    async with served(make_backends(), settings) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        try:
            yield reader, writer, server
        finally:
            writer.transport.abort()


@pytest.mark.parametrize("where", ENDLESS)
async def test_what_the_parser_would_gather_without_end_is_refused(where):
    async with connected(Settings()) as (reader, writer, _):
        writer.write(ENDLESS[where])
        sent = await push(writer, b"a" * 65_536, 64 * SENT_BYTES_MAX)
        assert sent < 16 * SENT_BYTES_MAX
        answer = await rest(reader)
        if answer:  # The system may have dropped it with the connection.
            assert answer.startswith(b"HTTP/1.1 413 ")
            assert msgspec.json.decode(answer.partition(b"\r\n\r\n")[2])["code"] == "too_large"


async def test_a_body_that_nobody_reads_is_passed_over_to_a_bound(monkeypatch):
    monkeypatch.setattr(guards, "_UNREAD_BYTES_MAX", 256 * 1024)
    async with connected(Settings()) as (reader, writer, _):
        writer.write(
            b"GET /healthz HTTP/1.1\r\nHost: gateway\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        assert b" 200 " in await reader.readline()
        sent = await push(writer, b"10000\r\n" + b"a" * 65_536 + b"\r\n", 64 * SENT_BYTES_MAX)
        assert sent < 16 * SENT_BYTES_MAX
        await rest(reader)


async def test_and_to_a_time():
    async with connected(Settings(body_timeout_ms=50)) as (reader, writer, _):
        writer.write(
            b"GET /healthz HTTP/1.1\r\nHost: gateway\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        assert b" 200 " in await rest(reader)


async def test_a_body_that_was_not_wanted_and_is_whole_ends_nothing():
    request = b"GET /healthz HTTP/1.1\r\nHost: gateway\r\nContent-Length: 3\r\n\r\n"
    async with connected(Settings(body_timeout_ms=200)) as (reader, writer, _):
        for _ in range(2):
            writer.write(request + b"ab")
            async with asyncio.timeout(20):
                assert b" 200 " in await reader.readline()
                await reader.readuntil(b"}")
            writer.write(b"c")
        writer.write(request.replace(b"Host", b"Connection: close\r\nHost") + b"abc")
        assert b" 200 " in await rest(reader)


async def test_pongs_do_not_queue_for_a_client_that_never_reads():
    async with connected(Settings()) as (reader, writer, server):
        writer.write(UPGRADE)
        await reader.readuntil(b"\r\n\r\n")
        # From here on nothing is read, so that the gateway's side fills up.
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        (socket,) = server._server.server_state.connections
        # Little buffers of the system's fill up with few pings, which take the gateway time.
        for end, option in ((socket, SO_SNDBUF), (writer, SO_RCVBUF)):
            end.transport.get_extra_info("socket").setsockopt(SOL_SOCKET, option, 64 * 1024)
        pings = frame(0x89, b"p" * 125) * 500
        for _ in range(40):
            writer.write(pings)
            await asyncio.sleep(0)
        async with asyncio.timeout(20):
            await writer.drain()
        assert socket.transport.get_write_buffer_size() < len(pings) * 8
        assert not socket.writable.is_set()
        # It reads again, and is answered again.
        reader._transport.resume_reading()  # type: ignore[attr-defined]
        writer.write(frame(0x89, b"the last"))
        found = b""
        async with asyncio.timeout(20):
            while b"the last" not in found:
                found = found[-8:] + await reader.read(65_536)


async def test_empty_fragments_have_an_end():
    async with connected(Settings()) as (reader, writer, _):
        writer.write(UPGRADE)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(frame(0x01))
        await push(writer, frame(0x00) * 1_000, SENT_BYTES_MAX)
        assert b"too many fragments" in await rest(reader)


async def test_a_message_in_fragments_is_one_message():
    async with connected(Settings()) as (reader, writer, _):
        writer.write(UPGRADE)
        await reader.readuntil(b"\r\n\r\n")
        text = b'{"type":"subscribe","to":"blocks"}'
        parts = [frame(0x00, text[at : at + 1]) for at in range(1, len(text) - 1)]
        writer.write(frame(0x01, text[:1]) + b"".join(parts) + frame(0x80, text[-1:]))
        async with asyncio.timeout(20):
            await reader.readuntil(b'"subscribed"')


async def test_what_a_socket_asks_counts_as_requests_of_its_client():
    settings = Settings(client_requests=Rate(1, 3), limit_loopback=True)
    async with connected(settings) as (reader, writer, _):
        writer.write(UPGRADE)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(frame(0x81, b"{}") * 5)
        async with asyncio.timeout(20):
            for _ in range(2):
                await reader.readuntil(b'"malformed"')
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await reader.readuntil(b'"malformed"')
