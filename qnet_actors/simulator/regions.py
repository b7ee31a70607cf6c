"""How long messages take between places of the world, one way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from qnet_actors.wire.codes import Code, QnetError

PLACES: Final = ("us-east", "us-west", "europe", "singapore", "tokyo", "sydney", "sao-paulo")

_WORLD_MS: Final = (
    (0, 32, 40, 108, 76, 99, 57),
    (32, 0, 68, 86, 54, 70, 87),
    (40, 68, 0, 80, 110, 138, 97),
    (108, 86, 80, 0, 35, 47, 162),
    (76, 54, 110, 35, 0, 52, 130),
    (99, 70, 138, 47, 52, 0, 156),
    (57, 87, 97, 162, 130, 156, 0),
)
"""By `PLACES`.  Assumed, not measured: of the size of half a round trip over public clouds."""

REGIONS: Final = ("world",)


def matrix_ms(name: str, validators: int) -> tuple[tuple[int, ...], ...] | None:
    """Delays by source and receiver, the validators dealt out over the places in turn.

    None for the empty name: all links are alike.  Raises `QnetError(INVALID_PARAMETER)`.
    """
    if not name:
        return None
    if name not in REGIONS:
        raise QnetError(Code.INVALID_PARAMETER, f"regions are {', '.join(REGIONS)}")
    places = [validator % len(PLACES) for validator in range(validators)]
    return tuple(tuple(_WORLD_MS[here][there] for there in places) for here in places)


def longest_ms(matrix: Sequence[Sequence[int]] | None) -> int:
    """The longest delay in a matrix; 0 where there is none."""
    return max((delay for row in matrix for delay in row), default=0) if matrix else 0
