"""Which heights each segment of a block log holds.  Knows no files."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from qnet_actors.wire.codes import Code, QnetError


@dataclass(slots=True)
class Range:
    """A segment by its number in the order of writing, and the heights in it."""

    sequence: int
    first_height: int
    last_height: int


class Ranges:
    """The segments with blocks, oldest first.

    Those of `bases` begin anew: what is before such a one does not reach up to it.  Of those of
    `pruned` only the headers are left; they are the oldest.
    """

    def __init__(self, bases: Iterable[int] = (), pruned: Iterable[int] = ()) -> None:
        self.bases = set(bases)
        self.pruned = set(pruned)
        self._parts: list[Range] = []

    @property
    def last_height(self) -> int:
        """Of the last block; 0: there is none."""
        return self._parts[-1].last_height if self._parts else 0

    def first_height(self) -> int:
        """From here to the last height no block lacks."""
        first = self.last_height + 1 if self._parts else 1
        for part in reversed(self._parts):
            if part.sequence in self.pruned:
                break
            first = part.first_height
            if part.sequence in self.bases:
                break
        return first

    def first_header_height(self) -> int:
        """From here to the last height no header lacks."""
        bases = (part for part in reversed(self._parts) if part.sequence in self.bases)
        return next((part.first_height for part in bases), 1)

    def is_pruned(self, height: int) -> bool:
        """Whether the block was in a segment that is pruned."""
        part = self.at(height)
        return part is not None and part.sequence in self.pruned

    def oldest_whole(self) -> Range | None:
        """The oldest segment that is not pruned."""
        return next((part for part in self._parts if part.sequence not in self.pruned), None)

    def extend(self, sequence: int, first_height: int, last_height: int) -> None:
        """Blocks were written to the segment that is written to."""
        if self._parts and self._parts[-1].sequence == sequence:
            self._parts[-1].last_height = last_height
        else:
            self._parts.append(Range(sequence, first_height, last_height))

    def follow(self, sequence: int, first_height: int, last_height: int) -> None:
        """Notes a segment that was found, which must go on where the one before ends.

        One that begins anew may also begin above.  Raises `QnetError(DATA_CORRUPT)`.
        """
        expected = self.last_height + 1
        is_base = sequence in self.bases and first_height > expected
        if first_height != expected and not is_base:
            raise QnetError(
                Code.DATA_CORRUPT,
                f"segment {sequence} of the block log begins at {first_height}, {expected} was "
                "due; resync this validator",
            )
        self._parts.append(Range(sequence, first_height, last_height))

    def at(self, height: int) -> Range | None:
        """The segment with a block."""
        position = self.position(height)
        if position < 0 or height > self._parts[position].last_height:
            return None
        return self._parts[position]

    def position(self, height: int) -> int:
        """Of the last segment that begins at or below `height`; -1: none does."""
        return bisect_right(self._parts, height, key=lambda part: part.first_height) - 1

    def sequences(self, start: int, end: int | None = None) -> list[int]:
        """The segments by their positions."""
        return [part.sequence for part in self._parts[start:end]]
