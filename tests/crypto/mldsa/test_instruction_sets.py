"""The kernels compiled for lesser processors: as right, and only slower."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import llvmlite.binding
import pytest

ROOT = Path(__file__).parents[3]

PROGRAM = """
from qnet_actors.crypto import BatchVerifier, provider
from qnet_actors.crypto.mldsa import select_kernel
from qnet_actors.experiments.verify_cases import cases, compare
from qnet_actors.kernels.vectors import instruction_set

openssl = provider("openssl")
kernel, reason = select_kernel(None, cache_mb=4)
print(instruction_set(), reason)
assert kernel is not None
result = compare(BatchVerifier(openssl, kernel=kernel), [openssl], cases(openssl, 2, base=40), 600)
assert not result.disagreements
assert sum(result.accepted.values()) > 50
"""


@pytest.mark.timeout(600)
def test_without_the_wide_vectors():
    if platform.machine() != "x86_64":
        pytest.skip("the names of lesser processors are those of x86-64")
    has_avx2 = dict(llvmlite.binding.get_host_cpu_features()).get("avx2", False)
    processor = "x86-64-v3" if has_avx2 else "x86-64-v2"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env={**os.environ, "NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"{processor} kernel: compiled for {processor}, self-test passed" in done.stdout
