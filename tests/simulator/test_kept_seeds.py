"""Runs that once failed, as small as they were made; whoever finds one adds it to the table."""

import io
import json
from pathlib import Path

import pytest

from qnet_actors.simulator.command import Asked, run_sim

KEPT = json.loads((Path(__file__).parent / "kept_seeds.json").read_text())


@pytest.mark.parametrize("kept", KEPT, ids=lambda kept: str(kept["options"]["seed"]))
def test_a_seed_that_once_failed_passes(kept):
    err = io.StringIO()
    assert run_sim(Asked(**kept["options"]), out=io.StringIO(), err=err) == 0, (
        f"{kept['showed']}\n{err.getvalue()}"
    )
