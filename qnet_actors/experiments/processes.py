"""What processes cost: CPU time by name, and memory that is theirs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import psutil

_KIB: Final = 1024


def cpu_seconds(processes: dict[str, int]) -> dict[str, float]:
    """User and system time so far of each process; those that are gone are left out.

    What is left of this process's family beside `processes` is summed up as "ray": its head,
    agents and idle workers.
    """
    found: dict[str, float] = {}
    for name, pid in processes.items():
        seconds = _cpu(pid)
        if seconds is not None:
            found[name] = seconds
    named = set(processes.values())
    rest = [_cpu(pid) or 0.0 for pid in _family() if pid not in named]
    found["ray"] = sum(rest)
    return found


def memory_bytes(without: int = 0) -> int:
    """Proportional set size of this process's family, itself and process `without` left out."""
    return sum(_pss(pid) for pid in _family() if pid != without)


def _family() -> list[int]:
    return [child.pid for child in psutil.Process(os.getpid()).children(recursive=True)]


def _cpu(pid: int) -> float | None:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return None
    return float(times.user + times.system)


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * _KIB for line in lines if line.startswith("Pss:")), 0)
