"""Calls of a gateway to a validator of the same operator: one stream, many calls under way.

A Ray call costs one to three milliseconds of CPU over both ends, whatever it carries, and the
events of four validators alone were a hundred a second.  So Ray places the actors and says where
a validator listens and what opens it; what flows goes over a stream.

Request: u64 number, u8 `Call`, frame.  Answer: u64 number, frame.  Big-endian, in the frames of
`links`.  The first frame of a connection is the secret.
"""

from __future__ import annotations

import asyncio
import hmac
import itertools
import logging
import secrets
import struct
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from qnet_actors.gateway.backend import Backend, BackendFrames, Call
from qnet_actors.gateway.queries import Fault
from qnet_actors.links import Ended, Listener, Payload, Stream, TcpTransport
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.limits import SUBMISSION_SIZE_BYTES_MAX

SECRET_BYTES: Final = 32
REQUEST_SIZE_BYTES_MAX: Final = SUBMISSION_SIZE_BYTES_MAX + 128 * 1024
ANSWER_SIZE_BYTES_MAX: Final = 33 * 1024 * 1024
CONNECTIONS_MAX: Final = 64
STRANGERS_MAX: Final = 16
"""Connections that have not shown the secret yet."""
UNDER_WAY_MAX: Final = 1_024
"""Calls of one connection; while so many are answered, no more are read."""
OPEN_TIMEOUT_S: Final = 5.0
_REQUEST: Final = struct.Struct(">QB")
_ANSWER: Final = struct.Struct(">Q")
logger: Final = logging.getLogger(__name__)


class Door(msgspec.Struct, frozen=True):
    """Where a validator takes calls of its operator's gateways, and what opens it."""

    host: str
    port: int
    secret: bytes

    def __repr__(self) -> str:
        return f"Door({self.host}:{self.port})"


class CallServer:
    """A validator's end.  All methods belong to one event loop."""

    def __init__(self, backend: Backend) -> None:
        self._frames = BackendFrames(backend)
        self._secret = secrets.token_bytes(SECRET_BYTES)
        self._listener: Listener | None = None
        self._strangers: dict[Stream, None] = {}
        self._connections: dict[Stream, asyncio.Task[None]] = {}

    async def start(self, host: str) -> Door:
        """Listens on a free port.  Raises `QnetError(PORT_IN_USE)` where it cannot."""
        try:
            self._listener = await TcpTransport().listen(host, 0, self._accept)
        except OSError as error:
            raise QnetError(
                Code.PORT_IN_USE, f"cannot listen on {host} for gateways ({error.strerror})"
            ) from error
        return Door(*self._listener.address, self._secret)

    async def close(self) -> None:
        """Ends all connections; calls under way get no answer."""
        if self._listener is not None:
            await self._listener.close()
        tasks = list(self._connections.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, stream: Stream) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(stream))
        self._connections[stream] = task
        self._strangers[stream] = None
        if len(self._strangers) > STRANGERS_MAX:
            # The one that has been silent the longest: a gateway shows the secret at once.
            self._connections[next(iter(self._strangers))].cancel()

    async def _serve(self, stream: Stream) -> None:
        answers: set[asyncio.Task[None]] = set()
        try:
            if await self._known(stream):
                await self._read(stream, answers)
        except Ended:
            pass
        finally:
            for answer in answers:
                answer.cancel()
            self._strangers.pop(stream, None)
            del self._connections[stream]
            await stream.close()

    async def _known(self, stream: Stream) -> bool:
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                secret = await stream.read_frame(SECRET_BYTES)
        except TimeoutError:
            return False
        self._strangers.pop(stream, None)
        known = hmac.compare_digest(bytes(secret), self._secret)
        return known and len(self._connections) - len(self._strangers) <= CONNECTIONS_MAX

    async def _read(self, stream: Stream, answers: set[asyncio.Task[None]]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            frame = await stream.read_frame(REQUEST_SIZE_BYTES_MAX)
            if len(frame) < _REQUEST.size:
                return
            while len(answers) >= UNDER_WAY_MAX:
                await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
            task = loop.create_task(self._answer(stream, frame))
            answers.add(task)
            task.add_done_callback(answers.discard)

    async def _answer(self, stream: Stream, frame: Payload) -> None:
        number, call = _REQUEST.unpack_from(frame)
        try:
            answer = await self._frames.answer(call, bytes(frame[_REQUEST.size :]))
        except Exception:
            logger.exception("a call of a gateway failed")
            answer = encode(Fault(Code.INTERNAL, "the validator failed; see its log"))
        try:
            stream.write((_ANSWER.pack(number) + answer,))
            await stream.drain()
        except Ended:
            # Who asked is gone, and so is the connection.
            return


class CallClient:
    """A gateway's end: connects when first called, and anew after a connection is lost.

    `locate` says where the validator listens; it raises `QnetError(NODE_UNREACHABLE)` where
    nobody knows.  All methods belong to one event loop.
    """

    def __init__(self, locate: Callable[[], Awaitable[Door]]) -> None:
        self._locate = locate
        self._connection: _Connection | None = None
        self._connecting = asyncio.Lock()

    async def call(self, call: Call, frame: bytes) -> bytes:
        """The answer's frame.

        Raises `QnetError(NODE_UNREACHABLE)` where the validator cannot be reached, or its
        connection ends before it answers.
        """
        connection = self._connection
        if connection is None or connection.over:
            connection = await self._connected()
        return await connection.call(call, frame)

    async def close(self) -> None:
        """Drops the connection; calls under way raise."""
        if self._connection is not None:
            await self._connection.close()

    async def _connected(self) -> _Connection:
        async with self._connecting:
            if self._connection is None or self._connection.over:
                door = await self._locate()
                try:
                    stream = await TcpTransport().open(door.host, door.port)
                    stream.write((door.secret,))
                except (OSError, Ended):
                    raise _unreachable() from None
                self._connection = _Connection(stream)
            return self._connection


class _Connection:
    """Calls under way on one stream, by number."""

    def __init__(self, stream: Stream) -> None:
        self.over = False
        self._stream = stream
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._reader = asyncio.get_running_loop().create_task(self._read())

    async def call(self, call: Call, frame: bytes) -> bytes:
        number = next(self._numbers)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            await self._stream.drain()
            self._stream.write((_REQUEST.pack(number, call) + frame,))
            return await answer
        except Ended:
            raise _unreachable() from None
        finally:
            self._waiting.pop(number, None)

    async def close(self) -> None:
        self._reader.cancel()
        await asyncio.wait([self._reader])

    async def _read(self) -> None:
        try:
            while True:
                frame = await self._stream.read_frame(ANSWER_SIZE_BYTES_MAX)
                if len(frame) < _ANSWER.size:
                    return
                (number,) = _ANSWER.unpack_from(frame)
                # One that nobody waits for any more had its time-out.
                answer = self._waiting.get(number)
                if answer is not None and not answer.done():
                    answer.set_result(bytes(frame[_ANSWER.size :]))
        except Ended:
            return
        finally:
            self.over = True
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(_unreachable())
            await self._stream.close()


def _unreachable() -> QnetError:
    return QnetError(Code.NODE_UNREACHABLE, "the connection to the validator is lost")
