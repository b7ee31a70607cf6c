"""`qnet bench join`: an empty validator joins a ledger with many accounts, and is killed meanwhile.

Three validators hold the ledger, and serve it over links as they do in a network; the joiner is a
process of its own, so that it can be killed.  All of them are the rooms of the ledger alone.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from qnet_actors.crypto import BatchVerifier, KeyPair, Signer, development_key, provider
from qnet_actors.crypto.providers import Provider
from qnet_actors.experiments.join_chain import Grown, grow, join_genesis
from qnet_actors.kernels.cache import warm
from qnet_actors.ledger import DuckLog, LedgerCore, LogOptions, SnapshotSettings, recover
from qnet_actors.links import Links, PeerKey, Roster
from qnet_actors.network.development import VALIDATOR as VALIDATOR_ROLE
from qnet_actors.network.driver import Driver
from qnet_actors.network.node import LEDGER, MEMPOOL, VALIDATOR, Node, RoomKey
from qnet_actors.rooms import CatchUp, CaughtUp, Joined, JoinProgress, Room
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.genesis import GENESIS_CODEC, Genesis

Say = Callable[[str], None]
SERVERS: Final = 3
JOINER: Final = 3
HOST: Final = "127.0.0.1"
WAIT_SECONDS: Final = 300.0


class JoinOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How many accounts, and whether the joiner is killed when it has half of them."""

    accounts: int = 1_000_000
    kill: bool = True
    provider: Literal["auto", "openssl", "liboqs"] = "auto"


class JoinResult(msgspec.Struct, frozen=True):
    """What it took."""

    accounts: int
    height: int
    parts: int
    killed_at_parts: int
    """0: it was not killed."""
    resumed_with_parts: int
    """What the next life found on its disk."""
    join_seconds: float
    """From the request to a state that is proved and durable, over both lives; a process's start
    is left out."""
    restart_seconds: float
    """To recover from the disk afterwards."""
    wrong_roots: int

    @property
    def good(self) -> bool:
        return not self.wrong_roots


class _Told(msgspec.Struct, frozen=True):
    """What a joiner says over its pipe."""

    kind: Literal["port", "progress", "joined", "failed"]
    number: int = 0
    total: int = 0
    seconds: float = 0.0
    state_root: bytes = b""
    reason: str = ""


_TOLD: Final = msgspec.msgpack.Decoder(_Told)


def run_join_bench(options: JoinOptions, directory: Path, say: Say) -> JoinResult:
    """Raises `QnetError(NOT_READY)` where the joiner does not come to an end."""
    warm()
    library = provider(options.provider)
    keys = [development_key(VALIDATOR_ROLE, i, provider=library) for i in range(SERVERS + 1)]
    genesis = join_genesis(keys)
    # The servers' ledger is thrown away; what the joiner writes is flushed as on any network.
    log = DuckLog(directory / "served", genesis.chain_id(), LogOptions(fsync=False))
    try:
        say(f"paying {options.accounts} accounts")
        grown = grow(log, genesis, keys, library, options.accounts)
        log.flush()
        say(f"joining at block {grown.checkpoint.height}")
        return asyncio.run(_measure(options, directory, genesis, keys, library, log, grown, say))
    finally:
        log.close()


async def _measure(
    options: JoinOptions,
    directory: Path,
    genesis: Genesis,
    keys: list[KeyPair],
    library: Provider,
    log: DuckLog,
    grown: Grown,
    say: Say,
) -> JoinResult:
    # One state, which nobody changes, is enough for all that serve.
    recovered = await asyncio.to_thread(recover, log, genesis)
    servers: list[tuple[Driver, Links]] = []
    for index in range(SERVERS):
        core = LedgerCore(
            genesis=genesis,
            committee=genesis.committee(),
            verifier=BatchVerifier(library),
            recovered=recovered,
            log=log,
        )
        driver = Driver(Node({LEDGER: core}, [VALIDATOR, MEMPOOL]), {}, _ignore, say, _ignore_for)
        links = _links(index, genesis, keys[index], library, driver, _ignore)
        await links.start(HOST)
        driver.start(links)
        servers.append((driver, links))
    try:
        return await _join(options, directory, genesis, servers, grown, say)
    finally:
        for driver, links in servers:
            await links.close()
            await driver.close()


async def _join(
    options: JoinOptions,
    directory: Path,
    genesis: Genesis,
    servers: list[tuple[Driver, Links]],
    grown: Grown,
    say: Say,
) -> JoinResult:
    checkpoint = grown.checkpoint
    seconds, killed_at, resumed, parts = 0.0, 0, 0, 0
    for life in range(2 if options.kill else 1):
        joiner = _Joiner(directory / "joiner", genesis, options.provider, checkpoint.height)
        try:
            port = (await joiner.told("port")).number
            for _, links in servers:
                links.set_peers({JOINER: (HOST, port)})
            first = True
            while True:
                told = await joiner.told("progress", "joined")
                if told.kind == "joined":
                    break
                parts = told.total
                if first and life:
                    resumed = told.number
                first = False
                if not life and options.kill and 2 * told.number >= told.total:
                    killed_at = told.number
                    joiner.kill()
                    say(f"killed when it had {told.number} of {told.total} parts")
                    break
            seconds += told.seconds
        finally:
            joiner.end()
    wrong = int(told.state_root != checkpoint.state_root)
    say("starting it again")
    started = time.perf_counter()
    root = await asyncio.to_thread(_recovered_root, directory / "joiner", genesis)
    wrong += root != checkpoint.state_root
    return JoinResult(
        accounts=grown.accounts,
        height=checkpoint.height,
        parts=parts,
        killed_at_parts=killed_at,
        resumed_with_parts=resumed,
        join_seconds=round(seconds, 2),
        restart_seconds=round(time.perf_counter() - started, 2),
        wrong_roots=wrong,
    )


class _Joiner:
    """A joiner's process, and what it says."""

    def __init__(self, directory: Path, genesis: Genesis, provider_name: str, height: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_live,
            args=(directory, encode(genesis), provider_name, height, theirs),
            daemon=True,
        )
        self._process.start()
        theirs.close()

    async def told(self, *kinds: str) -> _Told:
        """The next word of these kinds."""
        while True:
            if not await asyncio.to_thread(self._pipe.poll, WAIT_SECONDS):
                raise QnetError(Code.NOT_READY, "the joiner says nothing any more")
            try:
                told = _TOLD.decode(await asyncio.to_thread(self._pipe.recv_bytes))
            except EOFError:
                raise QnetError(Code.NOT_READY, "the joiner ended by itself") from None
            if told.kind == "failed":
                raise QnetError(Code.NOT_READY, f"the joiner stopped: {told.reason}")
            if told.kind in kinds:
                return told

    def kill(self) -> None:
        self._process.kill()
        self._process.join()

    def end(self) -> None:
        self.kill()
        self._pipe.close()


def _live(
    directory: Path, genesis: bytes, provider_name: Any, height: int, pipe: Connection
) -> None:
    asyncio.run(_live_on(directory, GENESIS_CODEC.decode(genesis), provider_name, height, pipe))


async def _live_on(
    directory: Path, genesis: Genesis, provider_name: Any, height: int, pipe: Connection
) -> None:
    """Joins, says so, and waits to be killed."""
    warm()
    library = provider(provider_name)
    log = DuckLog(directory, genesis.chain_id())
    recovered = recover(log, genesis)
    core = LedgerCore(
        genesis=genesis,
        committee=genesis.committee(),
        verifier=BatchVerifier(library),
        recovered=recovered,
        log=log,
        # The blocks are large and few.
        snapshots=SnapshotSettings(ahead_blocks_min=1),
    )
    ended = asyncio.Event()
    ups: set[int] = set()
    started = 0.0

    def tell(told: _Told) -> None:
        pipe.send_bytes(encode(told))

    def on_event(event: Any) -> None:
        if isinstance(event, JoinProgress) and event.height:
            seconds = time.perf_counter() - started
            tell(_Told("progress", event.parts, event.parts_total, seconds))
        elif isinstance(event, Joined):
            seconds = time.perf_counter() - started
            tell(_Told("joined", event.record.header.height, 0, seconds, recovered.state.root()))

    def on_stop(reason: str) -> None:
        tell(_Told("failed", reason=reason))
        ended.set()

    def on_forward(key: RoomKey, event: Any) -> None:
        if isinstance(event, CaughtUp):
            ended.set()

    def on_up(peer: int) -> None:
        nonlocal started
        ups.add(peer)
        if len(ups) == SERVERS and not started:
            started = time.perf_counter()
            driver.handle(Room.LEDGER, CatchUp(tuple(range(SERVERS)), height))

    node = Node({LEDGER: core}, [VALIDATOR, MEMPOOL])
    driver = Driver(node, {LEDGER: log}, on_event, on_stop, on_forward)
    key = development_key(VALIDATOR_ROLE, JOINER, provider=library)
    links = _links(JOINER, genesis, key, library, driver, on_up)
    _, port = await links.start(HOST)
    driver.start(links)
    tell(_Told("port", port))
    await ended.wait()
    await links.close()
    await driver.close()


def _links(
    index: int,
    genesis: Genesis,
    key: KeyPair,
    library: Provider,
    driver: Driver,
    on_up: Callable[[int], None],
) -> Links:
    keys = [PeerKey(member.scheme, member.public_key) for member in genesis.members]
    return Links(
        Roster(keys[index], keys),
        genesis.chain_id(),
        Signer(key, library),
        BatchVerifier(library),
        driver.on_message,
        on_up,
    )


def _recovered_root(directory: Path, genesis: Genesis) -> bytes:
    log = DuckLog(directory, genesis.chain_id())
    try:
        return recover(log, genesis).state.root()
    finally:
        log.close()


def _ignore(_: Any) -> None:
    """Nobody waits for what a server has to say."""


def _ignore_for(_: RoomKey, __: Any) -> None:
    """Neither do rooms that are not there."""
