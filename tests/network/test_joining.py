"""An empty validator joins a running network from a snapshot: whole nodes, real links."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from qnet_actors.crypto import development_key, provider
from qnet_actors.kernels.cache import warm
from qnet_actors.network.development import VALIDATOR, development_genesis
from qnet_actors.network.host import ValidatorHost
from qnet_actors.network.settings import HostSettings, KeepSettings
from qnet_actors.wire.genesis import Parameters

pytestmark = pytest.mark.network


async def until(host: ValidatorHost, holds: Callable[[], bool]) -> None:
    """Looks after each event of `host`; the test's own timeout ends it."""
    after = 0
    while not holds():
        after, _ = await host.poll(after, 1_000)


async def test_a_new_validator_joins_and_votes(tmp_path: Path):
    warm()
    library = provider("auto")
    keys = [development_key(VALIDATOR, index, provider=library) for index in range(4)]
    # Half of gc_depth is what a validator may be behind without taking over blocks.
    parameters = Parameters(round_idle_ms=60, gc_depth=8)
    genesis = development_genesis(keys, [b"\x01" * 32], parameters=parameters)
    hosts = [
        ValidatorHost(
            genesis,
            keys[index],
            HostSettings(
                index=index,
                directory=tmp_path / f"validator-{index}",
                keep=KeepSettings(snapshot_every_bytes=1, join_ahead_blocks=2),
            ),
        )
        for index in range(4)
    ]
    first, joiner = hosts[0], hosts[3]
    try:
        endpoints = [await host.start() for host in hosts[:3]]
        for host in hosts[:3]:
            host.connect(endpoints)
        await until(first, lambda: len(first.state_roots()) >= 5)
        endpoints.append(await joiner.start())
        for host in hosts:
            host.connect(endpoints)
        await until(joiner, lambda: len(joiner.state_roots()) >= 3)
        joined = joiner.state_roots()
        await until(first, lambda: {at for at, _ in joined} <= dict(first.state_roots()).keys())
        assert joined[0][0] > 1
        assert set(joined) <= set(first.state_roots())
        assert [host.failure for host in hosts] == [None] * 4
        assert (tmp_path / "validator-3" / "ledger").exists()
        assert list((tmp_path / "validator-3" / "ledger").glob("base-*.duckdb"))
    finally:
        for host in hosts:
            await host.stop()
