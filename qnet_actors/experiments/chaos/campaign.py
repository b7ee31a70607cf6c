"""A campaign: a network under load, one fault after the other, and what it came to."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from qnet_actors.crypto import Signer, provider
from qnet_actors.experiments.chaos.clients import Clients
from qnet_actors.experiments.chaos.faults import Fault, Injury, Site, faults_of
from qnet_actors.experiments.chaos.ledgers import Ledgers
from qnet_actors.gateway.queries import StatusAnswer
from qnet_actors.kernels.cache import warm
from qnet_actors.network.development import (
    ACCOUNT,
    VALIDATOR,
    development_genesis,
    development_keys,
)
from qnet_actors.network.launch import Network, agreed_root
from qnet_actors.network.settings import LOOPBACK, NetworkSettings, Profile, check_shape
from qnet_actors.wire.codes import Code, QnetError

SERVICE_TIMEOUT_SECONDS: Final = 60.0
RECOVERY_TIMEOUT_SECONDS: Final = 60.0
EXECUTION_TIMEOUT_SECONDS: Final = 30.0
HEAL_AFTER_SECONDS: Final = 20.0
"""What a dead validator had batched waits for it, and so does what its sender sends after that: a
client may be served again only with the fault undone."""
POLL_SECONDS: Final = 0.25
REREAD_BLOCKS: Final = 64
"""Of who was hurt, after each fault: more than a cut or a death can take from a block log."""
CALM_SECONDS: Final = (1.0, 3.0)
"""Of undisturbed load before a fault: at least, at most."""

Say = Callable[[str], None]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    seconds: float = 60.0
    """After this no more faults are injected."""
    seed: int = 1
    kinds: tuple[str, ...] = ()
    """Of faults; none: all that the profile knows."""
    profile: Profile = "packed"
    shards: int = 1
    """Of a split validator, as partitions and executors."""
    partitions: int = 1
    executors: int = 1
    validators: int = 4
    gateways: int = 2
    clients: int = 24
    rate: float = 60.0
    """Transactions a second of all clients together."""


class Outcome(msgspec.Struct):
    """What one kind of fault came to."""

    injected: int = 0
    acknowledged_before: int = 0
    """When it was injected last."""
    lost: int = 0
    seconds_to_service_max: float = 0.0
    """Until every client had an acknowledgement of what it first offered after the fault."""
    seconds_to_first_service_max: float = 0.0
    """Until one client had."""
    seconds_to_recovery_max: float = 0.0
    """Until every validator was ready and had caught up."""


class Result(msgspec.Struct, kw_only=True):
    seed: int
    faults: dict[str, Outcome]
    acknowledged: int
    """Transactions of which a gateway said that they are batched, executed or final."""
    lost: int
    """Of these, not executed exactly once on every validator."""
    roots_equal: bool
    seconds_to_service_max: float
    refusals: dict[str, int]
    """Answers that were no acknowledgement; the clients tried again."""
    height: int

    @property
    def good(self) -> bool:
        return self.roots_equal and not self.lost


def plan(kinds: Sequence[str], seed: int) -> Iterator[str]:
    """Kinds of faults without end: each once in an order that the seed gives, then again."""
    order = random.Random(f"plan {seed}")
    while True:
        yield from order.sample(kinds, len(kinds))


def run_chaos(options: Options, directory: Path, say: Say) -> Result:
    """Runs a campaign on a fresh network in `directory`.

    Raises `QnetError`: DIVERGED where ledgers differ, WAIT_TIMEOUT where service or a validator
    does not come back, and what a fault led to that it must not.
    """
    settings = NetworkSettings(
        directory=directory,
        validators=options.validators,
        gateways=options.gateways,
        profile=options.profile,
        shards=options.shards,
        partitions=options.partitions,
        executors=options.executors,
        # However small the blocks of a campaign are, executors take part in them.
        executor_rows_min=1,
    )
    check_shape(settings)
    faults = faults_of(settings)
    if set(options.kinds) - set(faults):
        raise QnetError(Code.INVALID_PARAMETER, f"faults are {', '.join(faults)}")
    if not options.kinds:
        options = msgspec.structs.replace(options, kinds=tuple(faults))
    warm()
    # Looked for as late as may be: loading kernels takes long enough for others to take a port.
    settings = msgspec.structs.replace(settings, gateway_port=_free_ports(options.gateways))
    library = provider("auto")
    accounts = development_keys(ACCOUNT, options.clients, library)
    genesis = development_genesis(
        development_keys(VALIDATOR, options.validators, library),
        [key.key_id for key in accounts],
        name="chaos",
    )
    with Network(genesis, settings, say) as network:
        clients = Clients(
            network.gateway_urls,
            genesis.chain_id(),
            [Signer(key, library) for key in accounts],
            options.rate,
        )
        return asyncio.run(_Campaign(network, clients, options, faults, say).run())


class _Campaign:
    def __init__(
        self,
        network: Network,
        clients: Clients,
        options: Options,
        faults: Mapping[str, Fault],
        say: Say,
    ) -> None:
        self._network = network
        self._clients = clients
        self._options = options
        self._faults = faults
        self._say = say
        self._ledgers = Ledgers(network)
        self._random = random.Random(f"campaign {options.seed}")
        self._outcomes: dict[str, Outcome] = {}
        self._roots_equal = True

    async def run(self) -> Result:
        clients, options = self._clients, self._options
        clients.start()
        begun = time.monotonic()
        await self._served(begun, "the first transactions")
        for kind in plan(options.kinds, options.seed):
            if self._outcomes and time.monotonic() >= begun + options.seconds:
                break
            await self._strike(kind)
        unanswered = await clients.stop(SERVICE_TIMEOUT_SECONDS)
        if unanswered:
            raise QnetError(Code.WAIT_TIMEOUT, f"{unanswered} transactions are never answered")
        self._say("reading all ledgers from their first block")
        for index in range(options.validators):
            self._ledgers.forget(index)
        lost = await self._lost()
        height = max(s.height for s in await self._statuses() if s is not None)
        return Result(
            seed=options.seed,
            faults=self._outcomes,
            acknowledged=len(clients.record.acknowledged),
            lost=lost,
            roots_equal=self._roots_equal,
            seconds_to_service_max=max(o.seconds_to_service_max for o in self._outcomes.values()),
            refusals=clients.record.refusals,
            height=height,
        )

    async def _strike(self, kind: str) -> None:
        outcome = self._outcomes.setdefault(kind, Outcome())
        await asyncio.sleep(self._random.uniform(*CALM_SECONDS))
        processes = await asyncio.to_thread(self._network.process_ids)
        processes |= await asyncio.to_thread(self._network.room_process_ids)
        site = Site(self._network, processes, self._random)
        acknowledged = list(self._clients.record.acknowledged)
        outcome.injected += 1
        outcome.acknowledged_before = len(acknowledged)
        begun = time.monotonic()
        injury = await self._faults[kind](site)
        self._say(f"{kind}: {injury.what} ({len(acknowledged)} acknowledged before)")
        served = await self._clients.served(begun, HEAL_AFTER_SECONDS)
        await injury.heal()
        first, every = served or await self._served(begun, kind)
        recovered = await self._recovered(injury, begun)
        for index in injury.validators:
            # All of it is read anew at the end, without load: under load a block takes 0.1 s.
            self._ledgers.forget(index, REREAD_BLOCKS)
        lost = await self._lost(acknowledged)
        roots_equal = await self._agreed()
        outcome.lost += lost
        outcome.seconds_to_service_max = max(outcome.seconds_to_service_max, every)
        outcome.seconds_to_first_service_max = max(outcome.seconds_to_first_service_max, first)
        outcome.seconds_to_recovery_max = max(outcome.seconds_to_recovery_max, recovered)
        self._roots_equal &= roots_equal
        for line in self._clients.record.slow:
            self._say(f"{kind}: {line}")
        self._clients.record.slow.clear()
        self._say(
            f"{kind}: service after {first:.2f} s, for all after {every:.2f} s, whole after "
            f"{recovered:.1f} s, {lost} lost, roots {'equal' if roots_equal else 'DIFFERENT'}"
        )

    async def _served(self, since: float, what: str) -> tuple[float, float]:
        elapsed = time.monotonic() - since
        served = await self._clients.served(since, elapsed + SERVICE_TIMEOUT_SECONDS)
        if served is None:
            raise QnetError(
                Code.WAIT_TIMEOUT, f"no service after {what}; {await self._situation()}"
            )
        return served

    async def _recovered(self, injury: Injury, begun: float) -> float:
        """Seconds until every validator is ready and as far as the others were at the beginning."""
        give_up = time.monotonic() + RECOVERY_TIMEOUT_SECONDS
        height = None
        while time.monotonic() < give_up:
            statuses = await self._statuses()
            heights = [status.height for status in statuses if status is not None and status.ready]
            if height is None and heights:
                height = max(heights)
            if len(heights) == len(statuses) and height is not None and min(heights) >= height:
                return round(time.monotonic() - begun, 2)
            await asyncio.sleep(POLL_SECONDS)
        raise QnetError(
            Code.WAIT_TIMEOUT,
            f"validators {injury.validators} do not come back; {await self._situation()}",
        )

    async def _situation(self) -> str:
        """What is to be known where the network does not come back."""
        parts = []
        for index, status in enumerate(await self._statuses()):
            if status is None:
                reason = await asyncio.to_thread(self._network.failure, index)
                parts.append(f"validator {index} does not answer ({reason})")
                continue
            ready = "ready" if status.ready else "not ready"
            parts.append(
                f"validator {index} is {ready}: round {status.round}, commit "
                f"{status.commit_index}, height {status.height}, {status.pool_transactions} pooled"
            )
        return "; ".join([*parts, f"refusals {self._clients.record.refusals}"])

    async def _lost(self, ids: Sequence[bytes] | None = None) -> int:
        """How many acknowledged transactions some validator has not executed in time."""
        wanted = list(self._clients.record.acknowledged) if ids is None else ids
        give_up = time.monotonic() + EXECUTION_TIMEOUT_SECONDS
        while True:
            await asyncio.to_thread(self._ledgers.update)
            missing = self._ledgers.missing(wanted)
            if not missing or time.monotonic() > give_up:
                break
            await asyncio.sleep(POLL_SECONDS)
        for id_, validators in list(missing.items())[:5]:
            told = self._clients.record.acknowledged[id_]
            self._say(f"LOST: {id_.hex()}, which was {told}, on validators {validators}")
        return len(missing)

    async def _agreed(self) -> bool:
        heights = [status.height for status in await self._statuses() if status is not None]
        _, root = await asyncio.to_thread(agreed_root, self._network, max(heights))
        return root is not None

    async def _statuses(self) -> list[StatusAnswer | None]:
        return await asyncio.to_thread(self._network.statuses)


def _free_ports(count: int) -> int:
    """The first of some free ports in a row.

    A gateway that is started again must listen where it did, so a free port of each start's own
    choice would not do.
    """
    for _ in range(100):
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
            first = int(probe.getsockname()[1])
        if first + count > 65_535:
            continue
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind((LOOPBACK, port))
        except OSError:
            continue
        return first
    raise QnetError(Code.PORT_IN_USE, f"no {count} free ports in a row")
