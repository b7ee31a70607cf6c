"""The rooms of a validator in one process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from qnet_actors.crypto import BatchVerifier, Signer
from qnet_actors.gateway import Result
from qnet_actors.ledger import DuckLog, LogOptions
from qnet_actors.links import Links
from qnet_actors.mempool import FileBatchStore
from qnet_actors.network.answers import Sources, packed_sources
from qnet_actors.network.compose import Stores, Validator, compose
from qnet_actors.network.desk import Desk
from qnet_actors.network.driver import Driver
from qnet_actors.network.settings import HostSettings
from qnet_actors.rooms import Room
from qnet_actors.validators import FileJournal, ValidatorCore
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.committee import Committee
from qnet_actors.wire.genesis import Genesis
from qnet_actors.wire.messages import Message


class PackedRooms:
    """See `host.Rooms`."""

    def __init__(
        self,
        genesis: Genesis,
        settings: HostSettings,
        desk: Desk,
        on_stop: Callable[[str], None],
    ) -> None:
        self._genesis: Final = genesis
        self._settings: Final = settings
        self._desk: Final = desk
        self._on_stop = on_stop
        self._validator: Validator | None = None
        self._driver: Driver | None = None

    async def open(
        self, incarnation: int, signer: Signer, verifier: BatchVerifier
    ) -> tuple[Committee, ValidatorCore, Callable[[int], None]]:
        validator = await asyncio.to_thread(self._open, signer, verifier)
        storages = validator.stores.by_room(1)
        driver = Driver(validator.node, storages, self._desk.on_event, self._on_stop)
        self._validator, self._driver = validator, driver
        return validator.committee, validator.core, driver.on_up

    def _open(self, signer: Signer, verifier: BatchVerifier) -> Validator:
        path = self._settings.directory
        power = self._genesis.parameters.power_durability
        stores = Stores(
            batches=FileBatchStore(path / "batches", power=power),
            journal=FileJournal(path / "journal", sync=True),
            log=DuckLog(path / "ledger", self._genesis.chain_id(), LogOptions(fsync=power)),
        )
        return compose(
            self._genesis,
            self._settings.index,
            signer,
            verifier,
            stores,
            snapshots=self._settings.snapshots,
        )

    def sources(self) -> Sources:
        if self._validator is None:
            raise QnetError(Code.NOT_READY)
        return packed_sources(self._validator)

    async def begin(self, links: Links) -> None:
        self._running().start(links)

    def on_message(self, peer: int, message: Message) -> Awaitable[None] | None:
        self._running().on_message(peer, message)
        return None

    async def submit(self, transactions: list[bytes]) -> list[Result]:
        driver = self._running()
        return await self._desk.submit(
            transactions, lambda submit: driver.handle(Room.MEMPOOL, submit)
        )

    async def receive(self, frame: Any) -> None:
        raise TypeError("a packed validator has no other process")

    async def processes(self) -> dict[str, int]:
        return {}

    async def close(self) -> None:
        if self._driver is not None:
            await self._driver.close()

    def _running(self) -> Driver:
        if self._driver is None:
            raise QnetError(Code.NOT_READY)
        return self._driver
