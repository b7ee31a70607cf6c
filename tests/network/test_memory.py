"""Freed memory stays with the process, so that the next batch finds pages that exist."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from qnet_actors.network import memory

PROGRAM = """
import resource, sys
from qnet_actors.network.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        [bytes(4_000_000) for _ in range(4)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
pages()
print(pages())
"""


def faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how],
        cwd=Path(memory.__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_pages_are_kept():
    page = resource.getpagesize()
    assert faults("keep") < 20 * 16_000_000 // page // 20


def test_says_no_without_glibc(monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert not memory.keep_freed_memory()
