"""A short run of `qnet bench join`: real processes, real links, a real kill."""

from pathlib import Path

import pytest

from qnet_actors.experiments.join_bench import JoinOptions, run_join_bench

pytestmark = pytest.mark.network


def test_a_joiner_that_is_killed_half_way_arrives_at_the_certified_root(tmp_path: Path):
    result = run_join_bench(JoinOptions(accounts=40_000), tmp_path, lambda _: None)
    assert result.good
    assert result.accounts == 40_002
    assert result.parts == 2
    assert 1 <= result.killed_at_parts <= result.resumed_with_parts <= 2
    assert result.join_seconds > 0
