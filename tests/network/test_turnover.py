"""The committee of a network on Ray grows and shrinks while clients send."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

pytestmark = [pytest.mark.network, pytest.mark.timeout(280)]


def turnover(profile: str) -> dict[str, Any]:
    """What the command prints.  A program, since a process has one Ray."""
    arguments = ["--joiners", "1", "--seconds", "1", "--profile", profile, "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "qnet_actors", "bench", "turnover", *arguments],
        capture_output=True,
        text=True,
        timeout=270,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("profile", ["packed", pytest.param("split", marks=pytest.mark.long)])
def test_validators_come_and_go_under_load(profile: str):
    found = turnover(profile)
    assert found["committee_sizes"] == [4, 5, 4]
    assert found["acknowledged"] > 20
    assert found["lost"] == 0
    assert found["roots_equal"]
