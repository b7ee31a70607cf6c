"""A failing run becomes smaller, and the printed command repeats it."""

import io
import json
from dataclasses import replace
from random import Random

import pytest

from qnet_actors.cli import app
from qnet_actors.simulator import command
from qnet_actors.simulator.command import Asked, run_sim, simulate
from qnet_actors.simulator.faults import ABSENCES, Fault, faults_last_ms_min, plan_faults
from qnet_actors.simulator.result import SimResult, Verdict
from qnet_actors.simulator.rooms import RealRooms
from qnet_actors.simulator.shrink import RUNS_MAX, command_of, shrink
from qnet_actors.simulator.simulation import SimConfig, Simulation
from qnet_actors.wire.codes import QnetError
from tests.simulator.broken_rules import poorer
from tests.simulator.mutants import CONFIG
from tests.simulator.test_command import result


def outcome(verdict: Verdict, invariant: str) -> SimResult:
    return replace(result(9, verdict), invariant=invariant, submitted=400, episodes=20)


def fails_with(episodes: set[int], transactions: int):
    """A run that fails wherever it has these faults and so many transactions."""

    def run(seed: int, config: SimConfig) -> SimResult:
        kept = set(range(20)) if config.episodes is None else set(config.episodes)
        enough = config.submitted_max is None or config.submitted_max >= transactions
        if episodes <= kept and enough:
            return outcome(Verdict.DIVERGED, "commit_fork")
        if episodes & kept:
            return outcome(Verdict.NO_PROGRESS, "lost")
        return outcome(Verdict.PASS, "")

    return run


@pytest.mark.parametrize("needed", [set(), {7}, {0, 19}, {3, 4, 11}])
def test_only_the_faults_that_matter_are_left(needed: set[int]):
    found = shrink(9, SimConfig(), fails_with(needed, 60))
    assert found is not None
    assert found.config.episodes == tuple(sorted(needed))
    assert found.config.submitted_max is not None
    assert 60 <= found.config.submitted_max < 120
    assert found.config.accounts == 1
    assert found.config.calm_ms < SimConfig().calm_ms
    assert found.result.invariant == "commit_fork"
    assert found.runs <= RUNS_MAX


def test_what_passes_or_does_not_count_is_not_shrunk():
    assert shrink(9, SimConfig(), lambda seed, config: outcome(Verdict.PASS, "")) is None
    invalid = outcome(Verdict.INVALID, "too_short")
    assert shrink(9, SimConfig(), lambda seed, config: invalid) is None


def test_runs_are_bounded():
    calls = 0

    def run(seed: int, config: SimConfig) -> SimResult:
        nonlocal calls
        calls += 1
        fails = config.episodes is None
        first = outcome(Verdict.DIVERGED if fails else Verdict.PASS, "parent" if fails else "")
        return replace(first, episodes=400)

    found = shrink(1, SimConfig(), run)
    assert found is not None
    assert calls == found.runs == RUNS_MAX


def test_a_mutant_is_shrunk_and_its_command_repeats_it(monkeypatch: pytest.MonkeyPatch):
    def run(seed: int, config: SimConfig) -> SimResult:
        return Simulation(seed, config, RealRooms, poorer).run()

    found = shrink(2, CONFIG, run)
    assert found is not None
    assert found.config.episodes == ()
    assert found.result.invariant in ("block_fork", "state_root", "supply")
    # The times of a short run have no options; all else comes back from the command.
    words = command_of(2, replace(found.config, calm_ms=SimConfig().calm_ms)).split()[2:]
    taken: list[Asked] = []

    def take(asked: Asked, **_: object) -> int:
        taken.append(asked)
        return 0

    monkeypatch.setattr(command, "run_sim", take)
    app(["sim", *words], standalone_mode=False)
    (asked,) = taken
    assert asked.episodes == "none"
    assert asked.transactions == found.config.submitted_max
    assert asked.accounts == (found.config.accounts if found.config.accounts != 16 else None)


def test_the_command_prints_the_smallest_run(monkeypatch):
    monkeypatch.setattr(command, "simulate", fails_with({5}, 1))
    out, err = io.StringIO(), io.StringIO()
    assert run_sim(Asked(seed=9, shrunk=True), as_json=True, out=out, err=err) == 1
    shown = json.loads(out.getvalue())
    assert shown["command"] == (
        "qnet sim --seed 9 --validators 4 --faults all --episodes 5 --calm-ms 500"
        " --transactions 1 --accounts 1 --trace"
    )
    out = io.StringIO()
    smallest = Asked(seed=9, episodes="5", calm_ms=500, transactions=1, accounts=1, trace=True)
    assert run_sim(smallest, out=out, err=err) == 1
    monkeypatch.setattr(command, "simulate", lambda seed, config: outcome(Verdict.PASS, ""))
    assert run_sim(Asked(seed=9, shrunk=True), out=out, err=err) == 0
    assert "breaks nothing" in err.getvalue()


def test_a_smaller_run_has_only_its_faults_and_transactions():
    config = SimConfig(episodes=(0, 3), submitted_max=30, accounts=2).calm_for(500)
    shown = simulate(4, config)
    assert shown.verdict == Verdict.PASS, shown.reason
    assert shown.episodes > 4
    assert 30 <= shown.submitted <= 40
    assert len(shown.faults_fired) <= 2


def test_times_without_room_for_faults_are_refused():
    assert SimConfig(faults=frozenset(), fault_end_ms=1_000).fault_end_ms == 1_000
    for times in ((1_000, 4_999), (5_000, 1_000), (-1, 9_000)):
        with pytest.raises(QnetError):
            SimConfig(fault_start_ms=times[0], fault_end_ms=times[1])
    assert SimConfig(fault_start_ms=1_000, fault_end_ms=5_000).faults == frozenset(Fault)


@pytest.mark.parametrize("faults", [frozenset(Fault), frozenset(Fault) - frozenset(ABSENCES)])
def test_the_shortest_time_has_room_for_every_plan(faults: frozenset[Fault]):
    end_ms = 1_000 + faults_last_ms_min(faults)
    for seed in range(200):
        episodes = plan_faults(Random(seed), faults, range(4), 1_000, end_ms)
        assert {episode.fault for episode in episodes} == faults
