"""Many seeds in sittings: what is done is not done again, and a torn line is."""

import io
import json
from pathlib import Path

import pytest

from qnet_actors.simulator import soak
from qnet_actors.simulator.result import Verdict
from qnet_actors.simulator.simulation import SimConfig
from qnet_actors.simulator.soak import main, program_digest, run_seeds
from qnet_actors.wire.codes import QnetError
from tests.simulator.test_command import result


class Runner:
    """Stands for the simulator: names what it ran, fails what it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ran: list[int] = []
        self.bad: set[int] = set()
        monkeypatch.setattr(soak, "run_all", self.run_all)

    def run_all(self, seeds, config: SimConfig, processes: int | None):
        for seed in seeds:
            self.ran.append(seed)
            yield result(seed, Verdict.DIVERGED if seed in self.bad else Verdict.PASS)


def sit(path: Path, **options) -> tuple[int, dict]:
    out, err = io.StringIO(), io.StringIO()
    code = run_seeds(journal=path, out=out, err=err, **options)
    return code, json.loads(out.getvalue())


def test_a_second_sitting_runs_what_the_first_left(monkeypatch, tmp_path: Path):
    runner, path = Runner(monkeypatch), tmp_path / "results" / "seeds.jsonl"
    monkeypatch.setattr(soak, "CHUNK", 3)
    runner.bad = {2}
    code, summary = sit(path, seeds=3)
    assert (code, summary["done"], summary["passed"]) == (1, 3, 2)
    assert [failure["seed"] for failure in summary["failures"]] == [2]
    runner.bad, runner.ran = set(), []
    code, summary = sit(path, seeds=8)
    assert (code, summary["done"], summary["passed"]) == (0, 8, 8)
    assert runner.ran == [2, 4, 5, 6, 7, 8]
    assert summary["failures"] == []
    assert summary["programs"] == {program_digest(): 8}
    assert summary["faults_fired"]["crash"] == 8


def test_time_ends_a_sitting_between_chunks(monkeypatch, tmp_path: Path):
    runner = Runner(monkeypatch)
    monkeypatch.setattr(soak, "CHUNK", 2)
    code, summary = sit(tmp_path / "seeds.jsonl", seeds=5, seconds=0.0)
    assert (code, summary["done"], runner.ran) == (3, 0, [])


def test_a_torn_line_is_cut_and_its_seed_run_again(monkeypatch, tmp_path: Path):
    runner, path = Runner(monkeypatch), tmp_path / "seeds.jsonl"
    sit(path, seeds=4)
    path.write_bytes(path.read_bytes()[:-20])
    runner.ran = []
    assert sit(path, seeds=4)[0] == 0
    assert runner.ran == [4]
    lines = path.read_text().splitlines()
    assert [json.loads(line).get("seed") for line in lines] == [None, 1, 2, 3, 4]


def test_a_journal_of_other_settings_is_refused(monkeypatch, tmp_path: Path):
    Runner(monkeypatch)
    path = tmp_path / "seeds.jsonl"
    sit(path, seeds=1)
    with pytest.raises(QnetError):
        sit(path, seeds=1, validators=7)
    assert main(["--journal", str(path), "--seeds", "1", "--faults", "loss"]) == 2
    assert main(["--journal", str(path), "--seeds", "1"]) == 0
    for wrong in (["--seeds", "0"], ["--validators", "0"], ["--faults", "gremlins"]):
        assert main(["--journal", str(path), *wrong]) == 2
