"""The transfers that `qnet dev` keeps coming."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from qnet_actors.experiments import local
from qnet_actors.experiments.local import LocalNetwork
from qnet_actors.wire.codes import Code, QnetError


async def test_a_request_that_fails_does_not_end_the_network(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(local, "SEND_AGAIN_SECONDS", 0)
    said: list[str] = []

    class Demonstration:
        runs = 0

        async def run(self, *_: Any) -> None:
            self.runs += 1
            if self.runs < 3:
                raise QnetError(Code.NODE_UNREACHABLE, "no answer")
            raise asyncio.CancelledError

    made = LocalNetwork.__new__(LocalNetwork)
    made._say = said.append
    with pytest.raises(asyncio.CancelledError):
        await made._keep_sending(Demonstration())  # type: ignore[arg-type]
    assert said == ["node_unreachable: no answer"] * 2
