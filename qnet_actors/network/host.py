"""A validator: its data directory, rooms and links, and what gateways ask of it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from qnet_actors.crypto import BatchVerifier, Choice, KeyPair, Signer, choose
from qnet_actors.durable import named_faults
from qnet_actors.gateway import Answer, Query, Result
from qnet_actors.links import Links, PeerKey, Roster
from qnet_actors.network.answers import Answers, Sources, open_history
from qnet_actors.network.budget import PeerBudgets
from qnet_actors.network.desk import Desk
from qnet_actors.network.directory import DataDirectory, Endpoint
from qnet_actors.network.disk import LOOK_SECONDS, DiskWatch, FileSystem
from qnet_actors.network.neighbours import Neighbours, Standing
from qnet_actors.network.settings import OBSERVERS_MAX, HostSettings
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.genesis import Genesis, check_genesis
from qnet_actors.wire.messages import LedgerRequest, Message, PeerStatus, SnapshotRequest

if TYPE_CHECKING:
    from qnet_actors.ledger import History

READS: Final = (LedgerRequest, SnapshotRequest, PeerStatus)
"""What is taken from an observer; nothing else that it says is read by a room."""
logger = logging.getLogger(__name__)


class Rooms(Protocol):
    """The rooms of one validator, in this process or in several."""

    def prepare(self, incarnation: int) -> None:
        """Starts what takes its time and needs nothing else of the validator."""

    async def open(self, signer: Signer, verifier: BatchVerifier) -> Standing:
        """Recovers; returns where that leaves the validator among the others."""

    def sources(self) -> Sources:
        """What answers are read from; may wait."""

    async def begin(self, peers: Neighbours) -> None:
        """Everything is there: does what is due."""

    def on_message(self, peer: int, message: Message) -> Awaitable[None] | None:
        """Takes a message; the awaitable, where there is one, ends once more may come."""

    def on_up(self, peer: int) -> None:
        """A link stands (again)."""

    async def submit(self, transactions: list[bytes]) -> list[Result]:
        """See `gateway.backend.Backend`."""

    def prune(self) -> None:
        """Has pruned what need not be kept, in the background."""

    async def receive(self, frame: Any) -> None:
        """Takes a frame of another process of the validator."""

    async def processes(self) -> dict[str, int]:
        """The processes of rooms that live apart, by the room's name; those that answer."""

    async def close(self) -> None:
        """Ends rooms and closes their storages."""


class ValidatorHost:
    """One validator in this process; a gateway `Backend`.  Belongs to one event loop.

    `start` opens the data directory, recovers, and listens; `connect` says where the others are,
    which the directory remembers, so that a later start needs nobody to say it again.
    """

    def __init__(
        self,
        genesis: Genesis,
        key: KeyPair,
        settings: HostSettings,
        statvfs: Callable[[Path], FileSystem] = os.statvfs,
    ) -> None:
        """Raises `QnetError(CONFIGURATION_INVALID)` where genesis, key and settings do not fit."""
        check_genesis(genesis)
        members = genesis.members
        if settings.index < len(members) and members[settings.index].public_key != key.public_key:
            raise QnetError(
                Code.CONFIGURATION_INVALID,
                f"the key is not that of validator {settings.index} in genesis",
            )
        _check_observers(genesis, key, settings)
        self.index: Final = settings.index
        self._genesis: Final = genesis
        self._standing = Standing(genesis.committee(), None, ())
        self._settings: Final = settings
        self._key = key
        self._desk: Final = Desk(settings.index)
        self._budgets: Final = PeerBudgets(len(members) - 1 + len(settings.observers))
        self._rooms: Final = self._make_rooms()
        self._directory: DataDirectory | None = None
        self._sources: Sources | None = None
        self._links: Links | None = None
        self._neighbours: Neighbours | None = None
        self._history: History | None = None
        self._ready = asyncio.Event()
        self._disk: Final = DiskWatch(
            settings.directory, settings.keep.disk_free_bytes_min, statvfs
        )
        self._watching: asyncio.Task[None] | None = None

    def _make_rooms(self) -> Rooms:
        # Each kind loads only what it needs: much of a start are imports.
        if not self._settings.split:
            from qnet_actors.network.packed import PackedRooms

            return PackedRooms(
                self._genesis, self._settings, self._desk, self._on_stop, self._on_standing
            )
        from qnet_actors.network.split.rooms import SplitRooms

        return SplitRooms(
            self._genesis, self._settings, self._desk, self._on_stop, self._on_standing
        )

    async def start(self) -> Endpoint:
        """Opens, recovers and listens.

        Raises `QnetError` where the disk or a port refuses, RayError where the process of a room
        does not start.
        """
        with named_faults():
            return await self._open()

    async def _open(self) -> Endpoint:
        genesis, settings = self._genesis, self._settings
        directory = self._directory = await asyncio.to_thread(
            DataDirectory, settings.directory, genesis.chain_id(), settings.index
        )
        directory.keep_shards(settings.shards)
        self._rooms.prepare(directory.incarnation)
        choice = await asyncio.to_thread(choose, settings.provider)
        signer, verifier = Signer(self._key, choice.provider), choice.verifier
        standing = await self._rooms.open(signer, verifier)
        members = genesis.members
        roster = Roster(
            PeerKey(self._key.scheme, self._key.public_key),
            (PeerKey(member.scheme, member.public_key) for member in members),
        )
        chain_id = genesis.chain_id()
        links = Links(roster, chain_id, signer, verifier, self._on_message, self._on_up)
        neighbours = Neighbours(roster, links, settings.observers)
        self._links, self._neighbours = links, neighbours
        self._sources = await asyncio.to_thread(self._rooms.sources)
        self._desk.answers = await asyncio.to_thread(self._open_answers, self._sources, choice)
        self._on_standing(standing)
        # Before anybody can connect: what a room has to ask of a peer it asks once, as the link
        # comes to stand, and that must not be before it can send.
        await self._rooms.begin(neighbours)
        known = {endpoint.key_id: endpoint for endpoint in directory.endpoints()}
        port = settings.link_port
        if not port and roster.own_id in known:
            port = known[roster.own_id].port
        host, port = await links.start(settings.link_host, port)
        neighbours.find_at({e.key_id: (e.host, e.port) for e in known.values()})
        self._watch_ready()
        self._watching = asyncio.get_running_loop().create_task(self._watch_disk())
        return Endpoint(roster.own_id, host, port)

    def _open_answers(self, sources: Sources, choice: Choice) -> Answers:
        if self._neighbours is None:
            raise QnetError(Code.NOT_READY)
        self._history = open_history(self._genesis, self._settings, sources.log)
        return Answers(self._genesis, sources, self._neighbours, self._history, choice)

    def connect(self, endpoints: Iterable[Endpoint]) -> None:
        """Says where the others listen."""
        if self._neighbours is None or self._directory is None:
            raise QnetError(Code.NOT_READY, "start comes before connect")
        endpoints = tuple(endpoints)
        self._directory.save_endpoints(endpoints)
        self._neighbours.find_at({e.key_id: (e.host, e.port) for e in endpoints})

    @property
    def failure(self) -> str | None:
        """Why it stopped; None where it did not."""
        return self._desk.stopped

    async def wait_ready(self) -> None:
        """Until links to a quorum stand.  Raises `QnetError(NOT_READY)` if the node stopped."""
        await self._ready.wait()
        self._desk.check_running()

    async def submit(self, transactions: list[bytes]) -> list[Result]:
        """See `gateway.backend.Backend`.

        Raises `QnetError(NOT_READY)` while no batch of this validator could come to a quorum, or
        one of its processes does not answer, so that gateways turn to another: what it took would
        wait here, and its clients with it.
        Raises `QnetError(DISK_FULL)` while there is too little room, for the same reason, and
        `QnetError(READ_ONLY)` always where it is an observer.
        """
        if self._settings.observer:
            raise QnetError(Code.READ_ONLY)
        self._desk.check_running()
        self._desk.check_answering()
        self._disk.check()
        neighbours, sources = self._neighbours, self._sources
        if neighbours is None or sources is None:
            raise QnetError(Code.NOT_READY)
        if self._standing.own is None:
            raise QnetError(Code.NOT_READY, "it is not of the committee")
        if not self._has_quorum(neighbours):
            raise QnetError(Code.NOT_READY, "links to a quorum do not stand")
        if sources.status().catching_up or self._desk.joining is not None:
            raise QnetError(Code.NOT_READY, "it is catching up")
        return await self._rooms.submit(transactions)

    async def query(self, request: Query) -> Answer:
        """See `gateway.backend.Backend`."""
        return await self._desk.query(request)

    async def poll(self, after: int, timeout_ms: int) -> tuple[int, list[bytes]]:
        """See `gateway.backend.Backend`.

        Raises `QnetError(NOT_READY)` where it is a validator and not of the committee: gateways
        then hold it for dead, and what only it had taken is given to others.
        """
        if self._standing.own is None and not self._settings.observer:
            raise QnetError(Code.NOT_READY, "it is not of the committee")
        return await self._desk.poll(after, timeout_ms)

    def state_roots(self) -> list[tuple[int, bytes]]:
        """(height, state root) of the newest checkpoints executed here, oldest first."""
        return self._desk.state_roots()

    def measurements(self) -> dict[str, int]:
        """Totals since the start: link traffic, pauses of peers, equivocations, timeouts."""
        links, sources = self._links, self._sources
        if links is None or sources is None:
            return {}
        counters = links.counters.values()
        status = sources.status()
        return {
            "link_bytes_out": sum(counter.bytes_out for counter in counters),
            "link_frames_out": sum(counter.frames_out for counter in counters),
            "peer_pauses": self._budgets.pauses,
            "equivocations": status.equivocations,
            "timeouts": status.timeouts,
        }

    async def processes(self) -> dict[str, int]:
        """See `Rooms.processes`."""
        return await self._rooms.processes()

    async def receive(self, frame: Any) -> None:
        """Takes a frame of events from another process of a split validator."""
        await self._rooms.receive(frame)

    async def stop(self) -> None:
        """Closes links, rooms and the directory; safe to call twice."""
        self._ended("asked to stop")
        if self._watching is not None:
            self._watching.cancel()
        if self._links is not None:
            await self._links.close()
        if self._history is not None:
            await asyncio.to_thread(self._history.close)
        await self._rooms.close()
        if self._directory is not None:
            self._directory.close()

    def _on_message(self, number: int, message: Message) -> Awaitable[None] | None:
        """Nothing more is read from a peer that is over its budget, or while a room is behind."""
        behind: Awaitable[None] | None = None
        neighbours = self._neighbours
        if neighbours is None:
            return None
        peer = neighbours.name(number)

        def handle() -> None:
            nonlocal behind
            if neighbours.only_reads(number) and not isinstance(message, READS):
                return
            if neighbours.moved_on(number, message):
                self._rooms.on_up(peer)
            behind = self._rooms.on_message(peer, message)

        over = self._budgets.charge(number, message, handle)
        return self._budgets.pause(over) if behind is None else behind

    def _on_up(self, number: int) -> None:
        if self._neighbours is not None:
            self._rooms.on_up(self._neighbours.name(number))

    def _on_standing(self, standing: Standing) -> None:
        """An epoch begins, or who may link has changed."""
        neighbours, answers = self._neighbours, self._desk.answers
        if neighbours is None or answers is None:
            return
        if standing.committee.epoch > self._standing.committee.epoch:
            self._sources = self._rooms.sources()
            answers.renew(self._sources)
        self._standing = standing
        self._budgets.resize(len(standing.keys) - 1 + len(self._settings.observers))
        neighbours.begin(standing)

    def _has_quorum(self, neighbours: Neighbours) -> bool:
        committee, own = self._standing.committee, self._standing.own
        present = {name for name in neighbours.up if name < len(committee)}
        return committee.has_quorum(present if own is None else present | {own})

    def _watch_ready(self) -> None:
        """Looks four times a second whether links to a quorum stand, until they do."""
        if self._neighbours is None or self._desk.stopped is not None:
            return
        if self._has_quorum(self._neighbours):
            self._ready.set()
            return
        asyncio.get_running_loop().call_later(0.25, self._watch_ready)

    async def _watch_disk(self) -> None:
        """Looks once a second how much room there is, as long as the validator runs."""
        told = False
        while self._desk.stopped is None:
            try:
                turned = await asyncio.to_thread(self._disk.look)
            except OSError as error:
                # What cannot be written stops the validator by itself; it is looked again, since
                # what is refused for a disk that ran low must end once it has room.
                if not told:
                    logger.warning("validator %d: no word of its disk: %s", self.index, error)
                told, turned = True, False
            else:
                told = False
            if turned:
                self._desk.disk_low = self._disk.low
                state = "runs low; no work is taken" if self._disk.low else "has room again"
                logger.warning("validator %d: the disk %s", self.index, state)
            if self._disk.low:
                self._rooms.prune()
            await asyncio.sleep(LOOK_SECONDS)

    def _on_stop(self, reason: str) -> None:
        """A room says that the validator must not go on: it stays down, and says why."""
        logger.error("validator %d stopped: %s", self.index, reason)
        self._ended(reason)

    def _ended(self, reason: str) -> None:
        self._desk.end(reason)
        self._ready.set()


def _check_observers(genesis: Genesis, key: KeyPair, settings: HostSettings) -> None:
    if len(settings.observers) > OBSERVERS_MAX:
        raise QnetError(
            Code.CONFIGURATION_INVALID,
            f"{len(settings.observers)} observers; at most {OBSERVERS_MAX} may link",
        )
    if not settings.observer:
        return
    if any(member.public_key == key.public_key for member in genesis.members):
        raise QnetError(Code.CONFIGURATION_INVALID, "an observer has a key of its own")
    if settings.split:
        raise QnetError(Code.CONFIGURATION_INVALID, "an observer is not split; it has no mempool")
