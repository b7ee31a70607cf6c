"""Journals of other formats: those in `data/` were written by the builds of then."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from qnet_actors.validators.journal import FileJournal, frame
from qnet_actors.validators.journal_entries import JOURNAL_VERSION
from qnet_actors.validators.recovery import first_snapshot
from qnet_actors.wire.codes import Code, QnetError
from tests.validators.support import make_genesis

GENESIS = make_genesis()
SNAPSHOT = first_snapshot(GENESIS, GENESIS.committee(), 2)
OLD = sorted((Path(__file__).parent / "data").glob("journal-2-*.seg"))


def refused_and_left(directory: Path, data: bytes, version: int) -> bool:
    segment = directory / "journal-0000000001.seg"
    segment.write_bytes(data)
    with pytest.raises(QnetError, match=f"has format {version}, .* start the release") as refused:
        FileJournal(directory)
    assert refused.value.code == Code.DATA_VERSION
    return list(directory.iterdir()) == [segment] and segment.read_bytes() == data


def test_there_are_journals_of_both_old_layouts() -> None:
    assert [path.stem for path in OLD] == ["journal-2-early", "journal-2-late"]


@pytest.mark.parametrize("path", OLD, ids=lambda path: path.stem)
def test_a_journal_of_an_older_build_is_named_as_such(path: Path, tmp_path: Path) -> None:
    assert refused_and_left(tmp_path, path.read_bytes(), 2)


@pytest.mark.parametrize("version", [0, JOURNAL_VERSION - 1, JOURNAL_VERSION + 1])
def test_another_version_is_refused_and_left_as_it_is(tmp_path: Path, version: int) -> None:
    data = frame([msgspec.structs.replace(SNAPSHOT, version=version)])
    assert refused_and_left(tmp_path, data, version)


def test_a_newer_one_is_named_whatever_its_snapshots_hold(tmp_path: Path) -> None:
    # A snapshot with a field more than this program knows of.
    (fields,) = msgspec.msgpack.decode(frame([SNAPSHOT])[16:])
    fields[1] = JOURNAL_VERSION + 1
    raw = msgspec.Raw(msgspec.msgpack.encode([*fields, "more"]))
    assert refused_and_left(tmp_path, frame([raw]), JOURNAL_VERSION + 1)  # type: ignore[list-item]
