"""How a data directory of an earlier format becomes one of the next: whole or not at all.

A step writes what the next format has otherwise beside what is there.  That the directory's
identity says the next format decides: before it, what was written counts for nothing and the old
data is as it was; after it, the rest is only put in place, by the next start if not by this one.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from qnet_actors import durable

Step = Callable[[Path, Path], None]
"""Reads a data directory, and writes into an empty one each entry that is to be replaced or added,
whole: a file, or a directory with all that belongs into it."""

STEPS: Final[Mapping[int, Step]] = {}
"""From the format that a step reads to the step, which writes the format after it.  None is needed
for the formats that there were: nothing of format 1 would be accepted by anybody now."""


def leads_to(version: int, wanted: int) -> bool:
    """Whether there are steps all the way from one format to another."""
    return version <= wanted and all(at in STEPS for at in range(version, wanted))


def prepare(directory: Path, version: int) -> None:
    """Takes the step from `version`, without changing anything that is in the directory."""
    fresh = _fresh(directory, version + 1)
    if fresh.exists():
        shutil.rmtree(fresh)
    fresh.mkdir(mode=0o700)
    STEPS[version](directory, fresh)
    for path in (*fresh.rglob("*"), fresh, directory):
        durable.sync(path)


def finish(directory: Path, version: int) -> None:
    """Puts in place what the step to `version` wrote, once that is the format; again is no harm."""
    fresh, replaced = _fresh(directory, version), directory / "replaced"
    if fresh.exists():
        replaced.mkdir(mode=0o700, exist_ok=True)
        for entry in sorted(fresh.iterdir()):
            place = directory / entry.name
            if place.exists():
                place.rename(replaced / entry.name)
            entry.rename(place)
        for path in (fresh, replaced, directory):
            durable.sync(path)
        fresh.rmdir()
    if replaced.exists():
        shutil.rmtree(replaced)


def _fresh(directory: Path, version: int) -> Path:
    return directory / f"format-{version}"
