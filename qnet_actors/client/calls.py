"""Requests and their answers without I/O: what both clients have in common."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import urlsplit

import msgspec

from qnet_actors.client.models import Message
from qnet_actors.wire.codes import Code, QnetError

T = TypeVar("T")
API: Final = "/api/v1"
ANSWER_SIZE_BYTES_MAX: Final = 64 * 1024 * 1024
PROBLEM_TYPE: Final = "application/problem+json"
# Refusals that say the request was not taken: it may be sent again as it is.
_REPEATABLE: Final = frozenset({Code.BUSY, Code.RATE_LIMITED, Code.NOT_READY})
_RETRY_AFTER_S_MAX: Final = 30.0
# A gateway is not trusted: it may nest without end, or send what is no text.
UNDECODABLE: Final = (msgspec.DecodeError, UnicodeError, RecursionError)


class Call(NamedTuple):
    """One HTTP request."""

    method: str
    path: str
    params: Mapping[str, str] = {}
    content: bytes | None = None
    content_type: str = "application/msgpack"
    wait_s: float = 0.0
    """How much longer than usual the gateway may take."""

    @property
    def headers(self) -> dict[str, str]:
        return {"content-type": self.content_type} if self.content is not None else {}


class Reply(NamedTuple):
    """One HTTP answer."""

    status: int
    content_type: str
    retry_after: str | None
    body: bytes


class Pause(NamedTuple):
    """The flow wants to go on after so many seconds."""

    seconds: float


Flow = Generator["Call | Pause", "Reply | None", T]
"""Yields calls, is sent their replies, and returns the result; the clients do the I/O."""


def exchange(
    call: Call,
    decode: Callable[[bytes], T],
    retries: int,
    taken: Callable[[], Flow[T]] | None = None,
) -> Flow[T]:
    """One call, repeated where the gateway says that it was too busy to take it.

    A gateway that lost sight of its validators cannot know whether one of them took a submission.
    Where its repetition is a duplicate, one did: then the result is that of `taken`.  Raises
    `QnetError` with the gateway's code.
    """
    for attempt in range(retries + 1):
        reply = yield call
        assert reply is not None
        if reply.status < 300:
            try:
                return decode(reply.body)
            except UNDECODABLE as error:
                raise _undecodable(error) from None
        refusal = problem_error(reply)
        if attempt and refusal.code == Code.DUPLICATE and taken is not None:
            return (yield from taken())
        if refusal.code not in _REPEATABLE or attempt == retries:
            raise refusal
        yield Pause(retry_after_s(reply))
    raise AssertionError("the last attempt returns or raises")


def decoder(type_: type[T]) -> Callable[[bytes], T]:
    """Decodes JSON of the gateway: decimal strings become integers.

    Raises one of `UNDECODABLE`.
    """
    return msgspec.json.Decoder(type_, strict=False).decode


_message: Final = decoder(Message)


def read_message(text: str | bytes) -> Message:
    """What a gateway's WebSocket brought; raises `QnetError(MALFORMED)`."""
    try:
        return _message(text.encode() if isinstance(text, str) else text)
    except UNDECODABLE as error:
        raise _undecodable(error) from None


def _undecodable(error: Exception) -> QnetError:
    return QnetError(Code.MALFORMED, f"the gateway's answer does not decode: {str(error)[:200]}")


def problem_error(reply: Reply) -> QnetError:
    """The refusal in a reply."""
    if reply.content_type.partition(";")[0].strip() == PROBLEM_TYPE:
        try:
            document: Any = msgspec.json.decode(reply.body)
            code = Code[str(document["code"]).upper()]
            return QnetError(code, str(document.get("detail", ""))[:1_000])
        except (*UNDECODABLE, KeyError, TypeError, AttributeError):
            return QnetError(Code.INTERNAL, f"the gateway answered with HTTP {reply.status}")
    return QnetError(
        Code.NODE_UNREACHABLE,
        f"what answers is not a gateway: HTTP {reply.status}; does the URL name one?",
    )


def retry_after_s(reply: Reply) -> float:
    """How long the gateway asks to be left alone, within reason."""
    text = reply.retry_after or ""
    return min(float(text), _RETRY_AFTER_S_MAX) if text.isdecimal() else 1.0


def check_url(url: str) -> str:
    """The base URL without a slash at its end; raises `QnetError(CONFIGURATION_INVALID)`."""
    try:
        parts = urlsplit(url)
        # Reading the port is what checks it.
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise QnetError(Code.CONFIGURATION_INVALID, f"{url!r} is not an http:// or https:// URL")
    return url.rstrip("/")


def is_loopback(url: str) -> bool:
    """Whether a URL names this machine; no proxy stands between then."""
    return urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")


def socket_url(url: str) -> str:
    """The WebSocket of the gateway at `url`."""
    return f"ws{url.removeprefix('http')}{API}/ws"


def unreachable(url: str, error: Exception) -> QnetError:
    """What a failed connection is reported as."""
    reason = str(error) or type(error).__name__
    return QnetError(
        Code.NODE_UNREACHABLE, f"no gateway answers at {url} ({reason}); is the network running?"
    )
