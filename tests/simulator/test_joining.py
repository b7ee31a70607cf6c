"""New validators and those that were long away, in whole networks with faults."""

from dataclasses import replace

import pytest

from qnet_actors.simulator.command import simulate
from qnet_actors.simulator.faults import Fault
from qnet_actors.simulator.result import Verdict
from qnet_actors.simulator.simulation import SimConfig

LATE = SimConfig(late_start_ms=8_000)


@pytest.mark.parametrize("seed", [101, 107])
def test_a_new_validator_joins_from_a_snapshot_amid_faults(seed: int):
    result = simulate(seed, LATE)
    assert result.verdict == Verdict.PASS, f"seed {result.seed}: {result.reason}"
    assert result.paths_taken["Joined"] >= 1


def test_it_joins_while_nothing_goes_wrong_and_by_blocks_where_they_are_few():
    calm = replace(LATE, faults=frozenset[Fault](), rounds_min=80, virtual_ms_min=14_000)
    joined, chased = simulate(109, calm), simulate(110, calm)
    for result in (joined, chased):
        assert result.verdict == Verdict.PASS, f"seed {result.seed}: {result.reason}"
    assert joined.paths_taken["Joined"] == 1
    assert "Joined" not in chased.paths_taken
    assert chased.paths_taken["CaughtUp"] >= 1


@pytest.mark.parametrize("seed", [203, 207])
def test_a_validator_whose_ledger_was_set_aside_takes_it_from_its_peers(seed: int):
    result = simulate(seed, SimConfig(resync_ms=7_000))
    assert result.verdict == Verdict.PASS, f"seed {result.seed}: {result.reason}"
    assert result.paths_taken["CaughtUp"] >= 1
