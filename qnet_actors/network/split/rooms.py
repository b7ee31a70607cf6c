"""The rooms of a split validator: consensus in this process, every other room in its own.

This process starts the others, and is the only one that another validator or a gateway speaks to.
If one of them dies, or does not answer, this one ends too; Ray starts it again, and it starts all
of them anew from the disk.  So no room ever meets a neighbour that has forgotten something.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, Final

import ray

from qnet_actors.crypto import BatchVerifier, Signer
from qnet_actors.gateway import Result
from qnet_actors.gateway.queries import AccountAnswer
from qnet_actors.ledger import LedgerQueries
from qnet_actors.links import PeerKey
from qnet_actors.mempool import shard_of
from qnet_actors.network.answers import Proof, Sources
from qnet_actors.network.consensus import Seat, open_consensus, open_reporter
from qnet_actors.network.desk import Desk
from qnet_actors.network.driver import Driver
from qnet_actors.network.neighbours import Neighbours, Standing
from qnet_actors.network.node import LEDGER, REPORTER, VALIDATOR, AskedBatches, Node, RoomKey
from qnet_actors.network.offences import OffenceFile
from qnet_actors.network.present import Present
from qnet_actors.network.settings import HostSettings
from qnet_actors.network.split.actors import (
    LEDGER_NAME,
    VALIDATOR_NAME,
    LedgerActor,
    Opened,
    ServerActor,
    ShardActor,
    receiver_of,
    shard_name,
)
from qnet_actors.network.split.calls import RayPort, ShardAccounts, caller, die, received_async
from qnet_actors.network.split.channel import Channel, PortFault, Receiver
from qnet_actors.network.split.events import (
    EpochOver,
    EventEncoder,
    Registered,
    SendToPeers,
    Stopped,
    decode_event,
)
from qnet_actors.network.split.reads import RemoteLog
from qnet_actors.rooms import Core, Room, Storage, Submit
from qnet_actors.validators import FileJournal, FollowerCore, ValidatorCore
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.genesis import Genesis
from qnet_actors.wire.messages import BatchRequest, Message
from qnet_actors.wire.rules import EpochRules

logger = logging.getLogger(__name__)

_EPOCH_BITS: Final = 32
PING_SECONDS: Final = 0.5
SILENCE_SECONDS: Final = 1.5
"""Who has not answered for so long may be standing still: no work is taken until it does."""
PING_TIMEOUT_SECONDS: Final = 60.0
"""It never will: the validator starts again."""
CLOSE_TIMEOUT_SECONDS: Final = 5.0
READ_TIMEOUT_SECONDS: Final = 10.0
# Where the sender stands in a canonical transaction: array of two, array of ten, version, chain id.
_SENDER_AT: Final = 39


class SplitRooms:
    """See `host.Rooms`.  Belongs to one event loop."""

    def __init__(
        self,
        genesis: Genesis,
        settings: HostSettings,
        desk: Desk,
        on_stop: Callable[[str], None],
        on_standing: Callable[[Standing], None],
    ) -> None:
        """`on_standing`: the next epoch begins, or who may link has changed."""
        self._index: Final = settings.index
        self._genesis: Final = genesis
        self._settings: Final = settings
        self._desk: Final = desk
        self._on_stop = on_stop
        self._on_standing = on_standing
        self._asked: Final = AskedBatches()
        self._encoder: Final = EventEncoder()
        self._era = 0
        """Counts incarnations, and the epochs of each: of which one a frame is."""
        self._crypto: tuple[Signer, BatchVerifier] | None = None
        self._standing: Standing | None = None
        self._rules: EpochRules | None = None
        self._ledger: Any = None
        self._shards: list[Any] = []
        """Those of the committee; who is not of it has none, though their processes run."""
        self._shard_handles: list[Any] = []
        self._partitions: list[Any] = []
        self._executors: list[Any] = []
        self._children: dict[str, Any] = {}
        self._channels: dict[str, Channel] = {}
        self._receiver: Receiver | None = None
        self._driver: Driver | None = None
        self._consensus: ValidatorCore | FollowerCore | None = None
        self._peers: Neighbours | None = None
        self._begun: Final = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._wake: asyncio.TimerHandle | None = None
        self._pool_transactions = 0

    async def open(self, signer: Signer, verifier: BatchVerifier) -> Standing:
        """Raises RayError where a process does not start."""
        self._crypto = signer, verifier
        return await self._begin_epoch(signer, verifier)

    def prepare(self, incarnation: int) -> None:
        """Starts the other processes; they load their modules while this one does."""
        self._era = incarnation << _EPOCH_BITS
        genesis, settings = encode(self._genesis), self._settings
        prefix = f"validator-{settings.index}.{incarnation}"

        def start(kind: Any, name: str, *arguments: Any) -> Any:
            options = {"name": f"{prefix}/{name}", "num_cpus": 0}
            child = kind.options(**options, max_restarts=0, max_task_retries=0).remote(*arguments)
            self._children[name] = child
            return child

        self._partitions = [
            start(ServerActor, f"partition-{n}", "partition") for n in range(settings.partitions)
        ]
        # A single executor in another process would only add a call: the ledger is it.
        count = settings.executors if settings.executors > 1 else 0
        self._executors = [start(ServerActor, f"executor-{n}", "executor") for n in range(count)]
        self._ledger = start(LedgerActor, LEDGER_NAME, genesis, settings)
        self._shard_handles = [
            start(ShardActor, shard_name(n), genesis, settings, n) for n in range(settings.shards)
        ]

    async def _begin_epoch(self, signer: Signer, verifier: BatchVerifier) -> Standing:
        """Opens the rooms for the epoch that the ledger stands in; nothing runs yet."""
        ledger, era = self._ledger, self._era
        self._receiver = Receiver(era)
        opened: Opened = await ledger.open.remote(
            era, self._partitions, self._executors, signer.public_key
        )
        present = opened.present
        own = present.place_of(signer.public_key)
        self._shards = [] if own is None else self._shard_handles
        opening: list[Awaitable[Any]] = []
        if own is not None:
            accounts = ledger.accounts.remote()
            opening = [shard.open.remote(era, [accounts], present, own) for shard in self._shards]
        (rooms, storages), *_ = await asyncio.gather(
            asyncio.to_thread(self._open_rooms, signer, verifier, present, own), *opening
        )
        remote = [LEDGER, *(RoomKey(Room.MEMPOOL, shard) for shard in range(len(self._shards)))]
        self._driver = Driver(
            Node(rooms, remote, self._asked),
            storages,
            self._desk.on_event,
            self._on_stop,
            self._forward,
        )
        self._rules = present.rules
        self._standing = Standing(present.committee, own, _keys(opened.keys))
        return self._standing

    def _open_rooms(
        self, signer: Signer, verifier: BatchVerifier, present: Present, own: int | None
    ) -> tuple[dict[RoomKey, Core], dict[RoomKey, Storage]]:
        """The rooms of this process, and what they write to."""
        genesis, path = self._genesis, self._settings.directory
        journal = FileJournal(path / "journal", sync=True)
        storages: dict[RoomKey, Storage] = {VALIDATOR: journal}
        if own is None:
            self._consensus = FollowerCore(present.committee)
            return {VALIDATOR: self._consensus}, storages
        # Read before the rooms begin: then the journal begins anew.
        seat = Seat(genesis, present, own, signer, verifier, journal.journalled)
        core = self._consensus = open_consensus(seat)
        rooms: dict[RoomKey, Core] = {VALIDATOR: core}
        offences = OffenceFile(path / "offences")
        reader = ShardAccounts(self._shards[0], READ_TIMEOUT_SECONDS)
        reporter = open_reporter(seat, core, offences, reader, len(self._shards))
        if reporter is not None:
            rooms[REPORTER] = reporter
            storages[REPORTER] = offences
        return rooms, storages

    def sources(self) -> Sources:
        ledger, consensus = self._ledger, self._consensus
        standing, rules = self._standing, self._rules
        if consensus is None or standing is None or rules is None:
            raise QnetError(Code.NOT_READY)

        def read(frame: bytes) -> bytes:
            answer: bytes = ray.get(ledger.read.remote(frame), timeout=READ_TIMEOUT_SECONDS)
            return answer

        def prove(address: bytes, height: int) -> Proof:
            from qnet_actors.state import PartitionedProofs

            proofs = PartitionedProofs([RayPort(handle) for handle in self._partitions])
            try:
                return proofs.prove(address, height)
            except PortFault as fault:
                raise QnetError(Code.NOT_READY, f"a partition does not answer: {fault}") from None

        log = RemoteLog(read)
        return Sources(
            committee=standing.committee,
            rules=rules,
            own=standing.own,
            status=lambda: consensus.status,
            equivocations=(
                consensus.evidence.equivocations if isinstance(consensus, ValidatorCore) else tuple
            ),
            log=log,
            ledger=LedgerQueries(log),
            account=self._account,
            prove=prove,
            pool_transactions=lambda: self._pool_transactions,
        )

    async def begin(self, peers: Neighbours) -> None:
        """Ledger, shards, consensus: each holds what comes early until it has begun itself."""
        self._peers = peers
        ledger, era = self._ledger, self._era
        me = ray.get_runtime_context().current_actor
        shards = {shard_name(n): handle for n, handle in enumerate(self._shards)}
        await ledger.begin.remote({VALIDATOR_NAME: me, **shards})
        away = {VALIDATOR_NAME: me, LEDGER_NAME: ledger}
        await asyncio.gather(*(shard.begin.remote(away) for shard in self._shards))
        for name, handle in {LEDGER_NAME: ledger, **shards}.items():
            self._channels[name] = Channel(
                f"{VALIDATOR_NAME}>{name}",
                era,
                caller(handle),
                self._fault,
                self._ledger_answered if name == LEDGER_NAME else None,
            )
        if self._driver is not None:
            self._driver.start(peers)
        self._begun.set()
        if self._watching is None:
            self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def submit(self, transactions: list[bytes]) -> list[Result]:
        """See `gateway.backend.Backend`."""
        await self._begun.wait()
        self._desk.check_running()
        if not self._shards:
            raise QnetError(Code.NOT_READY, "it is not of the committee")
        parts: dict[int, list[int]] = {}
        for position, data in enumerate(transactions):
            parts.setdefault(sender_shard(data, len(self._shards)), []).append(position)
        if any(self._channels[shard_name(shard)].busy for shard in parts):
            raise QnetError(Code.BUSY)
        answers = await asyncio.gather(
            *(
                self._desk.submit_to_next(
                    [transactions[at] for at in positions], partial(self._mempool, shard)
                )
                for shard, positions in parts.items()
            )
        )
        results: dict[int, Result] = {}
        for positions, answer in zip(parts.values(), answers, strict=True):
            results.update(zip(positions, answer, strict=True))
        return [results[at] for at in range(len(transactions))]

    async def _mempool(self, shard: int) -> Callable[[Submit], None]:
        await self._begun.wait()
        if not self._shards:
            raise QnetError(Code.NOT_READY, "it is not of the committee")
        return partial(self._forward, RoomKey(Room.MEMPOOL, shard))

    def prune(self) -> None:
        if self._ledger is not None:
            self._ledger.prune.remote()

    async def receive(self, frame: Any) -> None:
        """Takes a frame of events from another process of this validator."""
        await self._begun.wait()
        if self._receiver is None or self._driver is None:
            raise RuntimeError("begun without being started")
        for item in self._receiver.items(await received_async(frame)):
            key, event = decode_event(item)
            if isinstance(event, SendToPeers):
                self._send(key.shard, event)
            elif isinstance(event, Stopped):
                self._driver.halt(event.reason)
            elif isinstance(event, EpochOver):
                self._begun.clear()
                self._renewal = asyncio.get_running_loop().create_task(self._renew())
            elif isinstance(event, Registered):
                self._registered(event)
            elif key.room == Room.GATEWAY:
                self._desk.on_event(event)
            else:
                self._driver.handle(Room.VALIDATOR, event)

    def _registered(self, event: Registered) -> None:
        if self._standing is not None:
            self._standing = replace(self._standing, keys=_keys(event.keys))
            self._on_standing(self._standing)

    async def _renew(self) -> None:
        """From one epoch to the next: the processes stay, and their rooms are made anew."""
        try:
            await self._end_epoch()
        except Exception as error:  # noqa: BLE001 - handed on
            self._fault(f"the next epoch does not begin: {type(error).__name__}: {error}")
        finally:
            # Also where none begins: who waits for it learns from the desk why.
            self._begun.set()
            self._desk.renew()

    async def _end_epoch(self) -> None:
        driver, peers, crypto = self._driver, self._peers, self._crypto
        if driver is None or peers is None or crypto is None:
            raise RuntimeError("an epoch ended that did not begin")
        # First consensus, which speaks to the others through the channels.
        await driver.close()
        if driver.unwritten is not None:
            return
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        # All have stopped speaking before any hears of the next epoch.
        await self._ledger.end_epoch.remote()
        await asyncio.gather(*(shard.end_epoch.remote() for shard in self._shards))
        self._era += 1
        standing = await self._begin_epoch(*crypto)
        self._on_standing(standing)
        await self.begin(peers)
        for name in peers.up:
            self.on_up(name)

    async def close(self) -> None:
        """Ends the other processes too; safe to call twice."""
        if self._renewal is not None:
            await asyncio.gather(self._renewal, return_exceptions=True)
        if self._driver is not None:
            await self._driver.close()
        await self._end_rooms()

    async def processes(self) -> dict[str, int]:
        names, children = list(self._children), list(self._children.values())
        pids = await asyncio.gather(
            *(child.process_id.remote() for child in children), return_exceptions=True
        )
        return {name: pid for name, pid in zip(names, pids, strict=True) if isinstance(pid, int)}

    async def _end_rooms(self) -> None:
        """The stores are closed where that is quick; what is written is durable anyway."""
        for channel in self._channels.values():
            await channel.close()
        children, self._children = list(self._children.values()), {}
        closing = [child.close.remote() for child in children if hasattr(child, "close")]
        if closing:
            await asyncio.to_thread(
                ray.wait, closing, num_returns=len(closing), timeout=CLOSE_TIMEOUT_SECONDS
            )
        for child in children:
            ray.kill(child)

    def _send(self, shard: int, event: SendToPeers) -> None:
        if self._peers is None:
            return
        if isinstance(event.message, BatchRequest):
            self._asked.note(shard, event.message)
        if event.peers is None:
            self._peers.broadcast(event.message)
            return
        for peer in event.peers:
            self._peers.send(peer, event.message)

    def on_message(self, peer: int, message: Message) -> Awaitable[None] | None:
        """Nothing more is read from a peer while a room cannot follow."""
        if self._driver is None or not self._begun.is_set():
            return None
        self._driver.on_message(peer, message)
        busy = [channel for channel in self._channels.values() if channel.busy]
        return self._calm(busy) if busy else None

    def on_up(self, peer: int) -> None:
        # Who comes up before the rooms have begun is told of as they begin.
        if self._driver is not None and self._begun.is_set():
            self._driver.on_up(peer)

    async def _calm(self, channels: list[Channel]) -> None:
        for channel in channels:
            await channel.calm()

    def _forward(self, key: RoomKey, event: Any) -> None:
        self._channels[receiver_of(key)].put(self._encoder.encode(key, event))

    def _ledger_answered(self, wake_in_ms: int | None) -> None:
        """The ledger is called again when it wants to be."""
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        if wake_in_ms is not None:
            self._wake = asyncio.get_running_loop().call_later(
                wake_in_ms / 1_000, self._channels[LEDGER_NAME].nudge
            )

    async def _watch(self) -> None:
        """Asks every other process whether it lives, also one that nothing is sent to."""
        try:
            while self._desk.stopped is None:
                answers = asyncio.gather(
                    *(child.ping.remote() for child in self._children.values())
                )
                async with asyncio.timeout(PING_TIMEOUT_SECONDS):
                    await asyncio.wait([answers], timeout=SILENCE_SECONDS)
                    self._heard(answers.done())
                    self._pool_transactions = sum(await answers)
                self._heard(True)
                await asyncio.sleep(PING_SECONDS)
        except Exception as error:  # noqa: BLE001 - handed on
            self._fault(f"a room does not answer: {type(error).__name__}")

    def _heard(self, all_: bool) -> None:
        """Whether all have answered in time."""
        if self._desk.silent is all_:
            state = "answer again" if all_ else "do not all answer; no work is taken"
            logger.warning("validator %d: its processes %s", self._index, state)
        self._desk.silent = not all_

    async def _account(self, address: bytes) -> AccountAnswer:
        """From the shard whose transactions the account's are: it knows the next nonce."""
        if not self._shards:
            raise QnetError(Code.NOT_READY, "it is not of the committee")
        shard = self._shards[shard_of(address, len(self._shards))]
        height, nonce, balance, key_id, next_nonce = await shard.account.remote(address)
        return AccountAnswer(height, balance, nonce, next_nonce, key_id)

    def _fault(self, reason: str) -> None:
        """Part of the validator is gone: all of it starts again."""
        if self._desk.stopped is None:
            die(f"validator {self._index}: {reason}")


def _keys(keys: Iterable[tuple[int, bytes]]) -> tuple[PeerKey, ...]:
    return tuple(PeerKey(*key) for key in keys)


def sender_shard(transaction: bytes, shards: int) -> int:
    """The shard of a transaction's sender; 0 where there is none to be read, to be refused."""
    sender = transaction[_SENDER_AT : _SENDER_AT + 32]
    if transaction[_SENDER_AT - 2 : _SENDER_AT] != b"\xc4\x20" or len(sender) != 32:
        return 0
    return shard_of(sender, shards)
