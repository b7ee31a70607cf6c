"""The end of a process whose Ray is gone."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Final

LOOK_SECONDS: Final = 0.5
ORPHAN_STATUS: Final = 71
logger = logging.getLogger(__name__)


def end_with_parent() -> None:
    """Has this process end once the one that started it has; for actors, to call first.

    Where a machine stood still and was given up, its Ray ends as soon as it goes on, but what that
    had started was seen to find out a minute later.  Until then nobody could reach it, and its
    locks would keep the next copy out.
    """
    parent = os.getppid()
    threading.Thread(target=_watch, args=(parent,), name="parent", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    logger.error("this process ends: the one that started it is gone")
    os._exit(ORPHAN_STATUS)
