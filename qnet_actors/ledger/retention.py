"""Which blocks a log keeps whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

RetentionMode = Literal["archive", "full", "light"]
BLOCKS_KEPT: Final[dict[RetentionMode, int]] = {"full": 1_000_000, "light": 10_000}


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept: of every block the header for ever, and the rest by `mode`.

    `archive` keeps all of it.  `full` keeps the newest `blocks` whole, and of the others where each
    transaction stood.  `light` keeps the newest `blocks` whole.
    """

    mode: RetentionMode = "archive"
    blocks: int = 0
    """0: as many as `BLOCKS_KEPT` says."""

    @property
    def kept_blocks(self) -> int:
        """How many are kept whole; 0 with `archive`, which counts none."""
        return 0 if self.mode == "archive" else self.blocks or BLOCKS_KEPT[self.mode]

    def first_kept(self, certified_height: int, snapshot_heights: Sequence[int]) -> int:
        """From this height on blocks are kept whole; nothing is due to go where it is 1 or less.

        Blocks are counted from the newest certified one, or from the oldest snapshot where that is
        further back: a start replays what follows a snapshot, and a joiner is given what follows
        the one that it took over.
        """
        if self.mode == "archive" or not snapshot_heights:
            return 1
        return min(certified_height, *snapshot_heights) - self.kept_blocks + 1


ARCHIVE: Final = Retention()
