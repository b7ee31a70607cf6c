"""A split network on Ray: every room a process, and one of them killed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.network, pytest.mark.long, pytest.mark.timeout(300)]


def test_a_split_network_agrees_and_survives_the_death_of_a_room():
    done = subprocess.run(
        [sys.executable, "-m", "tests.network.split_network"],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["executed_before"] == 24
    assert found["executed_after"] == 6
    assert found["nonces"] == [5] * 6
    assert found["proved_nonces"] == [6, *[5] * 5]
    assert found["final"]
    assert found["roots_equal"]
    assert found["equivocations"] == [0, 0]
    assert found["processes"] == 6
