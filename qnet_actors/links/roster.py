"""Who may link with this validator: keys under numbers that outlast epochs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from qnet_actors.wire.schemes import key_id


class PeerKey(NamedTuple):
    """A key that a link is proved with."""

    scheme: int
    public_key: bytes

    @property
    def id(self) -> bytes:
        return key_id(self.scheme, self.public_key)


class Roster:
    """Keys and their numbers, the own one among them.

    A place in a committee is a name for one epoch only, and a link outlasts epochs; so links know
    validators by numbers of their own, which say nothing to anybody else.
    """

    def __init__(self, own: PeerKey, first: Iterable[PeerKey]) -> None:
        """`first`: numbered from 0; where the own key is not among them, it comes next.

        Of those the lower number dials the higher.  Who is not of them dials everybody, since
        nobody may know yet where it listens.
        """
        self.own_id: Final = own.id
        self._keys: dict[int, PeerKey] = {}
        self._numbers: dict[bytes, int] = {}
        self._next = 0
        for key in first:
            self._add(key)
        self.is_newcomer: Final = self.own_id not in self._numbers
        self.own: Final = self._add(own)

    @property
    def keys(self) -> Mapping[int, PeerKey]:
        """By number; the own one too."""
        return MappingProxyType(self._keys)

    def __contains__(self, number: object) -> bool:
        return number in self._keys

    def number_of(self, key_id: bytes) -> int | None:
        """The number of a key that may link, or the own one's; None: it may not."""
        return self._numbers.get(key_id)

    def dials(self, number: int) -> bool:
        """Whether this end of the pair dials."""
        return number != self.own and (self.is_newcomer or number > self.own)

    def set(self, keys: Iterable[PeerKey]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """From now on these may link, and nobody else; returns the numbers (added, removed)."""
        wanted = {key.id: key for key in keys}
        gone = tuple(
            number
            for name, number in self._numbers.items()
            if name not in wanted and number != self.own
        )
        for number in gone:
            del self._numbers[self._keys.pop(number).id]
        added = tuple(self._add(key) for name, key in wanted.items() if name not in self._numbers)
        return added, gone

    def _add(self, key: PeerKey) -> int:
        name = key.id
        known = self._numbers.get(name)
        if known is not None:
            return known
        number, self._next = self._next, self._next + 1
        self._keys[number], self._numbers[name] = key, number
        return number
