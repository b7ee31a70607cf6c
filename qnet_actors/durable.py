"""What a crash leaves of a file: all of it under its name, or what was there before."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from qnet_actors.wire.codes import Code, QnetError

FULL_ERRNOS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The disk is full, the quota is, or the file is as large as the process may write."""


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


@contextmanager
def named_faults() -> Iterator[None]:
    """Turns what the file system refuses into a `QnetError` that names the file.

    DISK_FULL, or CONFIGURATION_INVALID: what stands there is not what should, or not ours.  An
    `OSError` without a file, such as a socket's, goes on as it is.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise
        full = error.errno in FULL_ERRNOS
        code = Code.DISK_FULL if full else Code.CONFIGURATION_INVALID
        raise QnetError(code, f"{error.filename}: {error.strerror}") from error
