"""What the demonstration sends at a time."""

from __future__ import annotations

from typing import Any

import pytest

from qnet_actors.experiments.demonstration import Demonstration
from qnet_actors.wire.limits import SUBMISSION_TRANSACTIONS_MAX


async def test_what_is_due_after_a_pause_goes_in_parts(monkeypatch: pytest.MonkeyPatch):
    sent: list[int] = []

    async def send(self: Demonstration, client: Any, count: int) -> None:
        sent.append(count)

    monkeypatch.setattr(Demonstration, "_send", send)
    count = SUBMISSION_TRANSACTIONS_MAX + 500

    # At this rate all of it is due at once, as when the machine slept for a while.
    await Demonstration("http://nowhere", [])._send_at_rate(None, count, 1e6)  # type: ignore[arg-type]

    assert sum(sent) == count
    assert max(sent) == SUBMISSION_TRANSACTIONS_MAX
