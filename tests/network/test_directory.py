from pathlib import Path

import msgspec
import pytest

from qnet_actors.network.directory import DataDirectory, Endpoint, set_ledger_aside
from qnet_actors.wire.codes import Code, QnetError

CHAIN = bytes(range(32))


def test_a_second_user_is_refused_until_the_first_closes(tmp_path: Path) -> None:
    first = DataDirectory(tmp_path / "v", CHAIN, 0)
    with pytest.raises(QnetError) as refused:
        DataDirectory(tmp_path / "v", CHAIN, 0)
    assert refused.value.code == Code.DATA_DIRECTORY_LOCKED
    first.close()
    DataDirectory(tmp_path / "v", CHAIN, 0).close()


def test_the_incarnation_rises_at_each_opening(tmp_path: Path) -> None:
    seen = []
    for _ in range(3):
        directory = DataDirectory(tmp_path, CHAIN, 2)
        seen.append(directory.incarnation)
        directory.close()
    assert seen == [1, 2, 3]


@pytest.mark.parametrize(("chain", "index"), [(bytes(32), 1), (CHAIN, 2)])
def test_the_directory_of_another_is_refused(tmp_path: Path, chain: bytes, index: int) -> None:
    DataDirectory(tmp_path, CHAIN, 1).close()
    with pytest.raises(QnetError) as refused:
        DataDirectory(tmp_path, chain, index)
    assert refused.value.code == Code.CONFIGURATION_INVALID
    DataDirectory(tmp_path, CHAIN, 1).close()


@pytest.mark.parametrize("fields", [[3, b"of another kind"], [3], [1, CHAIN, 1, 1]])
def test_another_format_is_refused_and_left_as_it_is(tmp_path: Path, fields: list[object]) -> None:
    identity = tmp_path / "identity"
    identity.write_bytes(msgspec.msgpack.encode(fields))
    before = identity.read_bytes()
    with pytest.raises(QnetError, match="start the release that wrote it") as refused:
        DataDirectory(tmp_path, CHAIN, 1)
    assert refused.value.code == Code.DATA_VERSION
    assert identity.read_bytes() == before


def test_endpoints_are_remembered(tmp_path: Path) -> None:
    endpoints = (Endpoint(b"a" * 32, "127.0.0.1", 4000), Endpoint(b"b" * 32, "127.0.0.1", 4001))
    directory = DataDirectory(tmp_path, CHAIN, 1)
    assert directory.endpoints() == ()
    directory.save_endpoints(endpoints)
    directory.close()
    again = DataDirectory(tmp_path, CHAIN, 1)
    assert again.endpoints() == endpoints
    again.close()


@pytest.mark.parametrize("name", ["identity", "addresses"])
def test_damaged_files_are_named(tmp_path: Path, name: str) -> None:
    directory = DataDirectory(tmp_path, CHAIN, 1)
    directory.save_endpoints((Endpoint(b"a" * 32, "127.0.0.1", 4000),))
    directory.close()
    (tmp_path / name).write_bytes(b"\x93junk")
    with pytest.raises(QnetError, match=name) as refused:
        DataDirectory(tmp_path, CHAIN, 1).endpoints()
    assert refused.value.code == Code.DATA_CORRUPT


def test_a_ledger_is_set_aside_while_the_validator_is_stopped(tmp_path: Path):
    with pytest.raises(QnetError) as caught:
        set_ledger_aside(tmp_path)
    assert caught.value.code is Code.NOT_FOUND
    held = DataDirectory(tmp_path, CHAIN, 2)
    for number in (1, 2):
        (tmp_path / "ledger").mkdir()
        (tmp_path / "ledger" / "blocks").write_bytes(bytes((number,)))
        with pytest.raises(QnetError) as caught:
            set_ledger_aside(tmp_path)
        assert caught.value.code is Code.DATA_DIRECTORY_LOCKED
        held.close()
        aside = set_ledger_aside(tmp_path)
        assert (aside / "blocks").read_bytes() == bytes((number,))
        held = DataDirectory(tmp_path, CHAIN, 2)
    held.close()
    with pytest.raises(QnetError, match="no ledger") as caught:
        set_ledger_aside(tmp_path)
    assert caught.value.code is Code.NOT_FOUND
