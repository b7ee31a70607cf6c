"""A disk that runs low: when it counts as low, and what a validator then takes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qnet_actors.crypto import development_key, provider
from qnet_actors.gateway.queries import StatusAnswer, StatusQuery
from qnet_actors.network.development import VALIDATOR, development_genesis
from qnet_actors.network.disk import DiskWatch
from qnet_actors.network.host import ValidatorHost
from qnet_actors.network.settings import HostSettings, KeepSettings
from qnet_actors.wire.codes import Code, QnetError

MIN = 1_000_000


class Disk:
    """What a file system says is free."""

    def __init__(self, free_bytes: int) -> None:
        self.free_bytes = free_bytes
        self.paths: list[Path] = []
        self.faults = 0
        """So many times more nothing is said."""

    def statvfs(self, path: Path) -> Any:
        self.paths.append(path)
        if self.faults:
            self.faults -= 1
            raise OSError("no answer")
        return SimpleNamespace(f_bavail=self.free_bytes // 100, f_frsize=100)


def test_low_begins_below_the_watermark_and_ends_well_above_it(tmp_path):
    disk = Disk(MIN)
    watch = DiskWatch(tmp_path, MIN, disk.statvfs)
    told = []
    for free_bytes in (MIN, MIN - 100, MIN, MIN * 5 // 4 - 100, MIN * 5 // 4, MIN, 0):
        disk.free_bytes = free_bytes
        told.append((watch.look(), watch.low))
    assert told == [
        (False, False),
        (True, True),
        (False, True),
        (False, True),
        (True, False),
        (False, False),
        (True, True),
    ]
    with pytest.raises(QnetError, match="MiB") as refused:
        watch.check()
    assert refused.value.code is Code.DISK_FULL
    assert disk.paths == [tmp_path] * 7


def test_without_a_watermark_it_is_not_looked(tmp_path):
    disk = Disk(0)
    watch = DiskWatch(tmp_path, 0, disk.statvfs)
    assert (watch.look(), watch.low, disk.paths) == (False, False, [])
    watch.check()


def test_the_real_file_system_is_understood(tmp_path):
    watch = DiskWatch(tmp_path, 2**62)
    assert watch.look()
    assert watch.low


async def test_a_validator_takes_no_work_while_its_disk_is_low(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("qnet_actors.network.host.LOOK_SECONDS", 0.01)
    key = development_key(VALIDATOR, 0, provider=provider("openssl"))
    disk = Disk(MIN - 100)
    settings = HostSettings(
        index=0,
        directory=tmp_path / "validator-0",
        provider="openssl",
        keep=KeepSettings(disk_free_bytes_min=MIN),
    )
    host = ValidatorHost(
        development_genesis([key], [b"\x01" * 32]), key, settings, statvfs=disk.statvfs
    )

    async def turned(low: bool) -> StatusAnswer:
        while True:
            status = await host.query(StatusQuery())
            assert isinstance(status, StatusAnswer)
            if status.disk_low == low:
                return status
            await asyncio.sleep(0)

    try:
        await host.start()
        async with asyncio.timeout(20):
            assert (await turned(True)).ready
            with pytest.raises(QnetError) as refused:
                await host.submit([b""])
            assert refused.value.code is Code.DISK_FULL
            disk.faults = 2
            disk.free_bytes = 2 * MIN
            await turned(False)
            assert caplog.text.count("no answer") == 1
            ((code, _, _),) = await host.submit([b""])
        assert code == Code.MALFORMED
        assert host.failure is None
    finally:
        await host.stop()
