"""How the C library treats the memory of batches."""

from __future__ import annotations

import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
# The most that glibc takes: larger blocks are always mapped one by one.
_MAPPED_FROM_BYTES: Final = 32 * 1024 * 1024
_KEPT_BYTES: Final = 512 * 1024 * 1024


def keep_freed_memory() -> bool:
    """Has freed memory kept for the next batch; False where the C library is not glibc.

    A batch is several megabytes and is copied on its way.  By default each copy is mapped from the
    system and given back, and the faults on its fresh pages cost a quarter of admission.  At most
    512 MiB stay with the process that it does not use.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM_BYTES) and mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    )
