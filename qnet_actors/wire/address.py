"""Addresses in text: bech32m (BIP 350) with `qnet`, or `tqnet` on development networks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from qnet_actors.wire.codes import Code, QnetError

PREFIX: Final = "qnet"
PREFIX_DEVELOPMENT: Final = "tqnet"
_CHARSET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_BECH32M: Final = 0x2BC830A3
_GENERATOR: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CHECKSUM_CHARACTERS: Final = 6


def _polymod(values: Iterable[int]) -> int:
    checksum = 1
    for value in values:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for i, generator in enumerate(_GENERATOR):
            if top >> i & 1:
                checksum ^= generator
    return checksum


def _expand(prefix: str) -> list[int]:
    return [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]


def _regroup(values: Iterable[int], from_bits: int, to_bits: int, pad: bool) -> list[int]:
    """Groups of `from_bits` bits as groups of `to_bits`; raises ValueError on bad padding."""
    accumulator = bits = 0
    out = []
    for value in values:
        accumulator = accumulator << from_bits | value
        bits += from_bits
        while bits >= to_bits:
            bits -= to_bits
            out.append(accumulator >> bits & ((1 << to_bits) - 1))
        accumulator &= (1 << bits) - 1
    if pad and bits:
        out.append(accumulator << (to_bits - bits) & ((1 << to_bits) - 1))
    elif not pad and (bits >= from_bits or accumulator):
        raise ValueError("non-zero padding")
    return out


def encode_address(address: bytes, *, development: bool) -> str:
    """The text of a 32-byte address."""
    if len(address) != 32:
        raise QnetError(Code.BAD_ADDRESS, f"an address of {len(address)} bytes")
    prefix = PREFIX_DEVELOPMENT if development else PREFIX
    data = _regroup(address, 8, 5, pad=True)
    checksum = _polymod([*_expand(prefix), *data, *([0] * _CHECKSUM_CHARACTERS)]) ^ _BECH32M
    data += [checksum >> 5 * (5 - i) & 31 for i in range(_CHECKSUM_CHARACTERS)]
    return prefix + "1" + "".join(_CHARSET[value] for value in data)


def decode_address(text: str, *, development: bool) -> bytes:
    """The 32 bytes of an address in text; all lower or all upper case.

    Raises `QnetError(BAD_ADDRESS)`, naming the other kind of network where it is one of those.
    """
    if len(text) > 90 or (text != text.lower() and text != text.upper()):
        raise QnetError(Code.BAD_ADDRESS, "too long, or of mixed case")
    prefix, separator, encoded = text.lower().rpartition("1")
    expected = PREFIX_DEVELOPMENT if development else PREFIX
    if not separator or any(character not in _CHARSET for character in encoded):
        raise QnetError(Code.BAD_ADDRESS, "not an address")
    if prefix != expected:
        raise QnetError(Code.BAD_ADDRESS, f"addresses of this network begin with {expected}1")
    values = [_CHARSET.index(character) for character in encoded]
    if _polymod([*_expand(prefix), *values]) != _BECH32M:
        raise QnetError(Code.BAD_ADDRESS, "the checksum is wrong; was it mistyped?")
    try:
        address = bytes(_regroup(values[:-_CHECKSUM_CHARACTERS], 5, 8, pad=False))
    except ValueError:
        raise QnetError(Code.BAD_ADDRESS, "bad padding") from None
    if len(address) != 32:
        raise QnetError(Code.BAD_ADDRESS, f"an address of {len(address)} bytes")
    return address
