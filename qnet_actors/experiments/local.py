"""A local development network with its demonstration: what `qnet dev` runs."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final

import msgspec

from qnet_actors.crypto import Signer, provider
from qnet_actors.experiments.demonstration import Demonstration, Figures, percentile
from qnet_actors.gateway.settings import Settings as GatewaySettings
from qnet_actors.kernels.cache import warm
from qnet_actors.network.development import (
    ACCOUNT,
    VALIDATOR,
    development_genesis,
    development_keys,
)
from qnet_actors.network.launch import Network, agreed_root
from qnet_actors.network.settings import NetworkSettings
from qnet_actors.wire.address import encode_address
from qnet_actors.wire.codes import QnetError

if TYPE_CHECKING:
    from rich.table import Table

ACCOUNTS: Final = 16
KEEP_GOING_PER_SECOND: Final = 20.0
SEND_AGAIN_SECONDS: Final = 1.0
_SLOW_SECONDS: Final = 0.5

Say = Callable[[str], None]


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds from submission to the block's announcement."""

    p50: float
    p99: float


class Outcome(msgspec.Struct, frozen=True):
    """What `qnet dev --once --json` prints."""

    validators: int
    transactions: int
    executed: int
    roots_equal: bool
    tps: float
    latency_ms: Latency
    height: int
    seconds_to_first_receipt: float
    failed: int
    state_root: str
    """At the height at which the validators were compared."""

    @property
    def good(self) -> bool:
        """Whether nothing was lost or failed, and all agree."""
        return self.roots_equal and self.executed == self.transactions and not self.failed


class LocalNetwork:
    """Starts validators and a gateway, on this machine or a cluster, with funded accounts."""

    def __init__(
        self, settings: NetworkSettings, say: Say, gateway: GatewaySettings | None = None
    ) -> None:
        """`gateway`: bounds and times of its gateways; None: the defaults.

        Raises `QnetError` where settings are not valid, or a port is taken.
        """
        self._say = say
        self._validators = settings.validators
        say("loading compiled kernels")
        warm(self._warmed)
        self._started = time.monotonic()
        library = provider(settings.provider)
        say(f"signatures: ML-DSA-65 by {library.name} {library.version}")
        accounts = development_keys(ACCOUNT, ACCOUNTS, library)
        validators = development_keys(VALIDATOR, settings.validators, library)
        genesis = development_genesis(validators, [key.key_id for key in accounts])
        self._signers = [Signer(key, library) for key in accounts]
        self.addresses: Final = [encode_address(key.key_id, development=True) for key in accounts]
        self.observer_urls: list[str] = []
        self.network: Final = Network(genesis, settings, say, gateway)

    def __enter__(self) -> LocalNetwork:
        self.network.__enter__()
        try:
            for _ in range(self.network.settings.observers):
                self.observer_urls.append(self.network.add_observer())
        except BaseException:
            self.network.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._say("stopping")
        self.network.stop()

    @property
    def url(self) -> str:
        return self.network.gateway_urls[0]

    def demonstrate(self, count: int, rate_per_second: float) -> Outcome:
        """Sends `count` transfers and compares the validators when all have their receipts."""
        first_receipt = 0.0

        def on_first() -> None:
            nonlocal first_receipt
            first_receipt = time.monotonic() - self._started
            self._say(f"first receipt after {first_receipt:.1f} s; sending {count} transfers")

        self._say("sending the first transfer")
        demonstration = Demonstration(self.url, self._signers)
        try:
            figures = asyncio.run(demonstration.run(count, rate_per_second, on_first))
        except QnetError as error:
            self._say(f"{error.code.label}: {error.detail}")
            figures = demonstration.figures
        height, root = agreed_root(self.network, figures.height)
        return Outcome(
            validators=self._validators,
            transactions=figures.transactions,
            executed=figures.executed,
            roots_equal=root is not None,
            tps=round(figures.tps, 1),
            latency_ms=Latency(
                round(percentile(figures.latency_ms, 0.50), 1),
                round(percentile(figures.latency_ms, 0.99), 1),
            ),
            height=height,
            seconds_to_first_receipt=round(first_receipt, 2),
            failed=figures.failed,
            state_root="" if root is None else root.hex(),
        )

    def watch(self, as_json: bool) -> None:
        """Keeps some transfers coming and shows a live table until Ctrl-C."""
        asyncio.run(self._watch(as_json))

    async def _watch(self, as_json: bool) -> None:
        demonstration = Demonstration(self.url, self._signers)
        sending = asyncio.create_task(self._keep_sending(demonstration))
        try:
            if as_json:
                await sending
            else:
                await self._show(demonstration.figures, sending)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _keep_sending(self, demonstration: Demonstration) -> None:
        """Until it is cancelled: a network is not ended for a request that failed."""
        while True:
            try:
                await demonstration.run(sys.maxsize, KEEP_GOING_PER_SECOND, lambda: None)
            except QnetError as error:
                self._say(f"{error.code.label}: {error.detail}")
                await asyncio.sleep(SEND_AGAIN_SECONDS)

    async def _show(self, figures: Figures, sending: asyncio.Task[None]) -> None:
        from rich.console import Console
        from rich.live import Live

        with Live(console=Console(stderr=True), refresh_per_second=4) as live:
            while not sending.done():
                roots = await asyncio.to_thread(self.network.state_roots)
                live.update(_table(figures, roots))
                await asyncio.sleep(0.5)
        await sending

    def _warmed(self, module: str, seconds: float) -> None:
        if seconds > _SLOW_SECONDS:
            self._say(f"  {module.rsplit('.', 1)[-1]}: {seconds:.1f} s")


def _table(figures: Figures, reports: list[dict[int, bytes]]) -> Table:
    from rich.table import Table

    recent = list(figures.latency_ms)[-500:]
    alive = [report for report in reports if report]
    common = set.intersection(*(set(report) for report in alive)) if alive else set()
    table = Table(title="QNet, a local development network (Ctrl-C stops it)")
    for column in ("height", "final", "tx/s", "p50 ms", "p99 ms", "executed", "agreement"):
        table.add_column(column, justify="right")
    agreement = "waiting"
    if common:
        height = max(common)
        equal = len({report[height] for report in alive}) == 1
        agreement = f"{len(alive)} of {len(reports)} at {height}" if equal else "DIFFERENT ROOTS"
    table.add_row(
        str(figures.height),
        str(figures.final_height),
        f"{figures.recent_tps(time.monotonic()):.0f}",
        f"{percentile(recent, 0.50):.0f}",
        f"{percentile(recent, 0.99):.0f}",
        str(figures.executed),
        agreement,
    )
    return table
