"""A MessagePack writer that can depart from the canonical form at one place, and says where.

It is written apart from the package, from the MessagePack specification.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import msgpack


def tree_of(data: bytes) -> Any:
    """The bytes as nested lists of integers, bytes, text, booleans and None."""
    return msgpack.unpackb(data, raw=False, strict_map_key=False, use_list=True)


def canonical(value: Any) -> bytes:
    """The shortest encoding of a tree."""
    encoded: bytes = msgpack.packb(value, use_bin_type=True)
    return encoded


def departures(value: Any) -> Iterator[tuple[str, bytes]]:
    """(what was done, bytes) for each way to depart from the canonical form at one place."""
    yield from _departures(value)
    whole = canonical(value)
    for name, tail in (("nil", b"\xc0"), ("zero", b"\0"), ("the value again", whole)):
        yield f"trailing {name}", whole + tail
    yield "the last byte cut off", whole[:-1]
    yield "nothing", b""


def _departures(value: Any) -> Iterator[tuple[str, bytes]]:
    if isinstance(value, bool):
        yield "a number for a boolean", bytes((value,))
        yield "nil for a boolean", b"\xc0"
    elif isinstance(value, int):
        yield from _integers(value)
    elif isinstance(value, bytes):
        yield from _binaries(value)
    elif isinstance(value, str):
        yield from _texts(value)
    elif value is None:
        yield "false for nil", b"\xc2"
    else:
        yield from _arrays(value)


def _integers(value: int) -> Iterator[tuple[str, bytes]]:
    shortest = canonical(value)
    for form, first, maximum in (
        (">BB", 0xCC, 2**8 - 1),
        (">BH", 0xCD, 2**16 - 1),
        (">BI", 0xCE, 2**32 - 1),
        (">BQ", 0xCF, 2**64 - 1),
        (">Bb", 0xD0, 2**7 - 1),
        (">Bh", 0xD1, 2**15 - 1),
        (">Bi", 0xD2, 2**31 - 1),
        (">Bq", 0xD3, 2**63 - 1),
    ):
        if value <= maximum and (encoded := struct.pack(form, first, value)) != shortest:
            yield f"{value} as {first:#x}", encoded
    yield f"{value} as float64", struct.pack(">Bd", 0xCB, value)
    yield f"{value} as float32", struct.pack(">Bf", 0xCA, min(value, 2**63))
    yield f"{value} as text", canonical(str(value))
    yield f"{value} as nil", b"\xc0"
    yield f"{value} in an array", canonical([value])
    yield "a number below zero", canonical(-1)
    if value in (0, 1):
        yield f"{value} as a boolean", canonical(bool(value))


def _binaries(value: bytes) -> Iterator[tuple[str, bytes]]:
    size = len(value)
    if size < 2**8:
        yield "bin 16 for bin 8", struct.pack(">BH", 0xC5, size) + value
    if size < 2**16:
        yield "bin 32 for bin 16", struct.pack(">BI", 0xC6, size) + value
    yield "text for binary", struct.pack(">BI", 0xDB, size) + value
    if size < 32:
        yield "fixstr for binary", bytes((0xA0 | size,)) + value
    yield "an array for binary", canonical(list(value))
    yield "an extension for binary", struct.pack(">BIb", 0xC9, size, 1) + value
    yield "nil for binary", b"\xc0"


def _texts(value: str) -> Iterator[tuple[str, bytes]]:
    data = value.encode()
    if len(data) < 32:
        yield "str 8 for fixstr", struct.pack(">BB", 0xD9, len(data)) + data
    yield "str 32", struct.pack(">BI", 0xDB, len(data)) + data
    yield "binary for text", canonical(data)
    yield "text that is not UTF-8", b"\xa2\xc3\x28"


def _arrays(items: list[Any]) -> Iterator[tuple[str, bytes]]:
    encoded = [canonical(item) for item in items]
    size, inner = len(items), b"".join(encoded)
    if size < 16:
        yield "array 16 for fixarray", struct.pack(">BH", 0xDC, size) + inner
    yield "array 32", struct.pack(">BI", 0xDD, size) + inner
    yield "a map of positions", canonical(dict(enumerate(items)))
    if size < 16:
        yield "an array one shorter than it says", bytes((0x90 | min(size + 1, 15),)) + inner
    yield "a giant array", b"\xdd\xff\xff\xff\xff" + inner
    yield "a giant map", b"\xdf\xff\xff\xff\xff" + inner
    yield "a giant binary", b"\xc6\xff\xff\xff\xff" + inner
    yield "nil for an array", b"\xc0\xc0" if size == 0 else b"\xc0"
    head = canonical([None] * size)[: -size or None]
    for place, item in enumerate(items):
        before, after = b"".join(encoded[:place]), b"".join(encoded[place + 1 :])
        for what, changed in _departures(item):
            yield f"[{place}] {what}", head + before + changed + after


def structures(value: Any) -> Iterator[tuple[str, bytes]]:
    """(what was done, bytes) for each array of a fixed number of fields with one less or more.

    Call it only where every array of the tree is a struct, not a sequence of any length.
    """
    for path, items in _all_arrays(value, ()):
        for what, changed in (
            ("a field missing", items[:-1]),
            ("a field more", [*items, 0]),
            ("nil more", [*items, None]),
        ):
            yield f"{list(path)} {what}", canonical(_replaced(value, path, changed))


def _all_arrays(value: Any, path: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], list[Any]]]:
    if isinstance(value, list):
        yield path, value
        for place, item in enumerate(value):
            yield from _all_arrays(item, (*path, place))


def _replaced(value: Any, path: tuple[int, ...], new: Any) -> Any:
    if not path:
        return new
    copy = list(value)
    copy[path[0]] = _replaced(copy[path[0]], path[1:], new)
    return copy
