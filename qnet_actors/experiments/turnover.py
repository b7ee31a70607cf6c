"""`qnet bench turnover`: validators join a network under load and leave it again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Final

import msgspec

from qnet_actors.client import AsyncClient
from qnet_actors.crypto import Signer, provider
from qnet_actors.experiments.bench import ProviderName, Say
from qnet_actors.experiments.chaos.clients import Clients
from qnet_actors.experiments.chaos.ledgers import Ledgers
from qnet_actors.gateway.queries import BlockAnswer, BlockQuery, ValidatorsAnswer, ValidatorsQuery
from qnet_actors.kernels.cache import warm
from qnet_actors.network.development import (
    ACCOUNT,
    STAKE,
    VALIDATOR,
    development_genesis,
    development_keys,
)
from qnet_actors.network.launch import Network, agreed_root
from qnet_actors.network.settings import NetworkSettings, Profile
from qnet_actors.wire.blocks import BlockHeader
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.genesis import Parameters
from qnet_actors.wire.transactions import Unstake, register_validator

CHANGE_TIMEOUT_SECONDS: Final = 120.0
ANSWER_TIMEOUT_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.25
CLIENTS: Final = 8
EPOCH_COMMITS_MIN: Final = 64
COMMIT_LAG: Final = 16
"""Short epochs: a committee takes part some seconds after its members registered."""
HEADERS_AT_ONCE: Final = 64


class TurnoverOptions(msgspec.Struct, frozen=True, kw_only=True):
    validators: Annotated[int, msgspec.Meta(ge=1)] = 4
    joiners: Annotated[int, msgspec.Meta(ge=1)] = 3
    seconds: float = 10.0
    """Of load before anything changes, with all joiners in the committee, and at the end."""
    rate: float = 40.0
    """Transactions a second of all clients together."""
    provider: ProviderName = "auto"
    profile: Profile = "packed"


class TurnoverResult(msgspec.Struct, frozen=True, kw_only=True):
    committee_sizes: list[int]
    """Of one epoch after the other."""
    acknowledged: int
    """Transactions of which the gateway said that they are batched, executed or final."""
    lost: int
    """Of these, not executed exactly once by every validator that stayed."""
    roots_equal: bool
    """Those of all validators, of who has left up to where it went."""
    longest_gap_ms: int
    """Between two blocks, by their timestamps."""
    usual_gap_ms: int
    """The median of them."""
    slowest_acknowledgement_seconds: float
    """The longest time from a transaction's first offer to its acknowledgement."""
    height: int
    refusals: dict[str, int]
    """Answers that were no acknowledgement; the clients tried again."""

    @property
    def good(self) -> bool:
        """Whether the committee grew and shrank, and nothing was lost."""
        first, last, largest = (
            self.committee_sizes[0],
            self.committee_sizes[-1],
            max(self.committee_sizes),
        )
        return self.roots_equal and not self.lost and first == last < largest


def run_turnover(options: TurnoverOptions, directory: Path, say: Say) -> TurnoverResult:
    """Raises `QnetError`: DIVERGED where ledgers differ, WAIT_TIMEOUT where a change or an
    acknowledgement does not come."""
    warm()
    library = provider(options.provider)
    accounts = development_keys(ACCOUNT, CLIENTS + options.joiners, library)
    keys = development_keys(VALIDATOR, options.validators + options.joiners, library)
    genesis = development_genesis(
        keys[: options.validators],
        [key.key_id for key in accounts],
        name="turnover",
        parameters=Parameters(epoch_commits_min=EPOCH_COMMITS_MIN, commit_lag=COMMIT_LAG),
    )
    settings = NetworkSettings(
        directory=directory,
        validators=options.validators,
        joiners=options.joiners,
        provider=options.provider,
        profile=options.profile,
        gateway_port=0,
    )
    signers = [Signer(key, library) for key in accounts]
    with Network(genesis, settings, say) as network:
        clients = Clients(network.gateway_urls, genesis.chain_id(), signers[:CLIENTS], options.rate)
        validators = [Signer(key, library) for key in keys[options.validators :]]
        joiners = list(zip(signers[CLIENTS:], validators, strict=True))
        return asyncio.run(_Turnover(network, clients, joiners, options, say).run())


class _Turnover:
    def __init__(
        self,
        network: Network,
        clients: Clients,
        joiners: Sequence[tuple[Signer, Signer]],
        options: TurnoverOptions,
        say: Say,
    ) -> None:
        self._network = network
        self._clients = clients
        self._joiners = joiners
        self._options = options
        self._say = say
        self._sizes: dict[int, int] = {}
        """Epoch -> the size of its committee."""

    async def run(self) -> TurnoverResult:
        options, count = self._options, self._options.validators
        self._clients.start()
        await self._committee(range(count), count)
        await asyncio.sleep(options.seconds)
        for _ in self._joiners:
            index = await asyncio.to_thread(self._network.add_validator)
            self._say(f"validator {index} runs, and is not registered")
        everybody = range(count + len(self._joiners))
        chain_id = self._network.genesis.chain_id()
        begun = time.monotonic()
        async with AsyncClient(self._network.gateway_urls[0]) as client:
            for owner, key in self._joiners:
                action = register_validator(key, chain_id, owner.key_id, STAKE)
                await client.send(owner, action, wait="executed", timeout_ms=30_000)
            self._say(f"{len(self._joiners)} are registered, {time.monotonic() - begun:.1f} s")
            await self._committee(everybody, len(everybody))
            self._say(f"all are of one committee, {time.monotonic() - begun:.1f} s")
            await asyncio.sleep(options.seconds)
            begun = time.monotonic()
            for owner, _ in self._joiners:
                await client.send(owner, Unstake(STAKE), wait="executed", timeout_ms=30_000)
            await self._committee(everybody, count)
            self._say(f"they have left it again, {time.monotonic() - begun:.1f} s")
        await asyncio.sleep(options.seconds)
        return await self._account()

    async def _account(self) -> TurnoverResult:
        unanswered = await self._clients.stop(ANSWER_TIMEOUT_SECONDS)
        if unanswered:
            raise QnetError(Code.WAIT_TIMEOUT, f"{unanswered} transactions are never answered")
        record = self._clients.record
        network = self._network
        statuses = await asyncio.to_thread(network.statuses)
        height = max(status.height for status in statuses if status is not None)
        _, root = await asyncio.to_thread(agreed_root, network, height)
        ledgers = Ledgers(network)
        await asyncio.to_thread(ledgers.update)
        lost = ledgers.missing(list(record.acknowledged))
        gaps = sorted(await asyncio.to_thread(lambda: list(self._gaps_ms(height))))
        return TurnoverResult(
            committee_sizes=[self._sizes[epoch] for epoch in sorted(self._sizes)],
            acknowledged=len(record.acknowledged),
            lost=len(lost),
            roots_equal=root is not None,
            longest_gap_ms=gaps[-1],
            usual_gap_ms=gaps[len(gaps) // 2],
            slowest_acknowledgement_seconds=round(record.slowest_seconds, 2),
            height=height,
            refusals=record.refusals,
        )

    async def _committee(self, validators: Sequence[int], size: int) -> None:
        """Waits until these validators all say that the committee has `size` members."""
        give_up = time.monotonic() + CHANGE_TIMEOUT_SECONDS
        while True:
            told = [await asyncio.to_thread(self._look, index) for index in validators]
            if all(answer is not None and len(answer.validators) == size for answer in told):
                return
            if time.monotonic() > give_up:
                sizes = [None if one is None else len(one.validators) for one in told]
                raise QnetError(Code.WAIT_TIMEOUT, f"the committees stay at {sizes}")
            await asyncio.sleep(POLL_SECONDS)

    def _look(self, index: int) -> ValidatorsAnswer | None:
        (answer,) = self._network.ask(index, [ValidatorsQuery()])
        if not isinstance(answer, ValidatorsAnswer):
            return None
        self._sizes[answer.epoch] = len(answer.validators)
        return answer

    def _gaps_ms(self, last: int) -> Iterator[int]:
        """Between the blocks of the first validator."""
        headers: list[BlockHeader] = []
        for first in range(1, last + 1, HEADERS_AT_ONCE):
            end = min(last, first + HEADERS_AT_ONCE - 1)
            queries = [BlockQuery(height, 0, 0) for height in range(first, end + 1)]
            answers = self._network.ask(0, queries)
            headers += [answer.header for answer in answers if isinstance(answer, BlockAnswer)]
        for before, after in pairwise(headers):
            yield after.timestamp_ms - before.timestamp_ms
