"""Places a network's actors on Ray: starts, watches and stops them."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final

import msgspec
import ray
from ray.exceptions import RayError

from qnet_actors.crypto import development_key
from qnet_actors.gateway.queries import (
    ANSWER_CODEC,
    Answer,
    Fault,
    Query,
    StatusAnswer,
    StatusQuery,
)
from qnet_actors.gateway.settings import Settings as GatewaySettings
from qnet_actors.links import PeerKey
from qnet_actors.network.actor import ValidatorHostActor
from qnet_actors.network.connection import join_cluster, start_ray
from qnet_actors.network.development import OBSERVER
from qnet_actors.network.directory import Endpoint
from qnet_actors.network.placement import (
    Placement,
    beside_driver,
    pinned,
    place_here,
    place_on_cluster,
)
from qnet_actors.network.settings import (
    LOOPBACK,
    OBSERVERS_FROM,
    HostSettings,
    NetworkSettings,
    check_shape,
)
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.genesis import Genesis, check_genesis

START_TIMEOUT_SECONDS: Final = 120.0
CALL_TIMEOUT_SECONDS: Final = 10.0
AGREEMENT_TIMEOUT_SECONDS: Final = 20.0
AGREEMENT_POLL_SECONDS: Final = 0.25

Progress = Callable[[str], None]


class Network:
    """A network of one operator, on an embedded Ray or a cluster, its validators packed or split.

    Use as a context manager.  Ray starts a killed validator again; it finds its disk and its
    peers by itself.
    """

    def __init__(
        self,
        genesis: Genesis,
        settings: NetworkSettings,
        progress: Progress,
        gateway: GatewaySettings | None = None,
    ) -> None:
        """`gateway`: bounds and times of its gateways; None: the defaults.

        Raises `QnetError` where genesis or settings are not valid, or a port is taken."""
        check_genesis(genesis)
        check_shape(settings)
        if len(genesis.members) != settings.validators:
            raise QnetError(
                Code.CONFIGURATION_INVALID,
                f"genesis names {len(genesis.members)} validators, {settings.validators} asked for",
            )
        for number in range(settings.gateways + settings.observers):
            _check_port(settings.gateway_host, gateway_port(settings, number))
        self.genesis: Final = genesis
        self.settings: Final = settings
        self._gateway_settings: Final = gateway
        self._progress = progress
        self._hosts: list[Any] = []
        self._gateways: list[Any] = []
        self._observers: list[Any] = []
        self._observer_keys: tuple[PeerKey, ...] = ()
        self._endpoints: list[Endpoint] = []
        self._placed: Placement | None = None
        self._split = False
        self.gateway_urls: list[str] = []

    def __enter__(self) -> Network:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Starts or joins Ray, starts validators and gateways, and waits until all answer.

        Raises `QnetError`: NODE_UNREACHABLE where no cluster is at the address, what
        `place_for_good` does, and what kept an actor from starting.
        """
        namespace = f"qnet-{self.genesis.chain_id().hex()[:16]}"
        if self.settings.address is None:
            self._progress("starting Ray")
            start_ray(namespace)
        else:
            self._progress(f"joining the Ray cluster at {self.settings.address}")
            join_cluster(self.settings.address, namespace)
        count = self.settings.validators
        self._place()
        self._progress(f"starting {count} validators, {'split' if self._split else 'packed'}")
        genesis = encode(self.genesis)
        self._observer_keys = tuple(map(_observer_key, range(self.settings.observers)))
        endpoints = self._endpoints
        self._hosts += [self._start_host(index, genesis) for index in range(count)]
        endpoints += self._get([host.start.remote() for host in self._hosts])
        self._get([host.connect.remote(endpoints) for host in self._hosts])
        self._progress("connecting validators, opening the gateway")
        names = {
            index: validator_name(index)
            for index in range(self.settings.validators + self.settings.joiners)
        }
        self.gateway_urls = [self._start_gateway(n, names) for n in range(self.settings.gateways)]
        self._get([host.wait_ready.remote() for host in self._hosts])

    def add_validator(self) -> int:
        """Starts one more, which follows the network once its key is registered; its index.

        The others need not be told where it listens: it finds them.

        Raises `QnetError(CONFIGURATION_INVALID)` where no more were provided for.
        """
        index, settings = len(self._hosts), self.settings
        if index >= settings.validators + settings.joiners:
            raise QnetError(
                Code.CONFIGURATION_INVALID,
                f"{index} validators run, and no more joiners were provided for",
            )
        host = self._start_host(index, encode(self.genesis))
        self._hosts.append(host)
        self._endpoints += self._get([host.start.remote()])
        self._get([host.connect.remote(list(self._endpoints))])
        return index

    def add_observer(self) -> str:
        """Starts an observer, which follows the network, and returns the URL of its gateway.

        Raises `QnetError(CONFIGURATION_INVALID)` where no more were provided for.
        """
        number, settings = len(self._observers), self.settings
        if number >= settings.observers:
            raise QnetError(
                Code.CONFIGURATION_INVALID, f"{number} observers run; no more were provided for"
            )
        index, name = OBSERVERS_FROM + number, observer_name(number)
        observer = ValidatorHostActor.options(
            name=name,
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=0,
            scheduling_strategy=beside_driver(),
        ).remote(
            encode(self.genesis),
            HostSettings(
                index=index,
                directory=settings.directory / name,
                provider=settings.provider,
                keep=settings.keep,
                link_host=self._link_host,
                observer=True,
            ),
        )
        self._observers.append(observer)
        self._get([observer.start.remote()])
        self._get([observer.connect.remote(list(self._endpoints))])
        return self._start_gateway(settings.gateways + number, {index: name})

    def _place(self) -> None:
        """Decides where each validator goes, and whether it is split."""
        settings = self.settings
        count = settings.validators + settings.joiners
        if settings.address is not None:
            self._placed = place_on_cluster(count, settings.directory)
        elif settings.profile != "packed":
            self._placed = place_here(count)
        self._split = settings.profile == "split" or (
            settings.profile == "auto" and self._placed is not None and self._placed.roomy
        )
        if settings.address is None and not self._split:
            self._placed = None

    @property
    def _link_host(self) -> str:
        """Where validators listen: on this machine alone, or for the whole cluster."""
        return LOOPBACK if self.settings.address is None else ""

    def _start_host(self, index: int, genesis: bytes) -> Any:
        settings = HostSettings(
            index=index,
            directory=self.settings.directory / f"validator-{index}",
            provider=self.settings.provider,
            # One of them is enough: a gateway asks on until one knows.
            history_blocks=0 if index else self.settings.history_blocks,
            link_host=self._link_host,
            keep=self.settings.keep,
            observers=self._observer_keys,
        )
        options: dict[str, Any] = {}
        if self._placed is not None:
            options["scheduling_strategy"] = pinned(self._placed, index)
        if self._split:
            settings = msgspec.structs.replace(
                settings,
                split=True,
                shards=self.settings.shards,
                partitions=self.settings.partitions,
                executors=self.settings.executors,
                executor_rows_min=self.settings.executor_rows_min,
            )
        actor = ValidatorHostActor.options(
            name=validator_name(index), num_cpus=0, max_restarts=-1, max_task_retries=0, **options
        )
        return actor.remote(genesis, settings)

    def _start_gateway(self, number: int, validators: dict[int, str]) -> str:
        from qnet_actors.gateway.actor import GatewayActor

        options = GatewayActor.options(
            name=f"gateway-{number}",
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=0,
            scheduling_strategy=beside_driver(),
        )
        gateway = options.remote(
            # Names, not handles: a handle among the arguments would not outlive this process's
            # object store, and a gateway could not be started again without it.
            validators,
            self.settings.gateway_host,
            gateway_port(self.settings, number),
            self._gateway_settings,
        )
        self._gateways.append(gateway)
        (url,) = self._get([gateway.start.remote()])
        return str(url)

    def statuses(self) -> list[StatusAnswer | None]:
        """What each validator says of itself; None where it does not answer."""
        query = encode(StatusQuery())
        return [self._status(host.query.remote(query)) for host in self._hosts]

    def ask(self, index: int, requests: Sequence[Query]) -> list[Answer | Fault]:
        """What one validator answers to each request; raises `QnetError(NODE_UNREACHABLE)`."""
        host = self._hosts[index]
        references = [host.query.remote(encode(request)) for request in requests]
        try:
            answers = ray.get(references, timeout=CALL_TIMEOUT_SECONDS)
        except RayError as error:
            raise QnetError(
                Code.NODE_UNREACHABLE, f"validator {index}: {type(error).__name__}"
            ) from None
        return [ANSWER_CODEC.decode(answer) for answer in answers]

    def failure(self, index: int) -> str | None:
        """Why a validator stopped or did not start; None where it did neither, or is gone."""
        try:
            reason = ray.get(self._hosts[index].failure.remote(), timeout=CALL_TIMEOUT_SECONDS)
        except RayError:
            return None
        return None if reason is None else str(reason)

    def _status(self, reference: Any) -> StatusAnswer | None:
        try:
            answer = ANSWER_CODEC.decode(ray.get(reference, timeout=CALL_TIMEOUT_SECONDS))
        except RayError:
            return None
        if isinstance(answer, Fault):
            return None
        if not isinstance(answer, StatusAnswer):
            raise QnetError(Code.INTERNAL, "a status query was answered by something else")
        return answer

    def state_roots(self) -> list[dict[int, bytes]]:
        """For each validator its newest checkpoints: height -> state root; empty if it is down."""
        return [self._state_roots(host.state_roots.remote()) for host in self._hosts]

    def _state_roots(self, reference: Any) -> dict[int, bytes]:
        try:
            return dict(ray.get(reference, timeout=CALL_TIMEOUT_SECONDS))
        except RayError:
            return {}

    def measurements(self) -> list[dict[str, int]]:
        """Totals of each validator since its start; empty if it is down."""
        return [self._measurements(host.measurements.remote()) for host in self._hosts]

    def _measurements(self, reference: Any) -> dict[str, int]:
        try:
            return dict(ray.get(reference, timeout=CALL_TIMEOUT_SECONDS))
        except RayError:
            return {}

    def process_ids(self) -> dict[str, int]:
        """The processes of validators, observers and gateways, by name; those that answer."""
        found: dict[str, int] = {}
        for prefix, actors in (
            ("validator", self._hosts),
            ("observer", self._observers),
            ("gateway", self._gateways),
        ):
            for number, actor in enumerate(actors):
                try:
                    pid = ray.get(actor.process_id.remote(), timeout=CALL_TIMEOUT_SECONDS)
                except RayError:
                    continue
                found[f"{prefix}-{number}"] = pid
        return found

    def room_process_ids(self) -> dict[str, int]:
        """The processes of split validators' rooms, as `validator-0/ledger`; those that answer."""
        found: dict[str, int] = {}
        for number, host in enumerate(self._hosts):
            try:
                rooms = ray.get(host.room_process_ids.remote(), timeout=CALL_TIMEOUT_SECONDS)
            except RayError:
                continue
            found.update({f"validator-{number}/{room}": pid for room, pid in rooms.items()})
        return found

    def stop(self) -> None:
        """Stops everything that was started; safe to call twice."""
        if not ray.is_initialized():
            return
        stops = [actor.stop.remote() for actor in (*self._gateways, *self._observers, *self._hosts)]
        ray.wait(stops, num_returns=len(stops), timeout=CALL_TIMEOUT_SECONDS)
        self._hosts, self._observers, self._gateways = [], [], []
        ray.shutdown()

    def _get(self, references: list[Any]) -> list[Any]:
        try:
            return list(ray.get(references, timeout=START_TIMEOUT_SECONDS))
        except QnetError:
            raise
        except RayError as error:
            cause = error.__cause__
            if isinstance(cause, QnetError):
                raise cause from None
            # Ray's message holds the whole remote traceback; its last line is what went wrong.
            reason = str(error).strip().splitlines()[-1][:300]
            raise QnetError(Code.NOT_READY, f"an actor did not start: {reason}") from error


def validator_name(index: int) -> str:
    """The name of a validator's actor within the network's namespace."""
    return f"validator-{index}"


def observer_name(number: int) -> str:
    """The name of an observer's actor within the network's namespace."""
    return f"observer-{number}"


def _observer_key(number: int) -> PeerKey:
    key = development_key(OBSERVER, OBSERVERS_FROM + number)
    return PeerKey(key.scheme, key.public_key)


def gateway_port(settings: NetworkSettings, number: int) -> int:
    """The port of a gateway; 0 where any will do."""
    return settings.gateway_port + number if settings.gateway_port else 0


def _check_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            raise QnetError(
                Code.PORT_IN_USE, f"{host}:{port} is taken; choose another with --port"
            ) from None


def agreed_root(network: Network, height_min: int) -> tuple[int, bytes | None]:
    """(height, state root) of the first checkpoint from `height_min` on that all validators report.

    The root is None where they differ there, or do not all report one in time.
    """
    give_up = time.monotonic() + AGREEMENT_TIMEOUT_SECONDS
    while time.monotonic() < give_up:
        reports = network.state_roots()
        common = set.intersection(*(set(report) for report in reports))
        later = sorted(height for height in common if height >= height_min)
        if later:
            roots = {report[later[0]] for report in reports}
            return later[0], roots.pop() if len(roots) == 1 else None
        time.sleep(AGREEMENT_POLL_SECONDS)
    return height_min, None
