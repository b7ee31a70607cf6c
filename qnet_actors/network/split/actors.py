"""The Ray actors of a split validator's rooms: thin, each around a room that knows no Ray.

They belong to the actor of their validator, which starts them: when it dies, Ray ends them.  None
is restarted alone; see docs/concepts/placement.md.  Imports of rooms stand where those are made, so
that each process loads its own only: imports are most of the processor time of a start.
"""

from __future__ import annotations

import asyncio
import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np
import ray

from qnet_actors.crypto import choose
from qnet_actors.network.node import RoomKey
from qnet_actors.network.orphan import end_with_parent
from qnet_actors.network.present import Present
from qnet_actors.network.settings import HostSettings
from qnet_actors.network.split.calls import (
    Courier,
    RayPort,
    caller,
    die,
    received,
    received_async,
    result,
)
from qnet_actors.network.split.channel import Channel, PortFault, Receiver
from qnet_actors.network.split.events import EventEncoder, decode_event
from qnet_actors.network.split.lock import hold
from qnet_actors.network.split.reads import LogServer
from qnet_actors.rooms import Room
from qnet_actors.wire.blocks import WriteSet
from qnet_actors.wire.codec import Codec, Struct, encode
from qnet_actors.wire.genesis import GENESIS_CODEC

if TYPE_CHECKING:
    from qnet_actors.ledger import DuckLog, Executor
    from qnet_actors.mempool import Entry
    from qnet_actors.network.split.ledger import LedgerRoom
    from qnet_actors.network.split.shard import ShardRoom
    from qnet_actors.state import PartitionServer

VALIDATOR_NAME: Final = "validator"
LEDGER_NAME: Final = "ledger"


def shard_name(shard: int) -> str:
    return f"mempool-{shard}"


def receiver_of(key: RoomKey) -> str:
    """The process that a room lives in."""
    if key.room == Room.MEMPOOL:
        return shard_name(key.shard)
    return LEDGER_NAME if key.room == Room.LEDGER else VALIDATOR_NAME


def batches_path(directory: Path, shard: int) -> Path:
    """Where a shard keeps its batches; the first where a packed validator does."""
    return directory / (f"batches-{shard}" if shard else "batches")


class Accounts(Struct, frozen=True):
    """All accounts at a height."""

    height: int
    accounts: WriteSet


class Opened(NamedTuple):
    """What the ledger tells of the epoch that it stands in."""

    present: Present
    keys: tuple[tuple[int, bytes], ...]
    """See `LedgerRoom.keys`."""


_ACCOUNTS: Final = Codec[Accounts](Accounts, 2**32)


class Server:
    """A state partition or an executor: one frame after the other."""

    def __init__(self, kind: Literal["partition", "executor"]) -> None:
        end_with_parent()
        if kind == "partition":
            from qnet_actors.state import PartitionServer

            self._server: Executor | PartitionServer = PartitionServer()
        else:
            from qnet_actors.ledger import Executor

            self._server = Executor()

    def handle(self, frame: Any) -> Any:
        return result(self._server.handle(received(frame)))

    def ping(self) -> int:
        return 0

    def process_id(self) -> int:
        return os.getpid()


class Ledger:
    """The ledger with its block log."""

    def __init__(self, genesis: bytes, settings: HostSettings) -> None:
        end_with_parent()
        # What `open` needs is loaded here, while the other processes start too.
        import_module("qnet_actors.network.split.ledger")
        self._verifier = choose(settings.provider).verifier
        self._genesis = GENESIS_CODEC.decode(genesis)
        self._settings = settings
        self._lock = hold(settings.directory / "ledger.lock")
        self._receiver = Receiver(0)
        self._courier: Courier | None = None
        self._encoder = EventEncoder()
        self._room: LedgerRoom | None = None
        self._log: DuckLog | None = None
        self._reads: LogServer | None = None

    def open(
        self, incarnation: int, partitions: list[Any], executors: list[Any], public_key: bytes
    ) -> Opened:
        """Recovers, or goes on with what the epoch before has left after `end_epoch`."""
        from qnet_actors.ledger import DuckLog, LogOptions
        from qnet_actors.network.split.ledger import LedgerRoom

        genesis = self._genesis
        if self._log is None:
            path = self._settings.directory / "ledger"
            power = genesis.parameters.power_durability
            options = LogOptions(fsync=power, retention=self._settings.keep.blocks)
            self._log = DuckLog(path, genesis.chain_id(), options)
            self._reads = LogServer(self._log)
        carried = None if self._room is None else self._room.handed_over()
        self._receiver = Receiver(incarnation)
        self._courier = Courier(LEDGER_NAME, incarnation)
        self._room = LedgerRoom(
            genesis,
            self._verifier,
            self._log,
            self._settings.shards,
            [RayPort(handle) for handle in partitions],
            [RayPort(handle) for handle in executors],
            self._forward,
            rows_min=self._settings.executor_rows_min,
            snapshots=self._settings.keep.snapshots,
            carried=carried,
            public_key=public_key,
        )
        return Opened(self._room.present, self._room.keys)

    def end_epoch(self) -> None:
        """Says nothing more; `open` comes next.  What still comes in concerns nobody."""
        if self._courier is not None:
            self._courier.close()
            self._courier = None

    def accounts(self) -> Any:
        """All accounts, for the copies of the shards; asked before `begin`."""
        state = self._opened().state
        frame = encode(Accounts(state.height, state.snapshot()))
        return np.frombuffer(frame, dtype=np.uint8)

    def begin(self, receivers: dict[str, Any]) -> None:
        """Starts, now that all the others are open."""
        if self._courier is None:
            raise RuntimeError("open comes first")
        self._courier.connect(receivers)
        self._opened().start()

    def receive(self, frame: Any) -> int | None:
        """Takes a frame of events; returns in how many milliseconds to call again."""
        items = self._receiver.items(received(frame))
        try:
            return self._opened().handle(decode_event(item) for item in items)
        except PortFault as fault:
            die(f"a partition or executor is gone: {fault}")

    def prune(self) -> None:
        """Has pruned what need not be kept, in the background."""
        if self._log is not None:
            self._log.prune()

    def read(self, frame: bytes) -> Any:
        """A read of the block log, as frames."""
        if self._reads is None:
            raise RuntimeError("open comes first")
        return result(self._reads.handle(frame))

    def ping(self) -> int:
        return 0

    def process_id(self) -> int:
        return os.getpid()

    def close(self) -> None:
        if self._log is not None:
            self._log.close()

    def _opened(self) -> LedgerRoom:
        if self._room is None:
            raise RuntimeError("open comes first")
        return self._room

    def _forward(self, key: RoomKey, event: Any) -> None:
        if self._courier is not None:
            self._courier.put(receiver_of(key), self._encoder.encode(key, event))


class Shard:
    """A mempool shard with its batch store."""

    def __init__(self, genesis: bytes, settings: HostSettings, shard: int) -> None:
        end_with_parent()
        # As the ledger: loaded before there is anything else to do.
        import_module("qnet_actors.network.split.shard")
        self._verifier = choose(settings.provider).verifier
        self._genesis = GENESIS_CODEC.decode(genesis)
        self._settings = settings
        self._incarnation = 0
        self._shard = shard
        self._receiver = Receiver(0)
        self._lock: int | None = None
        self._encoder = EventEncoder()
        self._channels: dict[str, Channel] = {}
        self._room: ShardRoom | None = None
        self._begun = asyncio.Event()
        self._leftovers: tuple[int, list[Entry]] = 0, []
        """The incarnation that is to take them over, and what no batch holds."""

    async def open(self, incarnation: int, accounts: list[Any], present: Present, own: int) -> None:
        """Recovers, with the accounts as the ledger has them, for the epoch that it stands in."""
        from qnet_actors.mempool import FileBatchStore
        from qnet_actors.network.split.shard import ShardRoom
        from qnet_actors.state import AccountReplica

        self._incarnation, self._receiver = incarnation, Receiver(incarnation)
        (heir, leftovers), self._leftovers = self._leftovers, (0, [])
        frame = _ACCOUNTS.decode(memoryview(await accounts[0]))
        path = batches_path(self._settings.directory, self._shard)
        if self._lock is None:
            self._lock = await asyncio.to_thread(hold, path.with_name(f"{path.name}.lock"))
        power = self._genesis.parameters.power_durability
        store = await asyncio.to_thread(FileBatchStore, path, power=power)
        self._room = ShardRoom(
            self._genesis,
            present,
            own,
            self._shard,
            self._settings.shards,
            self._verifier,
            store,
            AccountReplica(frame.height, frame.accounts),
            self._forward,
            leftovers if heir == incarnation else (),
        )

    async def end_epoch(self) -> None:
        """Closes what the epoch had, and keeps for the next what no batch holds; `open` follows,
        unless the validator is not of the next committee."""
        self._begun.clear()
        await self.close()
        if self._room is not None:
            self._leftovers = self._incarnation + 1, self._room.leftovers()
        self._channels, self._room = {}, None

    async def begin(self, receivers: dict[str, Any]) -> None:
        """Starts, now that all the others are open."""
        for name, handle in receivers.items():
            self._channels[name] = Channel(
                f"{shard_name(self._shard)}>{name}", self._incarnation, caller(handle), die
            )
        self._opened().start()
        self._begun.set()

    async def receive(self, frame: Any) -> None:
        """Takes a frame of events."""
        await self._begun.wait()
        for item in self._receiver.items(await received_async(frame)):
            self._opened().handle(decode_event(item)[1])

    async def account(self, address: bytes) -> tuple[int, int, int, bytes, int]:
        """(height, nonce, balance, key id, next nonce) of an account."""
        room = self._opened()
        height, values = room.read_at(np.frombuffer(address, dtype=np.uint8).reshape(1, 32))
        nonce = int(values.nonces[0])
        return (
            height,
            nonce,
            int(values.balances[0]),
            values.key_ids[0].tobytes(),
            room.next_nonce(address, nonce),
        )

    async def ping(self) -> int:
        """How many transactions are in the pool."""
        return 0 if self._room is None else self._room.pool_transactions

    async def process_id(self) -> int:
        return os.getpid()

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close()
        if self._room is not None:
            await self._room.close()

    def _opened(self) -> ShardRoom:
        if self._room is None:
            raise RuntimeError("open comes first")
        return self._room

    def _forward(self, key: RoomKey, event: Any) -> None:
        self._channels[receiver_of(key)].put(self._encoder.encode(key, event))


ServerActor: Any = ray.remote(Server)
LedgerActor: Any = ray.remote(Ledger)
ShardActor: Any = ray.remote(Shard)
