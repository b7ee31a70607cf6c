"""Equivocations: two signed blocks of one author for one round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from qnet_actors.wire.dag import DagBlock

EVIDENCE_PER_AUTHOR_MAX: Final = 2


@dataclass(frozen=True, slots=True)
class Equivocation:
    """Two different blocks of one slot, both with a good signature: proof against their author."""

    first: DagBlock
    second: DagBlock


class Evidence:
    """Keeps the first equivocations of each author and counts all of them."""

    def __init__(self) -> None:
        self._kept: dict[int, list[Equivocation]] = {}
        self.count = 0

    def add(self, first: DagBlock, second: DagBlock) -> None:
        self.count += 1
        kept = self._kept.setdefault(first.ref.author, [])
        if len(kept) < EVIDENCE_PER_AUTHOR_MAX:
            kept.append(Equivocation(first, second))

    def equivocations(self) -> tuple[Equivocation, ...]:
        """What is kept, by author."""
        return tuple(item for author in sorted(self._kept) for item in self._kept[author])
