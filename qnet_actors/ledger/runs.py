"""Where the transactions of one sealed segment stand: sorted columns in a file that is mapped.

File: magic, u64 count, then prefixes u64[n] rising, heights u64[n], positions u32[n], all
little-endian.  A search touches a handful of pages, whatever the size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from qnet_actors.durable import write_whole
from qnet_actors.ledger.databases import guarded
from qnet_actors.ledger.writes import Place
from qnet_actors.wire.codes import Code, QnetError

_MAGIC: Final = b"qnetrun1"
_HEADER_BYTES: Final = 16
_ROW_BYTES: Final = 20


def write_run(
    path: Path,
    prefixes: npt.NDArray[np.uint64],
    heights: npt.NDArray[np.uint64],
    positions: npt.NDArray[np.uint32],
    *,
    fsync: bool,
) -> None:
    """Writes the columns of rows in any order, whole or not at all."""
    order = np.argsort(prefixes, kind="stable")
    parts = (
        _MAGIC + len(prefixes).to_bytes(8, "little"),
        prefixes[order].astype("<u8").tobytes(),
        heights[order].astype("<u8").tobytes(),
        positions[order].astype("<u4").tobytes(),
    )
    with guarded("the transaction index could not be written"):
        write_whole(path, parts, fsync=fsync)


class Run:
    """A mapped file of `write_run`; raises `QnetError(DATA_CORRUPT)` where it is none."""

    def __init__(self, path: Path) -> None:
        with guarded(f"{path} could not be read", Code.DATA_CORRUPT):
            size = path.stat().st_size
            data: Any = np.memmap(path, np.uint8, "r") if size >= _HEADER_BYTES else b""
        head = bytes(data[:_HEADER_BYTES])
        count = int.from_bytes(head[8:], "little")
        if head[:8] != _MAGIC or size != _HEADER_BYTES + _ROW_BYTES * count:
            raise QnetError(Code.DATA_CORRUPT, f"{path} is damaged")
        self.count: Final = count
        body = data[_HEADER_BYTES:]
        self._prefixes: npt.NDArray[np.uint64] = body[: 8 * count].view("<u8")
        self._heights: npt.NDArray[np.uint64] = body[8 * count : 16 * count].view("<u8")
        self._positions: npt.NDArray[np.uint32] = body[16 * count :].view("<u4")

    def find(self, prefix: np.uint64, count_max: int) -> list[Place]:
        """Where transactions with this prefix stand."""
        first = int(np.searchsorted(self._prefixes, prefix))
        last = int(np.searchsorted(self._prefixes[first : first + count_max], prefix, "right"))
        return [
            Place(int(self._heights[row]), int(self._positions[row]))
            for row in range(first, first + last)
        ]
