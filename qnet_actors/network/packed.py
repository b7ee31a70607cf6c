"""The rooms of a validator in one process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Final

from qnet_actors.crypto import BatchVerifier, Signer
from qnet_actors.gateway import Result
from qnet_actors.ledger import DuckLog, HandOffs, LogOptions, Recovered, validator_keys
from qnet_actors.links import PeerKey
from qnet_actors.mempool import Entry, FileBatchStore
from qnet_actors.network.answers import Sources, packed_sources
from qnet_actors.network.compose import Stores, Validator, compose
from qnet_actors.network.desk import Desk
from qnet_actors.network.driver import Driver
from qnet_actors.network.neighbours import Neighbours, Standing
from qnet_actors.network.node import LEDGER
from qnet_actors.network.offences import OffenceFile
from qnet_actors.network.settings import HostSettings
from qnet_actors.rooms import BlockExecuted, Joined, Room, Submit
from qnet_actors.state import State
from qnet_actors.validators import FileJournal
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.genesis import Genesis
from qnet_actors.wire.messages import Message

logger = logging.getLogger(__name__)


class PackedRooms:
    """See `host.Rooms`."""

    def __init__(
        self,
        genesis: Genesis,
        settings: HostSettings,
        desk: Desk,
        on_stop: Callable[[str], None],
        on_standing: Callable[[Standing], None],
    ) -> None:
        """`on_standing`: the next epoch begins, or who may link has changed."""
        self._genesis: Final = genesis
        self._settings: Final = settings
        self._desk: Final = desk
        self._on_stop = on_stop
        self._on_standing = on_standing
        self._hand_offs: Final = HandOffs(settings.directory / "hand-offs")
        self._keys: tuple[PeerKey, ...] = ()
        self._crypto: tuple[Signer, BatchVerifier] | None = None
        self._validator: Validator | None = None
        self._log: DuckLog | None = None
        self._driver: Driver | None = None
        self._peers: Neighbours | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._renewed = asyncio.Event()
        self._renewed.set()

    def prepare(self, incarnation: int) -> None:
        """Nothing lives apart."""

    async def open(self, signer: Signer, verifier: BatchVerifier) -> Standing:
        log = await asyncio.to_thread(self._open_log)
        self._crypto = signer, verifier
        return await self._begin_epoch(log, None, ())

    def _open_log(self) -> DuckLog:
        power = self._genesis.parameters.power_durability
        options = LogOptions(fsync=power, retention=self._settings.keep.blocks)
        path = self._settings.directory / "ledger"
        self._log = DuckLog(path, self._genesis.chain_id(), options)
        return self._log

    async def _begin_epoch(
        self,
        log: DuckLog,
        carried: Recovered[State] | None,
        leftovers: Sequence[Sequence[Entry]],
    ) -> Standing:
        """Makes the rooms anew from storage, and what drives them; nothing runs yet."""
        validator, keys = await asyncio.to_thread(self._compose, log, carried, leftovers)
        # A follower has no mempool shards, and what it holds of batches is not written to.
        storages = validator.stores.by_room(len(validator.shards) or 1)
        driver = Driver(
            validator.node, storages, self._on_event, self._on_stop, on_reopen=self._on_reopen
        )
        self._validator, self._driver = validator, driver
        self._keys = keys
        return Standing(validator.committee, validator.own, keys)

    def _compose(
        self,
        log: DuckLog,
        carried: Recovered[State] | None,
        leftovers: Sequence[Sequence[Entry]],
    ) -> tuple[Validator, tuple[PeerKey, ...]]:
        if self._crypto is None:
            raise QnetError(Code.NOT_READY)
        path = self._settings.directory
        power = self._genesis.parameters.power_durability
        # What is open is closed where the rest does not open; the log is its owner's.
        with ExitStack() as opened:
            batches = FileBatchStore(path / "batches", power=power)
            opened.callback(batches.close)
            journal = FileJournal(path / "journal", sync=True)
            opened.callback(journal.close)
            stores = Stores(batches, journal, log, OffenceFile(path / "offences"))
            validator = compose(
                self._genesis,
                *self._crypto,
                stores,
                snapshots=self._settings.keep.snapshots,
                carried=carried,
                observes=self._settings.observer,
            )
            validator.node.take_over(leftovers)
            self._hand_offs.keep(log, validator.state, self._genesis)
            opened.pop_all()
        return validator, _keys(validator.state, self._genesis)

    def sources(self) -> Sources:
        if self._validator is None:
            raise QnetError(Code.NOT_READY)
        return packed_sources(self._validator, self._hand_offs)

    async def begin(self, peers: Neighbours) -> None:
        self._peers = peers
        self._running().start(peers)

    def on_message(self, peer: int, message: Message) -> Awaitable[None] | None:
        self._running().on_message(peer, message)
        return None

    def on_up(self, peer: int) -> None:
        self._running().on_up(peer)

    async def submit(self, transactions: list[bytes]) -> list[Result]:
        return await self._desk.submit_to_next(transactions, self._mempool)

    async def _mempool(self) -> Callable[[Submit], None]:
        await self._renewed.wait()
        if self._validator is not None and self._validator.own is None:
            raise QnetError(Code.NOT_READY, "it is not of the committee")
        return partial(self._running().handle, Room.MEMPOOL)

    def prune(self) -> None:
        if self._log is not None:
            self._log.prune()

    async def receive(self, frame: Any) -> None:
        raise TypeError("a packed validator has no other process")

    async def processes(self) -> dict[str, int]:
        return {}

    async def close(self) -> None:
        if self._renewal is not None:
            # It is over in moments, and leaves nothing behind that could not be closed.
            await asyncio.gather(self._renewal, return_exceptions=True)
        if self._driver is not None:
            await self._driver.close()
        elif self._log is not None:
            # Opened, and something else was not.
            await asyncio.to_thread(self._log.close)

    def _running(self) -> Driver:
        if self._driver is None:
            raise QnetError(Code.NOT_READY)
        return self._driver

    # Epochs

    def _on_event(self, event: Any) -> None:
        self._desk.on_event(event)
        if isinstance(event, BlockExecuted | Joined) and event.record.checkpoint is not None:
            self._look_for_keys()

    def _look_for_keys(self) -> None:
        """Who is registered now, once a checkpoint."""
        validator, driver = self._validator, self._driver
        if validator is None or driver is None:
            return
        if not self._genesis.parameters.epoch_commits_min:
            # The committee is fixed.
            return

        def found(keys: tuple[PeerKey, ...]) -> None:
            if driver is self._driver and keys != self._keys:
                self._keys = keys
                self._on_standing(Standing(validator.committee, validator.own, keys))

        driver.ask(LEDGER, partial(_keys, validator.state, self._genesis), found)

    def _on_reopen(self) -> None:
        self._renewed.clear()
        self._renewal = asyncio.get_running_loop().create_task(self._renew())

    async def _renew(self) -> None:
        """From one epoch to the next: what is written is durable, then new rooms begin."""
        old, driver, peers = self._validator, self._driver, self._peers
        if old is None or driver is None or peers is None:
            raise RuntimeError("an epoch ended that did not begin")
        try:
            await driver.close(keep=(LEDGER,))
            if driver.unwritten is None:
                await self._begin_next(old, peers)
        except Exception as error:
            logger.exception("the next epoch does not begin")
            self._on_stop(f"{type(error).__name__}: {error}")
        finally:
            self._desk.renew()
            self._renewed.set()

    async def _begin_next(self, old: Validator, peers: Neighbours) -> None:
        log = old.stores.log
        if not isinstance(log, DuckLog):
            raise TypeError("the log of a packed validator is on disk")
        standing = await self._begin_epoch(
            log, old.ledger.handed_over(old.state), old.node.leftovers()
        )
        logger.info(
            "epoch %d begins with %d validators", standing.committee.epoch, len(standing.committee)
        )
        self._on_standing(standing)
        running = self._running()
        running.start(peers)
        for name in peers.up:
            running.on_up(name)


def _keys(state: State, genesis: Genesis) -> tuple[PeerKey, ...]:
    return tuple(PeerKey(*key) for key in validator_keys(state, genesis))
