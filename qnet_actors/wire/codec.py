"""Canonical MessagePack: arrays only, no maps, no floats, shortest integers, checked both ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, Generic, TypeVar

import msgspec

from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.limits import U64_MAX

T = TypeVar("T")

Digest = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Address = Digest
Unsigned = Annotated[int, msgspec.Meta(ge=0)]
"""A u64; MessagePack's own range bounds it above, and `encode` refuses what is over it."""
U8 = Annotated[int, msgspec.Meta(ge=0, le=2**8 - 1)]
U16 = Annotated[int, msgspec.Meta(ge=0, le=2**16 - 1)]
U32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]


# No wire type can refer back to itself, so the cycle collector need not walk pools full of them.
class Struct(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False):
    """Every wire type is one: an array of its fields in order, nothing more and nothing less."""


_encoder: Final = msgspec.msgpack.Encoder()


def encode(value: Any) -> bytes:
    """The canonical MessagePack of a wire type.

    Raises `QnetError(MALFORMED)` for an integer over u64.  The bounds of a field are checked when
    it is decoded, not here.
    """
    try:
        return _encoder.encode(value)
    except OverflowError as error:
        raise QnetError(Code.MALFORMED, f"an integer is over {U64_MAX}") from error


class Codec(Generic[T]):
    """Decodes one wire type with a hard size limit, and refuses what is not canonical."""

    def __init__(
        self,
        type_: Any,
        size_bytes_max: int,
        explain: Callable[[bytes], QnetError | None] = lambda _: None,
    ) -> None:
        """`explain` may know a better reason than MALFORMED for bytes that do not decode."""
        self._explain = explain
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(type_)
        self.size_bytes_max = size_bytes_max

    def decode(self, data: bytes | bytearray | memoryview) -> T:
        """The value whose canonical encoding `data` is.

        Raises `QnetError` with TOO_LARGE, MALFORMED or NON_CANONICAL, or what `explain` finds.
        """
        if len(data) > self.size_bytes_max:
            raise QnetError(
                Code.TOO_LARGE, f"{len(data)} bytes, the limit is {self.size_bytes_max}"
            )
        try:
            value = self._decoder.decode(data)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            malformed = QnetError(Code.MALFORMED, str(error)[:200])
            raise (self._explain(bytes(data)) or malformed) from None
        # Comparing with a memoryview would go byte by byte.
        canonical = _encoder.encode(value)
        if canonical != (bytes(data) if isinstance(data, memoryview) else data):
            raise QnetError(Code.NON_CANONICAL)
        return value
