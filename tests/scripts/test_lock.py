"""requirements.lock: complete, hashed, free of addresses, and what pyproject.toml asks for."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCK = (ROOT / "requirements.lock").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ENTRY = re.compile(r"^(?P<pin>[a-z0-9._-]+==[^\\\n]+?) \\\n(?P<rest>(?:    --hash=.*\n)+)", re.M)
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}(?: \\)?")
WANTED = [
    Requirement(line)
    for line in PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["dev"]
]


def test_every_line_is_a_comment_a_pin_or_a_hash() -> None:
    rest = ENTRY.sub("", LOCK)
    assert all(re.match(r" *#", line) for line in rest.splitlines())


def test_every_pin_is_exact_and_has_well_formed_hashes() -> None:
    entries = list(ENTRY.finditer(LOCK))
    assert len(entries) >= len(WANTED)
    for entry in entries:
        specifiers = list(Requirement(entry["pin"]).specifier)
        assert [one.operator for one in specifiers] == ["=="]
        assert "*" not in specifiers[0].version
        assert all(HASH.fullmatch(line) for line in entry["rest"].splitlines())


def test_names_no_index() -> None:
    assert "://" not in LOCK
    assert not re.search(r"^\s*(-i|-f|--[a-z-]*index[a-z-]*|--find-links)\b", LOCK, re.M)


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("wanted", WANTED, ids=str)
def test_holds_what_the_project_asks_for(wanted: Requirement, python: str) -> None:
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    pins = [
        pin
        for pin in (Requirement(entry["pin"]) for entry in ENTRY.finditer(LOCK))
        if canonicalize_name(pin.name) == canonicalize_name(wanted.name)
        and (pin.marker is None or pin.marker.evaluate(environment))
    ]
    assert len(pins) == 1
    version = next(iter(pins[0].specifier)).version
    assert wanted.specifier.contains(version)


def test_supports_the_pythons_that_the_install_script_accepts() -> None:
    assert PROJECT["project"]["requires-python"] == ">=3.11,<3.14"
    assert (
        "(3, 11) <= sys.version_info[:2] <= (3, 13)" in (ROOT / "scripts" / "install").read_text()
    )
