"""Cores that are broken on purpose are caught, each by what is named for it.

`scripts/mutants` does so for every rule; here stand those that are quick.
"""

import json

import pytest

from tests.simulator.broken_rules import MUTANTS, Mutant
from tests.simulator.mutants import ROOT, caught, kill, main

QUICK = (
    "quorum",
    "vote",
    "certificate",
    "skip",
    "amnesia",
    "journal-before-send",
    "batch-before-ack",
    "execution",
    "self-parent",
)


def test_the_same_seeds_pass_without_a_mutant():
    assert caught(Mutant("none", "none is gone"), seeds=range(3, 5)).invariant == ""


@pytest.mark.parametrize("name", QUICK)
def test_a_mutant_is_killed_by_what_is_named_for_it(name: str):
    (mutant,) = [mutant for mutant in MUTANTS if mutant.name == name]
    found = kill(mutant)
    assert found.by, f"{name} survived: {found.reason}"
    assert found.by in mutant.invariants or found.by.startswith(mutant.test)


def test_each_mutant_has_one_who_is_to_notice():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    for mutant in MUTANTS:
        assert bool(mutant.invariants) != bool(mutant.test)
        if mutant.test:
            # A whole file may be named, too.
            path, _, name = mutant.test.partition("::")
            test = f"def {name.partition('[')[0]}(" if name else "def test_"
            assert test in (ROOT / path).read_text(), mutant.test


def test_a_mutant_that_lives_is_told(monkeypatch, capsys):
    harmless = Mutant("harmless", "none is gone", frozenset({"commit_fork"}))
    monkeypatch.setattr("tests.simulator.mutants.MUTANTS", (harmless,))
    monkeypatch.setattr(
        "tests.simulator.mutants.caught", lambda mutant: caught(mutant, range(3, 4))
    )
    assert main(["--json"]) == 1
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["mutant"], told["by"]) == ("harmless", "")
