"""What a driver does about threads that fail."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from qnet_actors.network.driver import Driver
from qnet_actors.network.node import VALIDATOR, Node
from qnet_actors.rooms import Effect, Persist, Run


class Once:
    """A room that gives out one effect."""

    def __init__(self, effect: Effect) -> None:
        self._effects: list[Effect] = [effect]

    def handle(self, event: Any, now_ms: int) -> Sequence[Effect]:
        return []

    def tick(self, now_ms: int) -> Sequence[Effect]:
        effects, self._effects = self._effects, []
        return effects

    def wake_ms(self) -> int | None:
        return None


class Full:
    """A storage on a full disk, which says so once it may."""

    def __init__(self) -> None:
        self.may = threading.Event()

    def write(self, writes: Sequence[Any]) -> None:
        self.may.wait()
        raise OSError("the disk is full")

    def close(self) -> None:
        self.may.set()


class Alone:
    def send(self, peer: int, message: Any) -> None: ...

    def broadcast(self, message: Any) -> None: ...


@pytest.mark.parametrize("writes", [True, False])
async def test_only_what_is_not_written_counts_once_it_closes(
    writes: bool, caplog: pytest.LogCaptureFixture
):
    disk, reasons = Full(), list[str]()

    def job() -> None:
        disk.may.wait()
        raise OSError("the disk is full")

    effect: Effect = Persist(("entry",)) if writes else Run(job, lambda _, now_ms: [])
    driver = Driver(
        Node({VALIDATOR: Once(effect)}), {VALIDATOR: disk}, lambda event: None, reasons.append
    )
    driver.start(Alone())
    closing = asyncio.create_task(driver.close())
    await asyncio.sleep(0)
    disk.may.set()
    await closing
    assert reasons == (["OSError: the disk is full"] if writes else [])
    assert driver.unwritten == (reasons[0] if writes else None)
    assert "a job of the node failed" in caplog.text
