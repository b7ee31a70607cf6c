"""`qnet sim`: summaries, exit codes, and how to see a failure again."""

import io
import json

import pytest

from qnet_actors.simulator import command
from qnet_actors.simulator.adversary import Attack
from qnet_actors.simulator.command import Asked, run_sim, summarise
from qnet_actors.simulator.faults import Fault
from qnet_actors.simulator.result import SimResult, Verdict
from qnet_actors.simulator.simulation import SimConfig
from qnet_actors.wire.codes import QnetError


def result(seed: int, verdict: Verdict = Verdict.PASS, lines: list[str] | None = None) -> SimResult:
    return SimResult(
        seed=seed,
        verdict=verdict,
        invariant="" if verdict == Verdict.PASS else "broken",
        reason="" if verdict == Verdict.PASS else "it broke",
        validators=4,
        virtual_seconds=20.5,
        rounds=300 + seed,
        commits=7,
        height=5,
        submitted=10,
        executed=9,
        messages=100,
        bytes_sent=1_000,
        episodes=20,
        faults_fired={"loss": seed, "crash": 1},
        attacks={},
        paths_taken={"CaughtUp": 1},
        shards=1,
        scheme="KEYED_HASH",
        trace_digest="00",
        wall_seconds=0.1,
        lines=lines or [],
    )


def run(
    monkeypatch, bad: dict[int, Verdict], *, as_json: bool = False, **fields
) -> tuple[int, str, str, list[int]]:
    ran: list[int] = []

    def fake(seed: int, config: SimConfig) -> SimResult:
        ran.append(seed)
        assert config.validators == fields.get("validators", 4)
        lines = [f"line of {seed}"] if config.keep_lines else []
        return result(seed, bad.get(seed, Verdict.PASS), lines)

    monkeypatch.setattr(command, "simulate", fake)
    out, err = io.StringIO(), io.StringIO()
    code = run_sim(Asked(**fields), as_json=as_json, processes=1, out=out, err=err)
    return code, out.getvalue(), err.getvalue(), ran


def test_all_seeds_are_run_and_summed_up(monkeypatch):
    code, out, err, ran = run(monkeypatch, {}, seeds=3, first_seed=5, as_json=True)
    summary = json.loads(out)
    assert (code, err, ran) == (0, "", [5, 6, 7])
    assert summary["seeds"] == summary["passed"] == 3
    assert summary["diverged"] == summary["no_progress"] == summary["invalid"] == 0
    assert summary["faults_fired"] == {"crash": 3, "loss": 18}
    assert summary["paths_taken"] == {"CaughtUp": 3}
    assert summary["rounds_min"] == 305
    assert summary["virtual_seconds"] == 61.5
    assert summary["failures"] == []


def test_a_failed_seed_is_named_with_how_to_replay_it(monkeypatch):
    bad = {2: Verdict.DIVERGED, 3: Verdict.NO_PROGRESS, 4: Verdict.INVALID}
    code, out, err, _ = run(
        monkeypatch, bad, seeds=5, validators=7, faults="crash,loss", as_json=True
    )
    summary = json.loads(out)
    assert code == 1
    counts = [summary[name] for name in ("passed", "diverged", "no_progress", "invalid")]
    assert counts == [2, 1, 1, 1]
    assert [failure["seed"] for failure in summary["failures"]] == [2, 3, 4]
    assert "qnet sim --seed 2 --validators 7 --faults crash,loss --trace" in err
    assert "it broke" in err


def test_one_seed_shows_its_timeline(monkeypatch):
    code, out, _, ran = run(monkeypatch, {}, seed=9, trace=True)
    assert (code, ran) == (0, [9])
    assert out.startswith("line of 9\n1 of 1 seeds passed")


@pytest.mark.parametrize(
    "fields",
    [
        {"seeds": 0},
        {"validators": 0},
        {"validators": 1_000},
        {"first_seed": -1},
        {"faults": "gremlins"},
        {"trace": True},
        {"shrunk": True},
        {"seed": 1, "shrunk": True, "trace": True},
        {"episodes": "1,x"},
        {"regions": "moon"},
        {"joiners": -1},
        {"joiners": 1_000_000},
        {"accounts": 0},
        {"calm_ms": 0},
    ],
)
def test_what_makes_no_sense_is_refused(fields):
    with pytest.raises(QnetError):
        run_sim(Asked(**fields), out=io.StringIO(), err=io.StringIO())


def test_how_to_see_a_run_with_epochs_again_is_told(monkeypatch):
    bad = {7: Verdict.DIVERGED}
    _, _, err, _ = run(monkeypatch, bad, seeds=1, first_seed=7, joiners=2, approves=True)
    assert "qnet sim --seed 7 --validators 4 --faults all --joiners 2 --approve --trace" in err


def test_results_of_several_processes_come_in_the_order_of_seeds():
    config = SimConfig(faults=frozenset(), virtual_ms_min=2_000, calm_ms=1_000, rounds_min=10)
    results = list(command.run_all(range(21, 25), config, processes=2))
    assert [result.seed for result in results] == [21, 22, 23, 24]
    assert {result.verdict for result in results} == {Verdict.PASS}


def test_no_results_have_a_summary():
    assert summarise([], 0.0)["rounds_min"] == 0


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_two_hundred_seeds_pass():
    out, err = io.StringIO(), io.StringIO()
    code = run_sim(Asked(seeds=200), as_json=True, out=out, err=err)
    assert code == 0, err.getvalue()
    summary = json.loads(out.getvalue())
    assert summary["passed"] == 200
    assert set(summary["faults_fired"]) == {fault.value for fault in Fault}
    assert set(summary["attacks"]) == {attack.value for attack in Attack}
    assert all(summary["paths_taken"][name] > 20 for name in ("CaughtUp", "BatchesDropped"))
    assert summary["rounds_min"] >= 300
