"""How much room a data directory's disk has, and when that is too little to take new work."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from qnet_actors.wire.codes import Code, QnetError

LOOK_SECONDS: Final = 1.0


class FileSystem(Protocol):
    """What is used of `os.statvfs_result`."""

    @property
    def f_bavail(self) -> int:
        """Blocks that are free for this user."""

    @property
    def f_frsize(self) -> int:
        """The size of a block in bytes."""


class DiskWatch:
    """Low below the watermark, and until a quarter more than it is free: no to and fro between."""

    def __init__(
        self,
        path: Path,
        free_bytes_min: int,
        statvfs: Callable[[Path], FileSystem] = os.statvfs,
    ) -> None:
        """`free_bytes_min` 0: it is never low."""
        self._path: Final = path
        self._free_bytes_min: Final = free_bytes_min
        self._statvfs: Final = statvfs
        self._free_bytes = 0
        self.low = False

    def look(self) -> bool:
        """Whether it has become low just now, or has ceased to be; may wait.  Raises OSError."""
        if not self._free_bytes_min:
            return False
        found, was = self._statvfs(self._path), self.low
        self._free_bytes = found.f_bavail * found.f_frsize
        needed = self._free_bytes_min + (self._free_bytes_min // 4 if was else 0)
        self.low = self._free_bytes < needed
        return self.low != was

    def check(self) -> None:
        """Raises `QnetError(DISK_FULL)` where it is low."""
        if self.low:
            raise QnetError(
                Code.DISK_FULL,
                f"{self._free_bytes // 2**20} MiB of the validator's disk are free, and "
                f"{self._free_bytes_min // 2**20} are to stay; it takes work again once there are",
            )
