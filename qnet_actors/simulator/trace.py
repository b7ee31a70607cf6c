"""What happened in a run: a digest that two runs of one seed share, and a timeline to read."""

from __future__ import annotations

from typing import Final

from blake3 import blake3

from qnet_actors.simulator.scheduler import Scheduler

LINES_MAX: Final = 2_000_000


class Trace:
    """Takes every event of a run in order.

    The digest covers messages to the byte.  Lines are kept only where somebody reads them.
    """

    def __init__(self, scheduler: Scheduler, *, keep_lines: bool = False) -> None:
        self.lines: list[str] = []
        self.keeps_lines: Final = keep_lines
        self._scheduler = scheduler
        self._hasher = blake3()

    def note(self, who: int, what: str, data: bytes = b"") -> None:
        """An event of a validator (-1: of the whole network), with the bytes it concerns."""
        head = f"{self._scheduler.now_ms} {who} {what} "
        self._hasher.update(head.encode() + data)
        if self.keeps_lines and len(self.lines) < LINES_MAX:
            name = "-" if who < 0 else str(who)
            self.lines.append(f"{self._scheduler.now_ms / 1000:9.3f}  {name:>2}  {what}")

    def digest(self) -> str:
        return self._hasher.hexdigest()
