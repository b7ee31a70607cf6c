"""Reads of the block log from another process of the validator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from qnet_actors.ledger import BlockQueries, Place
from qnet_actors.wire.blocks import Certificate
from qnet_actors.wire.codec import encode


class LogServer:
    """Answers them, as frames, where the log is."""

    def __init__(self, log: BlockQueries) -> None:
        self._log: Final = log

    def handle(self, frame: bytes) -> bytes:
        """A `_Call` in, its result out; raises KeyError for a read that there is not."""
        call = _CALL.decode(frame)
        if call.method not in _RESULTS:
            raise KeyError(call.method)
        return encode(getattr(self._log, call.method)(*call.arguments))


class RemoteLog:
    """The other end: a `BlockQueries` over calls that carry frames."""

    def __init__(self, call: Callable[[bytes], bytes]) -> None:
        self._call = call

    def first_height(self) -> int:
        height: int = self._ask("first_height")
        return height

    def first_header_height(self) -> int:
        height: int = self._ask("first_header_height")
        return height

    def last_height(self) -> int:
        height: int = self._ask("last_height")
        return height

    def records(self, first_height: int, count_max: int, size_bytes_max: int) -> list[bytes]:
        records: list[bytes] = self._ask("records", first_height, count_max, size_bytes_max)
        return records

    def newest_certificate(self) -> Certificate | None:
        certificate: Certificate | None = self._ask("newest_certificate")
        return certificate

    def certificate_from(self, height: int) -> Certificate | None:
        certificate: Certificate | None = self._ask("certificate_from", height)
        return certificate

    def headers(self, first_height: int, count_max: int) -> list[bytes]:
        headers: list[bytes] = self._ask("headers", first_height, count_max)
        return headers

    def height_of(self, block_hash: bytes) -> int | None:
        height: int | None = self._ask("height_of", block_hash)
        return height

    def find_transaction(self, id_: bytes) -> Place | None:
        place: Place | None = self._ask("find_transaction", id_)
        return place

    def _ask(self, method: str, *arguments: int | bytes) -> Any:
        return _RESULTS[method].decode(self._call(encode(_Call(method, arguments))))


class _Call(msgspec.Struct, frozen=True):
    method: str
    arguments: tuple[int | bytes, ...]


_CALL: Final[msgspec.msgpack.Decoder[_Call]] = msgspec.msgpack.Decoder(_Call)
_RESULTS: Final[dict[str, msgspec.msgpack.Decoder[Any]]] = {
    "first_height": msgspec.msgpack.Decoder(int),
    "first_header_height": msgspec.msgpack.Decoder(int),
    "last_height": msgspec.msgpack.Decoder(int),
    "records": msgspec.msgpack.Decoder(list[bytes]),
    "newest_certificate": msgspec.msgpack.Decoder(Certificate | None),
    "certificate_from": msgspec.msgpack.Decoder(Certificate | None),
    "headers": msgspec.msgpack.Decoder(list[bytes]),
    "height_of": msgspec.msgpack.Decoder(int | None),
    "find_transaction": msgspec.msgpack.Decoder(Place | None),
}
