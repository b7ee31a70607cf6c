"""A folder that one process at a time may use, for as long as that process lives."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Final

from qnet_actors.wire.codes import Code, QnetError

WAIT_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 0.05


def hold(path: Path, wait_seconds: float = WAIT_SECONDS) -> int:
    """Locks `path`, made if need be, and returns the descriptor that holds it until the end.

    When a validator starts again its former rooms may still be ending, so this waits for them.
    Raises `QnetError(DATA_DIRECTORY_LOCKED)` where they do not end.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    give_up = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= give_up:
                os.close(descriptor)
                raise QnetError(Code.DATA_DIRECTORY_LOCKED, f"{path} is in use") from None
            time.sleep(_POLL_SECONDS)
        else:
            return descriptor
