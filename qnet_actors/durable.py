"""What a crash leaves of a file: all of it under its name, or what was there before."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def sync(path: Path) -> None:
    """Flushes a file, or the names in a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, parts: Iterable[bytes], *, fsync: bool = True) -> None:
    """Replaces a file at once: a crash leaves the old one, or none, or all of the new one."""
    fresh = path.with_suffix(".new")
    with fresh.open("wb") as file:
        file.writelines(parts)
        file.flush()
        if fsync:
            os.fsync(file.fileno())
    fresh.replace(path)
    if fsync:
        sync(path.parent)
