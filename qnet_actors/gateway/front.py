"""What stands before every route: limits a client, counts, and answers for faults."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qnet_actors.gateway.admission import rate_headers
from qnet_actors.gateway.problems import Refused, problem_response
from qnet_actors.gateway.service import Gateway
from qnet_actors.wire.codes import Code, QnetError

logger: Final = logging.getLogger(__name__)
UNLIMITED_PATHS: Final = frozenset({"/healthz", "/readyz", "/metrics"})
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE"})
CLOSE: Final = {"Connection": "close"}


class Front:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._app = app
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":
            # As GET, whose body the server then leaves out (RFC 9110, section 9.3.2).
            scope = {**scope, "method": "GET"}
        started_s = time.perf_counter()
        status = 0
        headers: dict[str, str] = {}

        async def send_counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if headers:
                    _add_limits(MutableHeaders(scope=message), headers)
            await send(message)

        try:
            headers = self._limit(scope)
            await self._app(scope, receive, send_counted)
        except QnetError as error:
            await problem_response(error)(scope, receive, send_counted)
        except ClientDisconnect:
            status = 499
        except Exception:
            logger.exception("a request to %s failed", _route(scope))
            if status == 0:
                await problem_response(QnetError(Code.INTERNAL))(scope, receive, send_counted)
        finally:
            route = _route(scope)
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._gateway.metrics.answered(method, route, status, time.perf_counter() - started_s)

    def _limit(self, scope: Scope) -> dict[str, str]:
        """The headers that tell a client what is left; raises `Refused(RATE_LIMITED)`."""
        if scope["path"] in UNLIMITED_PATHS:
            return {}
        client = self._gateway.limiter.client(client_host(scope))
        if client is None:
            return {}
        buckets = self._gateway.limiter.requests
        verdict = buckets.take(client, 1, time.monotonic())
        headers = rate_headers("client", buckets.rate, verdict)
        if not verdict.allowed:
            raise Refused(
                Code.RATE_LIMITED, headers=headers, retry_after_s=max(1, round(verdict.wait_s))
            )
        return headers


def _add_limits(headers: MutableHeaders, limits: dict[str, str]) -> None:
    """Each of the two headers is a list: the client's limit, then those that a route added."""
    for name, value in limits.items():
        present = headers.get(name)
        if present is None:
            headers[name] = value
        elif not present.startswith(value.partition(";")[0]):
            headers[name] = f"{value}, {present}"


def client_host(scope: Scope) -> str | None:
    """The address that the connection (or a trusted proxy) names."""
    client = scope.get("client")
    return client[0] if client else None


def _route(scope: Scope) -> str:
    route = scope.get("route")
    return getattr(route, "path", "unmatched")


class BodyReader:
    """Reads bodies within a size and a time, and all of them within a sum."""

    def __init__(self, gateway: Gateway) -> None:
        self._settings = gateway.settings
        self._held_bytes = 0

    async def read(self, request: Request, size_bytes_max: int) -> bytes:
        """The whole body.

        Raises `Refused`: TOO_LARGE, REQUEST_TIMEOUT, BUSY where too many bodies are being read.
        """
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > size_bytes_max:
            raise _too_large(size_bytes_max)
        chunks: list[bytes] = []
        size_bytes = 0
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        deadline_s = begun_s + self._settings.first_byte_timeout_ms / 1_000
        try:
            while True:
                try:
                    async with asyncio.timeout_at(deadline_s):
                        message = await request.receive()
                except TimeoutError:
                    raise Refused(Code.REQUEST_TIMEOUT, headers=CLOSE) from None
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                chunk = message.get("body", b"")
                if chunk:
                    deadline_s = begun_s + self._settings.body_timeout_ms / 1_000
                    size_bytes += len(chunk)
                    self._held_bytes += len(chunk)
                    chunks.append(chunk)
                if size_bytes > size_bytes_max:
                    raise _too_large(size_bytes_max)
                if self._held_bytes > self._settings.bodies_size_bytes_max:
                    raise Refused(Code.BUSY, headers=CLOSE)
                if not message.get("more_body", False):
                    return b"".join(chunks)
        finally:
            self._held_bytes -= size_bytes


def _too_large(size_bytes_max: int) -> Refused:
    return Refused(Code.TOO_LARGE, f"the limit is {size_bytes_max} bytes", headers=CLOSE)
