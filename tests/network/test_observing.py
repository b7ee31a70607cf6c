"""An observer follows a network, answers readers, and has no say: whole nodes, real links."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qnet_actors.crypto import development_key, provider
from qnet_actors.gateway.queries import (
    AccountAnswer,
    AccountProofAnswer,
    AccountProofQuery,
    AccountQuery,
    BlockAnswer,
    BlockQuery,
    StatusAnswer,
    StatusQuery,
)
from qnet_actors.kernels.cache import warm
from qnet_actors.links import PeerKey, Roster
from qnet_actors.network.development import OBSERVER, VALIDATOR, development_genesis
from qnet_actors.network.directory import Endpoint
from qnet_actors.network.host import ValidatorHost
from qnet_actors.network.neighbours import Neighbours, Standing
from qnet_actors.network.settings import HostSettings, KeepSettings
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.genesis import Genesis, Parameters

pytestmark = pytest.mark.network

ADDRESS = b"\x01" * 32
KEEP = KeepSettings(snapshot_every_bytes=1, join_ahead_blocks=2)
LIBRARY = provider("auto")
KEYS = [development_key(VALIDATOR, index, provider=LIBRARY) for index in range(4)]
OWN = development_key(OBSERVER, 0, provider=LIBRARY)


async def until(host: ValidatorHost, holds: Callable[[], bool]) -> None:
    """Looks after each event of `host`; the test's own timeout ends it."""
    after = 0
    while not holds():
        after, _ = await host.poll(after, 1_000)


def an_observer(genesis: Genesis, directory: Path) -> ValidatorHost:
    settings = HostSettings(index=32, directory=directory, keep=KEEP, observer=True)
    return ValidatorHost(genesis, OWN, settings)


async def status_of(host: ValidatorHost) -> StatusAnswer:
    answer = await host.query(StatusQuery())
    assert isinstance(answer, StatusAnswer)
    return answer


async def balance(host: ValidatorHost) -> int:
    answer = await host.query(AccountQuery(ADDRESS))
    assert isinstance(answer, AccountAnswer)
    return answer.balance


async def test_an_observer_joins_follows_answers_and_goes_on(tmp_path: Path):
    warm()
    parameters = Parameters(round_idle_ms=60, gc_depth=8)
    genesis = development_genesis(KEYS, [ADDRESS], parameters=parameters)
    admitted = (PeerKey(OWN.scheme, OWN.public_key),)
    hosts = [
        ValidatorHost(
            genesis,
            KEYS[index],
            HostSettings(
                index=index,
                directory=tmp_path / f"validator-{index}",
                keep=KEEP,
                observers=admitted,
            ),
        )
        for index in range(4)
    ]
    first, observer = hosts[0], an_observer(genesis, tmp_path / "observer")
    started = [*hosts, observer]

    async def compare() -> None:
        """The observer has gone on, with the roots of the others."""
        seen = len(observer.state_roots())
        await until(observer, lambda: len(observer.state_roots()) >= seen + 2)
        roots = dict(observer.state_roots())
        await until(first, lambda: roots.keys() <= dict(first.state_roots()).keys())
        assert set(roots.items()) <= set(first.state_roots())

    try:
        endpoints: list[Endpoint] = [await host.start() for host in hosts]
        for host in hosts:
            host.connect(endpoints)
        await until(first, lambda: len(first.state_roots()) >= 5)
        await observer.start()
        observer.connect(endpoints)
        await compare()
        assert list((tmp_path / "observer" / "ledger").glob("base-*.duckdb"))

        status = await status_of(observer)
        assert status.index == 2**16 - 1
        assert (status.sync.phase, status.ready) == ("observing", True)
        height = observer.state_roots()[-1][0]
        block = await observer.query(BlockQuery(height, 0, 0))
        assert isinstance(block, BlockAnswer)
        assert block.header.height == height
        assert await balance(observer) == await balance(first) > 0
        proof = await observer.query(AccountProofQuery(ADDRESS, 0))
        assert isinstance(proof, AccountProofAnswer)
        with pytest.raises(QnetError) as refused:
            await observer.submit([b"x"])
        assert refused.value.code is Code.READ_ONLY

        await observer.stop()
        observer = an_observer(genesis, tmp_path / "observer")
        started.append(observer)
        await observer.start()
        assert (await status_of(observer)).height >= height
        await compare()
        assert [host.failure for host in hosts] == [None] * 4
        assert observer.failure is None
    finally:
        for host in started:
            await host.stop()


def outsider(roster: Roster) -> tuple[Neighbours, Standing, int]:
    """The neighbours of validator 0, and the number of the observer's key among them."""

    class NoLinks:
        up: tuple[int, ...] = ()

        def set_keys(self, keys: Iterable[PeerKey]) -> None:
            roster.set(keys)

        def set_peers(self, _: object) -> None:
            """Nobody is dialled."""

    links: Any = NoLinks()
    neighbours = Neighbours(roster, links, (PeerKey(OWN.scheme, OWN.public_key),))
    committee = development_genesis(KEYS, []).committee()
    peers = tuple(PeerKey(key.scheme, key.public_key) for key in KEYS)
    standing = Standing(committee, 0, peers)
    neighbours.begin(standing)
    number = roster.number_of(OWN.key_id)
    assert number is not None
    return neighbours, standing, number


def test_who_is_admitted_to_read_is_known_from_validators():
    peers = [PeerKey(key.scheme, key.public_key) for key in KEYS]
    roster = Roster(peers[0], peers)
    neighbours, standing, number = outsider(roster)
    assert neighbours.only_reads(number)
    assert neighbours.name(number) >= len(KEYS)
    assert not any(neighbours.only_reads(other) for other in roster.keys if other != number)
    own = PeerKey(OWN.scheme, OWN.public_key)
    neighbours.begin(replace(standing, keys=(*peers, own)))
    assert roster.number_of(OWN.key_id) == number
    assert not neighbours.only_reads(number), "it is registered now"
    neighbours.begin(standing)
    assert neighbours.only_reads(number)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_an_observer_on_ray_serves_readers_and_outlives_its_process():
    done = subprocess.run(
        [sys.executable, "-m", "tests.network.observing_network"],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["proved_nonce"] > 0
    del found["proved_nonce"]
    assert found == {
        "joined": True,
        "phase": "observing",
        "blocks_equal": True,
        "refused": "read_only",
        "started_anew": True,
        "went_on": True,
        "members": 4,
        "failures": [None] * 4,
    }


def test_an_observer_has_a_key_and_a_process_of_its_own(tmp_path: Path):
    genesis = development_genesis(KEYS, [])
    for key, split in ((KEYS[2], False), (OWN, True)):
        settings = HostSettings(index=32, directory=tmp_path, observer=True, split=split)
        with pytest.raises(QnetError) as refused:
            ValidatorHost(genesis, key, settings)
        assert refused.value.code is Code.CONFIGURATION_INVALID


def test_no_more_observers_than_the_bound(tmp_path: Path):
    genesis = development_genesis(KEYS, [])
    observers = (PeerKey(OWN.scheme, OWN.public_key),) * 17
    settings = HostSettings(index=0, directory=tmp_path, observers=observers)
    with pytest.raises(QnetError) as refused:
        ValidatorHost(genesis, KEYS[0], settings)
    assert refused.value.code is Code.CONFIGURATION_INVALID
