"""A validator whose data directory was damaged says so with a code, or goes on."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from qnet_actors.crypto import provider
from qnet_actors.network.development import VALIDATOR, development_genesis, development_keys
from qnet_actors.network.host import ValidatorHost
from qnet_actors.network.settings import HostSettings
from qnet_actors.wire.codes import Code, QnetError

NAMED = {Code.DATA_CORRUPT, Code.DATA_VERSION, Code.CONFIGURATION_INVALID}


def host(directory: Path) -> ValidatorHost:
    keys = development_keys(VALIDATOR, 1, provider("auto"))
    genesis = development_genesis(keys, [keys[0].key_id])
    return ValidatorHost(genesis, keys[0], HostSettings(index=0, directory=directory))


async def started(directory: Path) -> None:
    made = host(directory)
    try:
        async with asyncio.timeout(60):
            await made.start()
    finally:
        await made.stop()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of a validator that was started and stopped."""
    directory = tmp_path_factory.mktemp("validator") / "data"
    asyncio.run(started(directory))
    return directory


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def directory_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent / "nowhere" / "at all")


@pytest.mark.parametrize(
    ("hurt", "refuses"),
    [
        # A journal without its end is one whose last write was cut off, and is gone on with.
        (cut, {"identity", "ledger"}),
        (zeroed, {"identity", "journal", "ledger"}),
        (directory_instead, {"identity", "journal", "ledger"}),
        (dangling, {"journal", "ledger"}),
    ],
)
def test_damage_of_any_file_has_a_code(
    whole: Path, tmp_path: Path, hurt: Callable[[Path], None], refuses: set[str]
) -> None:
    files = [path.relative_to(whole) for path in whole.rglob("*") if path.is_file()]
    assert {file.parts[0] for file in files} >= {"batches", "identity", "journal", "ledger", "lock"}
    refused: dict[Path, QnetError] = {}
    for number, file in enumerate(files):
        copy = tmp_path / str(number)
        shutil.copytree(whole, copy)
        hurt(copy / file)
        try:
            asyncio.run(started(copy))
        except QnetError as error:
            refused[file] = error
    assert {file.parts[0] for file in refused} >= refuses
    for file, told in refused.items():
        assert told.code in NAMED
        assert file.stem in told.detail


async def test_a_directory_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for directory in (tmp_path / "file", tmp_path / "file" / "below", Path("/dev/null/below")):
        with pytest.raises(QnetError) as refused:
            await started(directory)
        assert refused.value.code == Code.CONFIGURATION_INVALID
        assert str(directory) in refused.value.detail


async def test_what_was_opened_is_closed_where_the_rest_does_not_open(
    whole: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(whole, copy)
    journal = next((copy / "journal").iterdir())
    sound = journal.read_bytes()
    zeroed(journal)
    with pytest.raises(QnetError):
        await started(copy)
    journal.write_bytes(sound)
    await started(copy)
