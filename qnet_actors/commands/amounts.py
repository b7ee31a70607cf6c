"""Amounts as people write them: QNET with up to nine decimals, or whole units."""

from __future__ import annotations

import re
from typing import Final

from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.limits import U64_MAX, UNITS_PER_QNET

_DECIMALS: Final = 9
_AMOUNT: Final = re.compile(r"([0-9]{1,20})(?:\.([0-9]{1,9}))?( ?units?)?")


def parse_amount(text: str) -> int:
    """The units in "1.5" (QNET) or "1500000000units"; raises `QnetError(INVALID_PARAMETER)`."""
    match = _AMOUNT.fullmatch(text.strip())
    if match is None or (match[3] and match[2]):
        raise QnetError(
            Code.INVALID_PARAMETER,
            f"{text!r} is not an amount: write QNET with up to {_DECIMALS} decimals, or 5units",
        )
    if match[3]:
        units = int(match[1])
    else:
        units = int(match[1]) * UNITS_PER_QNET + int((match[2] or "").ljust(_DECIMALS, "0"))
    if units > U64_MAX:
        raise QnetError(Code.INVALID_PARAMETER, f"{text} is more than there can be")
    return units


def format_amount(units: int) -> str:
    """Units as QNET, without needless zeros."""
    whole, rest = divmod(units, UNITS_PER_QNET)
    decimals = f".{rest:0{_DECIMALS}}".rstrip("0") if rest else ""
    return f"{whole}{decimals} QNET"
