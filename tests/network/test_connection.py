"""The Ray that a network stands on."""

from __future__ import annotations

from typing import Any

import pytest
import ray

from qnet_actors.network.connection import start_ray
from qnet_actors.wire.codes import Code, QnetError


def test_a_ray_that_does_not_come_up_is_a_refusal_with_its_first_line(monkeypatch):
    def init(**_: Any) -> None:
        # What Ray raises when its own processes take too long.
        raise Exception("The current node timed out during startup.\nmore of it")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(QnetError) as refused:
        start_ray("test")
    assert refused.value.code == Code.NOT_READY
    assert refused.value.detail.endswith("timed out during startup.")
