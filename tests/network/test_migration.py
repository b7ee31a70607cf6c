"""A data directory of an earlier format: it is taken over whole or not at all, whenever killed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import msgspec
import pytest

from qnet_actors import durable
from qnet_actors.network import directory, migration
from qnet_actors.network.directory import DataDirectory
from qnet_actors.wire.codes import Code, QnetError

CHAIN = bytes(32)
OLD = directory.FORMAT_VERSION
ENTRIES = {"journal/a": b"old a", "journal/b": b"old b", "shards": b"old shards", "kept": b"same"}


class Killed(BaseException):
    """The process is gone."""


def step(old: Path, fresh: Path) -> None:
    """Upper-case, with a directory that changes, a file that does, and one that is new."""
    (fresh / "journal").mkdir()
    for name in ("journal/a", "journal/b", "shards"):
        (fresh / name).write_bytes((old / name).read_bytes().upper())
    (fresh / "added").write_bytes(b"new")


def again(old: Path, fresh: Path) -> None:
    """The step after it."""
    (fresh / "shards").write_bytes((old / "shards").read_bytes() + b"!")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    DataDirectory(tmp_path, CHAIN, 0).close()
    (tmp_path / "journal").mkdir()
    for name, content in ENTRIES.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.fixture
def later(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migration, "STEPS", {OLD: step, OLD + 1: again})
    monkeypatch.setattr(directory, "FORMAT_VERSION", OLD + 2)


def contents(path: Path) -> dict[str, bytes]:
    """All files but those that say who uses the directory."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file() and file.name not in ("lock", "identity")
    }


def version(path: Path) -> int:
    found: int = msgspec.msgpack.decode((path / "identity").read_bytes())[0]
    return found


NEW = {
    "journal/a": b"OLD A",
    "journal/b": b"OLD B",
    "shards": b"OLD SHARDS!",
    "added": b"new",
    "kept": b"same",
}


@pytest.mark.usefixtures("later")
def test_all_steps_are_taken_and_nothing_is_left_behind(old: Path) -> None:
    opened = DataDirectory(old, CHAIN, 0)
    assert (contents(old), version(old), opened.incarnation) == (NEW, OLD + 2, 2)
    opened.close()
    DataDirectory(old, CHAIN, 0).close()
    assert contents(old) == NEW
    assert {path.name for path in old.iterdir() if path.is_dir()} == {"journal"}


def kills(at: int) -> Iterator[mock._patch[object]]:
    """Patches under which the process is gone at its `at`-th change of a name or flush."""
    left = iter(range(at))

    def before(real: object) -> object:
        def call(*arguments: object, **named: object) -> object:
            if next(left, None) is None:
                raise Killed
            return real(*arguments, **named)  # type: ignore[operator]

        return call

    for owner, name in (
        (Path, "rename"),
        (Path, "replace"),
        (Path, "rmdir"),
        (Path, "mkdir"),
        (shutil, "rmtree"),
        (durable, "sync"),
    ):
        yield mock.patch.object(owner, name, before(getattr(owner, name)))


@pytest.mark.parametrize("at", range(40))
def test_a_kill_anywhere_leaves_the_old_data_or_the_new(old: Path, at: int) -> None:
    with (
        mock.patch.object(migration, "STEPS", {OLD: step, OLD + 1: again}),
        mock.patch.object(directory, "FORMAT_VERSION", OLD + 2),
    ):
        patches = list(kills(at))
        try:
            for patch in patches:
                patch.start()
            DataDirectory(old, CHAIN, 0).close()
        except Killed:
            pass
        finally:
            mock.patch.stopall()
    if version(old) == OLD:
        # The release before reads it as if nothing had been.
        DataDirectory(old, CHAIN, 0).close()
        found = contents(old)
        assert {name: found[name] for name in ENTRIES} == ENTRIES
    with (
        mock.patch.object(migration, "STEPS", {OLD: step, OLD + 1: again}),
        mock.patch.object(directory, "FORMAT_VERSION", OLD + 2),
    ):
        DataDirectory(old, CHAIN, 0).close()
    assert (contents(old), version(old)) == (NEW, OLD + 2)
    assert not [path for path in old.iterdir() if path.name.startswith(("format", "replaced"))]


def test_a_format_without_steps_is_refused_and_left_as_it_is(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "FORMAT_VERSION", OLD + 2)
    monkeypatch.setattr(migration, "STEPS", {OLD + 1: again})
    before = (old / "identity").read_bytes()
    with pytest.raises(QnetError, match="start the release that wrote it") as caught:
        DataDirectory(old, CHAIN, 0)
    assert caught.value.code is Code.DATA_VERSION
    assert ((old / "identity").read_bytes(), contents(old)) == (before, ENTRIES)


@pytest.mark.usefixtures("later")
def test_the_directory_of_another_is_not_migrated(old: Path) -> None:
    with pytest.raises(QnetError) as caught:
        DataDirectory(old, CHAIN, 1)
    assert caught.value.code is Code.CONFIGURATION_INVALID
    assert (contents(old), version(old)) == (ENTRIES, OLD)
