"""The committee of a network on Ray grows and shrinks while clients send."""

from __future__ import annotations

from pathlib import Path

import pytest

from qnet_actors.experiments.turnover import TurnoverOptions, run_turnover

pytestmark = [pytest.mark.network, pytest.mark.timeout(240)]


def test_validators_come_and_go_under_load(tmp_path: Path):
    options = TurnoverOptions(joiners=1, seconds=1.0, rate=20.0)
    result = run_turnover(options, tmp_path, lambda _: None)
    assert result.good, result
    assert result.committee_sizes == [4, 5, 4]
    assert result.acknowledged > 20
