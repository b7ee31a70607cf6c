"""The seam between a gateway and the validators of its operator, and its frames."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import IntEnum
from typing import Protocol

from qnet_actors.gateway.events import POLL_CODEC, POLL_FRAME_CODEC, PollAnswer, PollFrame
from qnet_actors.gateway.queries import (
    ANSWER_CODEC,
    QUERY_CODEC,
    SUBMIT_ANSWER_CODEC,
    SUBMIT_CODEC,
    Answer,
    Fault,
    Query,
    SubmitAnswer,
    SubmitFrame,
)
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError

Result = tuple[int, bytes, str]
"""(code, id, detail) of one submitted transaction."""


class Call(IntEnum):
    """The methods of a `Backend`, as they travel."""

    SUBMIT = 1
    QUERY = 2
    POLL = 3


class Backend(Protocol):
    """One validator of the operator, in this process or behind a stream.

    Every method raises `QnetError`: NODE_UNREACHABLE where the validator does not answer, BUSY or
    NOT_READY where it is too loaded or not started, else what refused the request.
    """

    @property
    def index(self) -> int:
        """The validator's index in its committee."""

    async def submit(self, transactions: list[bytes]) -> list[Result]:
        """Offers up to 1,000 transactions to the pool; a result for each, in order."""

    async def query(self, request: Query) -> Answer:
        """The answer of the same name."""

    async def poll(self, after: int, timeout_ms: int) -> tuple[int, list[bytes]]:
        """Encoded events after a cursor: see `events.EventLog`."""


class BackendFrames:
    """A backend behind frames: what a validator offers its gateways.

    A refusal travels as a `Fault`.  Any other exception is the caller's to see: it is a fault of
    the node.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def answer(self, call: int, frame: bytes) -> bytes:
        """What the method that `call` names answers to a frame."""
        match call:
            case Call.SUBMIT:
                return await self.submit(frame)
            case Call.QUERY:
                return await self.query(frame)
            case Call.POLL:
                return await self.poll(frame)
        return _fault(QnetError(Code.MALFORMED, f"no call has the number {call}"))

    async def submit(self, frame: bytes) -> bytes:
        """A `SubmitFrame` in, a `SubmitAnswer` or `Fault` out."""
        try:
            request = SUBMIT_CODEC.decode(frame)
            results = await self._backend.submit(list(request.transactions))
        except QnetError as error:
            return _fault(error)
        return encode(SubmitAnswer(tuple(results)))

    async def query(self, frame: bytes) -> bytes:
        """A `Query` in, its `Answer` or `Fault` out."""
        try:
            return encode(await self._backend.query(QUERY_CODEC.decode(frame)))
        except QnetError as error:
            return _fault(error)

    async def poll(self, frame: bytes) -> bytes:
        """A `PollFrame` in, a `PollAnswer` or `Fault` out."""
        try:
            request = POLL_FRAME_CODEC.decode(frame)
            cursor, events = await self._backend.poll(request.after, request.timeout_ms)
        except QnetError as error:
            return _fault(error)
        return encode(PollAnswer(cursor, tuple(events)))


class FramedBackend:
    """The other end: a `Backend` over something that carries a frame and brings its answer."""

    def __init__(self, index: int, call: Callable[[Call, bytes], Awaitable[bytes]]) -> None:
        self.index = index
        self._call = call

    async def submit(self, transactions: list[bytes]) -> list[Result]:
        frame = encode(SubmitFrame(tuple(transactions)))
        answer = SUBMIT_ANSWER_CODEC.decode(await self._call(Call.SUBMIT, frame))
        if isinstance(answer, Fault):
            raise _error(answer)
        if len(answer.results) != len(transactions):
            raise QnetError(Code.INTERNAL, "the validator did not answer for each transaction")
        return list(answer.results)

    async def query(self, request: Query) -> Answer:
        answer = ANSWER_CODEC.decode(await self._call(Call.QUERY, encode(request)))
        if isinstance(answer, Fault):
            raise _error(answer)
        return answer

    async def poll(self, after: int, timeout_ms: int) -> tuple[int, list[bytes]]:
        frame = encode(PollFrame(after, timeout_ms))
        answer = POLL_CODEC.decode(await self._call(Call.POLL, frame))
        if isinstance(answer, Fault):
            raise _error(answer)
        return answer.cursor, list(answer.events)


def _fault(error: QnetError) -> bytes:
    return encode(Fault(error.code, error.detail[:1_000]))


def _error(fault: Fault) -> QnetError:
    try:
        return QnetError(Code(fault.code), fault.detail)
    except ValueError:
        return QnetError(Code.INTERNAL, f"the validator answered with code {fault.code}")
