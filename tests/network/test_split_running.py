"""A split network on Ray: every room a process, and one of them killed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.network, pytest.mark.long, pytest.mark.timeout(300)]


def run(program: str, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", f"tests.network.{program}", *arguments],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_split_network_agrees_and_survives_the_death_of_a_room():
    found = run("split_network")
    assert found["executed_before"] == 24
    assert found["executed_after"] == 6
    assert found["nonces"] == [5] * 6
    assert found["proved_nonces"] == [6, *[5] * 5]
    assert found["final"]
    assert found["roots_equal"]
    assert found["equivocations"] == [0, 0]
    assert found["processes"] == 6


def test_a_split_validator_joins_from_a_snapshot_and_starts_anew_with_it():
    found = run("split_joiner")
    assert found["joined"]
    assert found["started_anew"]
    assert found["roots_equal"]
    assert found["failure"] is None


def test_a_split_validator_has_an_equivocator_punished_and_all_go_by_approved_rules():
    found = run("split_epoch")
    assert found["key_ids"] == [found["honest"]]
    assert found["epochs"] == [1, 2]
    assert found["delays_ms"] == [50, 80]
    assert found["failures"] == [None, None]
