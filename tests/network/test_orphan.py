"""A process that ends with the one that started it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

CHILD = """
import os, sys
from qnet_actors.network.orphan import end_with_parent
end_with_parent()
print(os.getpid(), flush=True)
sys.stdin.read()
"""
PARENT = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", sys.argv[1]]).wait()
"""


def test_a_process_ends_with_the_one_that_started_it() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        try:
            ended = select.poll()
            ended.register(child, select.POLLIN)
            assert not ended.poll(0)
            os.kill(parent.pid, signal.SIGKILL)
            assert ended.poll(30_000)
        finally:
            os.close(child)
        assert parent.stderr is not None
        assert "the one that started it is gone" in parent.stderr.read()
