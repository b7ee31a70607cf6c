"""A desk of a validator one of whose processes stands still."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from qnet_actors.crypto import development_key, provider
from qnet_actors.network.desk import Desk
from qnet_actors.network.development import VALIDATOR, development_genesis, development_keys
from qnet_actors.network.host import ValidatorHost
from qnet_actors.network.settings import HostSettings
from qnet_actors.wire.codes import Code, QnetError


def test_events_are_given_only_while_all_processes_answer() -> None:
    async def poll() -> None:
        desk = Desk(0)
        cursor, _ = await desk.poll(0, 1)
        desk.silent = True
        with pytest.raises(QnetError) as caught:
            await desk.poll(cursor, 1)
        assert caught.value.code == Code.NOT_READY
        desk.silent = False
        assert await desk.poll(cursor, 1) == (cursor, [])

    asyncio.run(poll())


def test_nothing_is_taken_while_a_process_does_not_answer(tmp_path: Path) -> None:
    genesis = development_genesis(development_keys(VALIDATOR, 1, provider("auto")), [])

    async def submit() -> None:
        settings = HostSettings(index=0, directory=tmp_path / "validator-0")
        host = ValidatorHost(genesis, development_key(VALIDATOR, 0), settings)
        await host.start()
        try:
            assert await host.submit([b"\x00"])
            host._desk.silent = True
            with pytest.raises(QnetError, match="does not answer") as caught:
                await host.submit([b"\x00"])
            assert caught.value.code == Code.NOT_READY
        finally:
            await host.stop()

    asyncio.run(submit())
