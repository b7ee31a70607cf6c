"""WS /api/v1/ws: subscriptions to blocks and to single transactions."""

from __future__ import annotations

import asyncio
import time
from typing import Final, Literal

import msgspec
from fastapi import APIRouter
from starlette.websockets import WebSocket, WebSocketDisconnect

from qnet_actors.gateway.front import client_host
from qnet_actors.gateway.hub import Subscriber, transaction_message
from qnet_actors.gateway.problems import problem, problem_response
from qnet_actors.gateway.routes import API, parse_digest
from qnet_actors.gateway.service import Gateway
from qnet_actors.wire.codes import Code, QnetError

REQUEST_SIZE_BYTES_MAX: Final = 4 * 1024
_TRY_AGAIN_LATER: Final = 1013
_encode: Final = msgspec.json.Encoder().encode


class Subscribe(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="subscribe"
):
    """`to` blocks (with ids and codes of their transactions if wanted) or one transaction."""

    to: Literal["blocks", "transaction"]
    id: str = ""
    transactions: bool = False


class Unsubscribe(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="unsubscribe"
):
    to: Literal["blocks", "transaction"]
    id: str = ""


_decoder: Final = msgspec.json.Decoder(Subscribe | Unsubscribe)


def read_request(text: str) -> Subscribe | Unsubscribe:
    """What a subscriber asks for; raises `QnetError` with TOO_LARGE or MALFORMED."""
    if len(text) > REQUEST_SIZE_BYTES_MAX:
        raise QnetError(Code.TOO_LARGE, f"the limit is {REQUEST_SIZE_BYTES_MAX} bytes")
    try:
        request: Subscribe | Unsubscribe = _decoder.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise QnetError(Code.MALFORMED, str(error)[:200]) from None
    return request


class Sockets:
    """The WebSocket connections of a gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._count = 0

    async def serve(self, websocket: WebSocket) -> None:
        """One connection from handshake to close."""
        settings = self._gateway.settings
        try:
            self._admit(websocket)
        except QnetError as error:
            await websocket.send_denial_response(problem_response(error))
            return
        self._changed(+1)
        subscriber = Subscriber(
            settings.socket_queue_max,
            settings.socket_queue_bytes_max,
            settings.socket_subscriptions_max,
        )
        self._gateway.hub.subscribers.add(subscriber)
        try:
            await websocket.accept()
            reading = asyncio.create_task(self._read(websocket, subscriber))
            writing = asyncio.create_task(self._write(websocket, subscriber))
            tasks = (reading, writing)
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            self._gateway.hub.subscribers.discard(subscriber)
            self._changed(-1)

    def _admit(self, websocket: WebSocket) -> None:
        if self._too_soon_s(websocket):
            raise QnetError(Code.RATE_LIMITED)
        if self._count >= self._gateway.settings.sockets_max:
            raise QnetError(Code.BUSY, "too many subscribers; try again later")

    def _too_soon_s(self, websocket: WebSocket) -> float:
        """How long the client has to wait before its next request; 0 where this one counts."""
        limiter = self._gateway.limiter
        client = limiter.client(client_host(websocket.scope))
        if client is None:
            return 0.0
        return limiter.requests.take(client, 1, time.monotonic()).wait_s

    async def _read(self, websocket: WebSocket, subscriber: Subscriber) -> None:
        while True:
            try:
                text = await websocket.receive_text()
            except (WebSocketDisconnect, KeyError):
                return
            # Nothing more is read from the connection meanwhile, so its sender has to wait, too.
            while wait_s := self._too_soon_s(websocket):  # noqa: ASYNC110 - a bucket has no event
                await asyncio.sleep(wait_s)
            try:
                await self._take(text, subscriber)
            except QnetError as error:
                subscriber.put(_encode({"type": "error", "problem": problem(error)}))

    async def _take(self, text: str, subscriber: Subscriber) -> None:
        request = read_request(text)
        wanted = isinstance(request, Subscribe)
        confirmation = {"type": "subscribed" if wanted else "unsubscribed", "to": request.to}
        if request.to == "blocks":
            subscriber.blocks = wanted
            subscriber.block_transactions = isinstance(request, Subscribe) and request.transactions
            subscriber.put(_encode(confirmation))
            return
        id_ = parse_digest(request.id)
        confirmation["id"] = request.id
        if not wanted:
            subscriber.transactions.discard(id_)
            subscriber.put(_encode(confirmation))
            return
        subscriber.follow(id_)
        subscriber.put(_encode(confirmation))
        await self._tell(id_, subscriber)

    async def _tell(self, id_: bytes, subscriber: Subscriber) -> None:
        """Says where a transaction stands, so that nothing before the subscription is missed."""
        try:
            tracked = await self._gateway.follow(id_)
        except QnetError as error:
            # It may be submitted yet.
            if error.code == Code.NOT_FOUND:
                return
            subscriber.transactions.discard(id_)
            raise QnetError(error.code, f"{id_.hex()}: {error.detail}") from None
        subscriber.put(_encode(transaction_message(id_, tracked)))
        if tracked.ended:
            subscriber.transactions.discard(id_)

    async def _write(self, websocket: WebSocket, subscriber: Subscriber) -> None:
        timeout_s = self._gateway.settings.socket_send_timeout_ms / 1_000
        try:
            while (message := await subscriber.get()) is not None:
                async with asyncio.timeout(timeout_s):
                    await websocket.send_text(message.decode())
            farewell = {"type": "missed", "messages": subscriber.missed, "dropped": True}
            self._gateway.metrics.sockets_dropped.inc()
            async with asyncio.timeout(timeout_s):
                await websocket.send_text(_encode(farewell).decode())
                await websocket.close(_TRY_AGAIN_LATER, "reads too slowly")
        except TimeoutError:
            self._gateway.metrics.sockets_dropped.inc()
        except (WebSocketDisconnect, RuntimeError):
            # The client has gone; the reading side sees the same.
            return

    def _changed(self, by: int) -> None:
        self._count += by
        self._gateway.metrics.sockets.set(self._count)


def create_socket_router(gateway: Gateway) -> APIRouter:
    """The WebSocket route of `gateway`."""
    router = APIRouter()
    sockets = Sockets(gateway)

    @router.websocket(f"{API}/ws")
    async def subscribe(websocket: WebSocket) -> None:
        await sockets.serve(websocket)

    return router
