"""A fresh network and the load that an experiment offers it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Literal

from qnet_actors.crypto import provider
from qnet_actors.experiments.bench import SAMPLE_TRANSACTIONS, Progress, raw_verifications
from qnet_actors.experiments.overload.offering import OfferPlan, OfferResult, Stretch, offer
from qnet_actors.experiments.workload import Workload, benchmark_keys, sign_all
from qnet_actors.gateway import home
from qnet_actors.kernels.cache import cache_root, warm
from qnet_actors.network.development import (
    BALANCE,
    VALIDATOR,
    development_genesis,
    development_keys,
)
from qnet_actors.network.launch import Network, agreed_root
from qnet_actors.network.settings import NetworkSettings

SENDERS = 8_192
PLANNED_SHARE = 1.1
"""Of the verifiers' limit, which is measured while others may use the machine too."""
PLANNED_PER_SECOND_MAX = 8_600
WINDOW_SECONDS = 0.9

ProviderName = Literal["auto", "openssl", "liboqs"]
Say = Callable[[str], None]


class Rehearsal:
    """Four validators behind one gateway, and signed transactions for some stretches of load.

    Raises `QnetError` where the network does not start.
    """

    def __init__(
        self, directory: Path, provider_name: ProviderName, stretches: Sequence[Stretch], say: Say
    ) -> None:
        """Signs what the stretches need, the first time, before anything is started."""
        warm()
        progress = Progress(say)
        keys = benchmark_keys(SENDERS, progress)
        validators = development_keys(VALIDATOR, 4, provider("auto"))
        genesis = development_genesis(
            validators,
            [key.key_id for key in keys],
            name="overload",
            # So many full accounts would be more than there may be.
            balance=BALANCE // SENDERS,
        )
        chain_id, folder = genesis.chain_id(), cache_root() / "benchmark"
        sample = sign_all(Workload(chain_id, SENDERS, SAMPLE_TRANSACTIONS), keys, folder, progress)
        planned = raw_verifications(sample, provider_name) / len(validators) * PLANNED_SHARE
        planned = min(planned, PLANNED_PER_SECOND_MAX)
        # What a network is offered beyond its maximum is offered again, so it needs no more.
        shares = sum(s.seconds * (min(s.share, s.executed_share_max) or 1.0) for s in stretches)
        count = SENDERS + int(planned * shares)
        settings = NetworkSettings(directory=directory, provider=provider_name, gateway_port=0)
        self.network = Network(genesis, settings, say)
        self._stack = ExitStack()
        self._plan = OfferPlan(
            url="",
            folder=sign_all(Workload(chain_id, SENDERS, count), keys, folder, progress),
            count=count,
            homes=tuple(home(key.key_id, len(validators))[0] for key in keys),
            window=max(1_000, int(WINDOW_SECONDS * planned)),
            stretches=tuple(stretches),
        )

    def __enter__(self) -> Rehearsal:
        self._stack.enter_context(self.network)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def offer(
        self, on_stretch: Callable[[str, int], None], on_poll: Callable[[], None]
    ) -> OfferResult:
        """See `offering.offer`."""
        import msgspec

        plan = msgspec.structs.replace(self._plan, url=self.network.gateway_urls[0])
        return offer(plan, on_stretch, on_poll)

    def roots_equal(self) -> bool:
        """Whether all validators report one root, at a height that all the load is below."""
        heights = [status.height for status in self.network.statuses() if status is not None]
        return agreed_root(self.network, max(heights))[1] is not None
