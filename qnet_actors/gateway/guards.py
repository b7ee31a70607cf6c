"""Bounds that uvicorn's protocols lack, on what an unknown client may send.

uvicorn takes classes, so subclasses are the one way in.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame

from qnet_actors.gateway.problems import PROBLEM_TYPE, Refused, problem
from qnet_actors.gateway.settings import RETRY_AFTER_S, Settings
from qnet_actors.gateway.sockets import REQUEST_SIZE_BYTES_MAX
from qnet_actors.gateway.submission import BODY_SIZE_BYTES_MAX
from qnet_actors.wire.codes import Code, QnetError

_PHRASES: Final = {
    400: b"Bad Request",
    413: b"Content Too Large",
    503: b"Service Unavailable",
}
_UNREAD_BYTES_MAX: Final = max(BODY_SIZE_BYTES_MAX.values())


def bare_response(error: QnetError) -> bytes:
    """A problem document as a whole HTTP response, after which the connection is closed."""
    status = error.code.http_status
    body = msgspec.json.encode(problem(error))
    lines = [
        b"HTTP/1.1 %d %b" % (status, _PHRASES[status]),
        b"content-type: " + PROBLEM_TYPE.encode(),
        b"connection: close",
        b"content-length: %d" % len(body),
    ]
    if status == 503:
        lines.append(b"retry-after: %d" % RETRY_AFTER_S)
    return b"\r\n".join([*lines, b"", body])


def guarded_http(settings: Settings) -> type[asyncio.Protocol]:
    """HTTP with bounds for connections, the size and time of a head, and what nobody reads.

    What a client sends is read in pieces.  The parser keeps the name and value of a header until
    they are whole, so a piece of which it tells nothing counts as a part of a head.  A body that
    goes on after its request was answered is passed over, to a bound.
    """

    class GuardedHttp(HttpToolsProtocol):
        _head_bytes = 0
        _head_timer: asyncio.TimerHandle | None = None
        _head_too_large = False
        _untold_bytes = 0
        _message_complete = True
        _unread_bytes = 0
        _unread_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            # A cast: uvloop's transports do not derive from asyncio's.
            super().connection_made(cast(asyncio.Transport, transport))
            if len(self.connections) > settings.connections_max:
                busy = Refused(Code.BUSY, "Too many connections; try again later.")
                self.transport.write(bare_response(busy))
                self.transport.close()
                return
            self._expect_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._head_done()
            self._unread_done()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return
            self._untold_bytes += len(data)
            super().data_received(data)
            if self._untold_bytes > settings.header_bytes_max and not self.transport.is_closing():
                self._head_too_large = True
                self.send_400_response("")

        def send_400_response(self, msg: str) -> None:
            if self._head_too_large:
                error = QnetError(
                    Code.TOO_LARGE, f"the limit of a head is {settings.header_bytes_max} bytes"
                )
            else:
                error = QnetError(Code.MALFORMED, "this is not HTTP/1.1, or not whole")
            cycle = cast("RequestResponseCycle | None", self.cycle)
            # Within an answer there is no place for another one.
            if cycle is None or cycle.response_complete or not cycle.response_started:
                self.transport.write(bare_response(error))
            self.transport.close()

        def on_message_begin(self) -> None:
            self._untold_bytes = 0
            self._message_complete = False
            super().on_message_begin()
            if self._head_timer is None:
                self._expect_head()

        def on_url(self, url: bytes) -> None:
            self._count_head(len(url))
            super().on_url(url)

        def on_header(self, name: bytes, value: bytes) -> None:
            self._untold_bytes = 0
            self._count_head(len(name) + len(value))
            super().on_header(name, value)

        def on_headers_complete(self) -> None:
            self._untold_bytes = 0
            self._head_done()
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._untold_bytes = 0
            super().on_body(body)
            if self._unread_timer is not None:
                self._unread_bytes += len(body)
                if self._unread_bytes > _UNREAD_BYTES_MAX:
                    self.transport.close()

        def on_message_complete(self) -> None:
            self._untold_bytes = 0
            self._message_complete = True
            self._unread_done()
            super().on_message_complete()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.cycle.response_complete and not self._message_complete:
                self._unread_bytes = 0
                self._unread_timer = self.loop.call_later(
                    settings.body_timeout_ms / 1_000, self.transport.close
                )

        def _expect_head(self) -> None:
            self._head_bytes = 0
            self._head_timer = self.loop.call_later(
                settings.header_timeout_ms / 1_000, self.transport.close
            )

        def _count_head(self, size_bytes: int) -> None:
            self._head_bytes += size_bytes
            if self._head_bytes > settings.header_bytes_max:
                self._head_too_large = True
                # The parser refuses what a callback raises for.
                raise ValueError("the head of the request is too large")

        def _head_done(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

        def _unread_done(self) -> None:
            if self._unread_timer is not None:
                self._unread_timer.cancel()
                self._unread_timer = None

    return GuardedHttp


class GuardedSocket(WebSocketsSansIOProtocol):
    """A WebSocket that neither queues pongs nor gathers empty fragments without end."""

    _pong = b""

    def handle_ping(self) -> None:
        # One answer stands for all pings before it (RFC 6455, section 5.5.3): nothing is to queue
        # for a peer that sends and does not read.
        output = b"".join(self.conn.data_to_send())
        if self.writable.is_set():
            self.transport.write(output)
        else:
            self._pong = output

    def resume_writing(self) -> None:
        super().resume_writing()
        output, self._pong = self._pong, b""
        if output and not self.transport.is_closing():
            self.transport.write(output)

    def handle_cont(self, event: Frame) -> None:
        # The library bounds the sum of their sizes only.
        if len(self.frames) < REQUEST_SIZE_BYTES_MAX:
            super().handle_cont(event)
        elif not self.close_sent:
            self.frames = []
            self.conn.fail(CloseCode.MESSAGE_TOO_BIG, "too many fragments")
            self.handle_parser_exception()


def guarded_protocols(settings: Settings) -> dict[str, Any]:
    """The arguments of `uvicorn.Config` that name the protocols of a gateway."""
    return {
        "http": guarded_http(settings),
        "ws": GuardedSocket,
        "ws_max_size": REQUEST_SIZE_BYTES_MAX,
        "ws_per_message_deflate": False,
    }
