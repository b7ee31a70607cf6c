"""What a split validator tells those who wait, without its processes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from qnet_actors.network.desk import Desk
from qnet_actors.network.settings import HostSettings
from qnet_actors.network.split.rooms import SplitRooms
from qnet_actors.wire.codes import Code, QnetError
from tests.ledger.chain import chain_genesis


class FailedDriver:
    """Closes as one whose last write failed."""

    unwritten = "OSError: no space left"

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def close(self) -> None:
        await asyncio.sleep(0)
        self._desk.end(self.unwritten)


async def test_who_waits_for_an_epoch_that_does_not_begin_is_told():
    desk = Desk(0)
    rooms = SplitRooms(
        chain_genesis(), HostSettings(index=0, directory=Path("data")), desk, desk.end, print
    )
    parts = cast(Any, rooms)
    parts._driver, parts._peers = FailedDriver(desk), SimpleNamespace(up=())
    parts._crypto = (None, None)
    waiting = asyncio.create_task(rooms.submit([b""]))
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await parts._renew()
        with pytest.raises(QnetError, match="no space left") as refused:
            await waiting
    assert refused.value.code is Code.NOT_READY
