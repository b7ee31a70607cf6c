"""What the processes of a split validator load before they know which rooms they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "module",
    [
        "qnet_actors.network.actor",
        "qnet_actors.network.split.actors",
        "qnet_actors.network.split.rooms",
    ],
)
def test_an_actor_loads_no_kernel_and_no_database_before_it_is_made(module):
    code = f"import sys, {module}; print(*({{'numba', 'duckdb'}} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
