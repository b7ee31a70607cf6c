"""What importing a name costs: nothing that the name does not need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("import qnet_actors.ledger, qnet_actors.state", "numpy numba duckdb ray"),
        ("from qnet_actors.light import verify_account", "numpy numba duckdb ray"),
        ("from qnet_actors.ledger import MemoryLog", "numba duckdb ray"),
        ("from qnet_actors.ledger import DuckLog", "numba ray"),
        ("from qnet_actors.ledger import LedgerCore, recover", "duckdb ray"),
    ],
)
def test_import(statement, unwanted):
    code = f"import sys; {statement}; print(*(set({unwanted.split()}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
