"""A validator packed into one process: its rooms, storages and links, and what gateways ask."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from qnet_actors.crypto import BatchVerifier, KeyPair, Signer, choose
from qnet_actors.gateway import Answer, Query, Result
from qnet_actors.ledger import DuckLog, History, LogOptions
from qnet_actors.links import Links
from qnet_actors.mempool import FileBatchStore
from qnet_actors.network.answers import Answers, open_history, packed_sources
from qnet_actors.network.compose import Stores, Validator, compose
from qnet_actors.network.desk import Desk
from qnet_actors.network.directory import DataDirectory, Endpoint
from qnet_actors.network.driver import Driver
from qnet_actors.network.settings import HostSettings
from qnet_actors.rooms import Room
from qnet_actors.validators import FileJournal
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.genesis import Genesis, check_genesis

logger = logging.getLogger(__name__)


class ValidatorHost:
    """One validator in this process; a gateway `Backend`.  Belongs to one event loop.

    `start` opens the data directory, recovers, and listens; `connect` says where the others are,
    which the directory remembers, so that a later start needs nobody to say it again.
    """

    def __init__(self, genesis: Genesis, key: KeyPair, settings: HostSettings) -> None:
        check_genesis(genesis)
        if genesis.members[settings.index].public_key != key.public_key:
            raise QnetError(
                Code.CONFIGURATION_INVALID,
                f"the key is not that of validator {settings.index} in genesis",
            )
        self.index: Final = settings.index
        self._genesis: Final = genesis
        self._settings: Final = settings
        self._key = key
        self._desk: Final = Desk(settings.index)
        self._directory: DataDirectory | None = None
        self._validator: Validator | None = None
        self._driver: Driver | None = None
        self._links: Links | None = None
        self._history: History | None = None
        self._ready = asyncio.Event()
        self.crypto_reason = ""

    async def start(self) -> Endpoint:
        """Opens, recovers and listens.  Raises `QnetError` where the disk or a port refuses."""
        genesis, settings = self._genesis, self._settings
        self._directory = await asyncio.to_thread(
            DataDirectory, settings.directory, genesis.chain_id(), settings.index
        )
        self._directory.keep_shards(1)
        choice = await asyncio.to_thread(choose, settings.provider)
        self.crypto_reason = choice.reason
        signer, verifier = Signer(self._key, choice.provider), choice.verifier
        validator = await asyncio.to_thread(self._open, signer, verifier)
        driver = Driver(
            validator.node, validator.stores.by_room(1), self._desk.on_event, self._on_stop
        )
        links = Links(
            settings.index,
            validator.committee,
            genesis.chain_id(),
            signer,
            verifier,
            driver.on_message,
            driver.on_up,
        )
        self._validator, self._driver, self._links = validator, driver, links
        known = {endpoint.index: endpoint for endpoint in self._directory.endpoints()}
        port = settings.link_port
        if not port and settings.index in known:
            port = known[settings.index].port
        host, port = await links.start(settings.link_host, port)
        self._history = await asyncio.to_thread(
            open_history, genesis, settings, validator.stores.log
        )
        self._desk.answers = Answers(
            genesis, settings.index, packed_sources(validator), links, self._history
        )
        driver.start(links)
        if known:
            links.set_peers({e.index: (e.host, e.port) for e in known.values()})
        self._watch_ready()
        return Endpoint(settings.index, host, port)

    def _open(self, signer: Signer, verifier: BatchVerifier) -> Validator:
        path: Path = self._settings.directory
        power = self._genesis.parameters.power_durability
        stores = Stores(
            batches=FileBatchStore(path / "batches", power=power),
            journal=FileJournal(path / "journal", sync=True),
            log=DuckLog(path / "ledger", self._genesis.chain_id(), LogOptions(fsync=power)),
        )
        return compose(self._genesis, self.index, signer, verifier, stores)

    def connect(self, endpoints: Iterable[Endpoint]) -> None:
        """Says where all validators listen."""
        if self._links is None or self._directory is None:
            raise QnetError(Code.NOT_READY, "start comes before connect")
        endpoints = tuple(endpoints)
        self._directory.save_endpoints(endpoints)
        self._links.set_peers({e.index: (e.host, e.port) for e in endpoints})

    @property
    def failure(self) -> str | None:
        """Why it stopped; None where it did not."""
        return self._desk.stopped

    async def wait_ready(self) -> None:
        """Until links to a quorum stand.  Raises `QnetError(NOT_READY)` if the node stopped."""
        await self._ready.wait()
        self._running()

    async def submit(self, transactions: list[bytes]) -> list[Result]:
        """See `gateway.backend.Backend`."""
        driver = self._running()
        return await self._desk.submit(
            transactions, lambda submit: driver.handle(Room.MEMPOOL, submit)
        )

    async def query(self, request: Query) -> Answer:
        """See `gateway.backend.Backend`."""
        return await self._desk.query(request)

    async def poll(self, after: int, timeout_ms: int) -> tuple[int, list[bytes]]:
        """See `gateway.backend.Backend`."""
        return await self._desk.poll(after, timeout_ms)

    def state_roots(self) -> list[tuple[int, bytes]]:
        """(height, state root) of the newest checkpoints executed here, oldest first."""
        return self._desk.state_roots()

    def measurements(self) -> dict[str, int]:
        """Totals since the start: traffic over the links, and equivocations seen of others."""
        links, validator = self._links, self._validator
        if links is None or validator is None:
            return {}
        counters = links.counters.values()
        return {
            "link_bytes_out": sum(counter.bytes_out for counter in counters),
            "link_frames_out": sum(counter.frames_out for counter in counters),
            "equivocations": validator.core.status.equivocations,
        }

    async def stop(self) -> None:
        """Closes links, storages and the directory; safe to call twice."""
        self._ended("asked to stop")
        if self._links is not None:
            await self._links.close()
        if self._history is not None:
            await asyncio.to_thread(self._history.close)
        if self._driver is not None:
            await self._driver.close()
        if self._directory is not None:
            self._directory.close()

    def _running(self) -> Driver:
        self._desk.check_running()
        if self._driver is None:
            raise QnetError(Code.NOT_READY)
        return self._driver

    def _watch_ready(self) -> None:
        """Looks four times a second whether links to a quorum stand, until they do."""
        if self._links is None or self._validator is None or self._desk.stopped is not None:
            return
        if self._validator.committee.has_quorum((self.index, *self._links.up)):
            self._ready.set()
            return
        asyncio.get_running_loop().call_later(0.25, self._watch_ready)

    def _on_stop(self, reason: str) -> None:
        logger.error("validator %d stopped: %s", self.index, reason)
        self._ended(reason)

    def _ended(self, reason: str) -> None:
        self._desk.end(reason)
        self._ready.set()
