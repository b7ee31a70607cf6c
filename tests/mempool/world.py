"""A small network for the tests of the mempool: clients, accounts, shards on a lossy bus."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from qnet_actors.crypto import BatchVerifier, simulator_provider
from qnet_actors.mempool import (
    Holdings,
    MemoryBatchStore,
    MempoolSettings,
    MempoolShard,
)
from qnet_actors.rooms import (
    AccountColumns,
    BatchesExpiring,
    BatchesReleased,
    BlockExecuted,
    Effect,
    FromPeer,
    PeerUp,
    Persist,
    Room,
    Run,
    Submit,
    SubmitResult,
    ToPeers,
    ToRoom,
)
from qnet_actors.wire.blocks import BlockHeader, BlockRecord, Certificate, Checkpoint, WriteSet
from qnet_actors.wire.codec import encode
from qnet_actors.wire.committee import Member
from qnet_actors.wire.genesis import GENESIS_VERSION, Genesis, Parameters
from qnet_actors.wire.schemes import CONTEXT_TRANSACTION, Scheme, key_id
from qnet_actors.wire.transactions import (
    Action,
    Body,
    RotateKey,
    Transaction,
    Transfer,
    Witness,
    transaction_id,
)

ZERO = bytes(32)
PROVIDER = simulator_provider()
VERIFIER = BatchVerifier(PROVIDER)
SCHEME = Scheme.KEYED_HASH
GAS = 2_000
BALANCE = 10**12


def digest_of(number: int) -> bytes:
    return number.to_bytes(32, "big")


def genesis_of(validators: int = 4, stakes: Sequence[int] | None = None, **fields: Any) -> Genesis:
    members = tuple(
        Member(
            scheme=SCHEME,
            public_key=digest_of(1_000 + i),
            stake=1 if stakes is None else stakes[i],
            reward=digest_of(i),
        )
        for i in range(validators)
    )
    parameters = Parameters(**fields.pop("parameters", {}))
    schemes = fields.pop("schemes", (int(SCHEME),))
    return Genesis(GENESIS_VERSION, "test", True, 0, schemes, parameters, members, ())


GENESIS = genesis_of()
CHAIN_ID = GENESIS.chain_id()


class Client:
    """A sender with a key; `rotated` gives the same sender another one."""

    def __init__(self, number: int, address: bytes | None = None) -> None:
        pair = PROVIDER.generate(SCHEME, digest_of(number))
        self.public_key = pair.public_key
        self.key_id = key_id(SCHEME, pair.public_key)
        self.address = self.key_id if address is None else address
        self._key = PROVIDER.signing_key(SCHEME, digest_of(number))

    def rotated(self, number: int) -> Client:
        return Client(number, self.address)

    def transaction(
        self,
        nonce: int,
        *,
        price: int = 10,
        amount: int = 1,
        action: Action | None = None,
        with_key: bool = True,
        signature: bytes | None = None,
        **fields: Any,
    ) -> Transaction:
        terms: dict[str, Any] = {
            "version": 1,
            "chain_id": CHAIN_ID,
            "sender": self.address,
            "key_id": self.key_id,
            "nonce": nonce,
            "valid_until": 0,
            "gas_limit": GAS,
            "gas_price": price,
            "access": (),
            "action": Transfer(digest_of(7), amount) if action is None else action,
        }
        body = Body(**(terms | fields))
        if signature is None:
            signature = self._key.sign(transaction_id(encode(body)), CONTEXT_TRANSACTION)
        return Transaction(body, Witness(SCHEME, signature, self.public_key if with_key else b""))

    def send(self, nonce: int, **fields: Any) -> bytes:
        return encode(self.transaction(nonce, **fields))

    def rotate(self, nonce: int, other: Client, **fields: Any) -> bytes:
        return self.send(nonce, action=RotateKey(other.key_id), **fields)


def id_of(data: bytes) -> bytes:
    from qnet_actors.wire.transactions import TRANSACTION_CODEC

    return transaction_id(encode(TRANSACTION_CODEC.decode(data).body))


class Accounts:
    """An `AccountReader`; every account not set has `BALANCE` and no key."""

    def __init__(self) -> None:
        self.accounts: dict[bytes, tuple[int, int, bytes]] = {}
        self.reads = 0

    def get(self, address: bytes) -> tuple[int, int, bytes]:
        return self.accounts.get(address, (0, BALANCE, ZERO))

    def set(
        self, address: bytes, nonce: int = 0, balance: int = BALANCE, key: bytes = ZERO
    ) -> None:
        self.accounts[address] = (nonce, balance, key)

    def read(self, addresses: np.ndarray) -> AccountColumns:
        self.reads += 1
        rows = [self.get(row.tobytes()) for row in addresses]
        return AccountColumns(
            np.array([row[0] for row in rows], dtype=np.uint64),
            np.array([row[1] for row in rows], dtype=np.uint64),
            np.frombuffer(b"".join(row[2] for row in rows), dtype=np.uint8).reshape(-1, 32),
        )


@dataclass
class Sent:
    """What a shard gave out, by receiver."""

    peers: list[ToPeers] = field(default_factory=list)
    rooms: dict[Room, list[Any]] = field(default_factory=lambda: {room: [] for room in Room})

    def events(self, room: Room, kind: type) -> list[Any]:
        return [event for event in self.rooms[room] if isinstance(event, kind)]


class Driver:
    """Carries out one shard's effects at once; jobs may be held back with `hold_runs`."""

    def __init__(self, shard: MempoolShard, store: Any, now_ms: int = 1_000) -> None:
        self.shard = shard
        self.store = store
        self.now_ms = now_ms
        self.sent = Sent()
        self.hold_runs = False
        self.releases = True
        """Whether the validator lets go at once what it is asked about."""
        self.runs: list[Run] = []
        self.writes: list[Any] = []
        self.log: list[str] = []
        """What was carried out, in order: "write", or the kind of a message or event."""
        self.settle(shard.tick(now_ms))

    def give(self, event: Any) -> None:
        self.settle(self.shard.handle(event, self.now_ms))
        self.settle(self.shard.tick(self.now_ms))

    def settle(self, effects: Sequence[Effect]) -> None:
        queue = deque(effects)
        while queue:
            effect = queue.popleft()
            match effect:
                case Persist(writes):
                    self.log.append("write")
                    self.writes += writes
                    self.store.write(writes)
                case Run() if self.hold_runs:
                    self.runs.append(effect)
                case Run(call, then):
                    queue.extend(then(call(), self.now_ms))
                case ToPeers(message):
                    self.log.append(type(message).__name__)
                    self.sent.peers.append(effect)
                case ToRoom(room, event):
                    self.log.append(type(event).__name__)
                    self.sent.rooms[room].append(event)
                    if isinstance(event, BatchesExpiring) and self.releases:
                        released = BatchesReleased(event.digests)
                        queue.extend(self.shard.handle(released, self.now_ms))
                case _:
                    raise AssertionError(effect)

    def run(self, at: int = 0) -> None:
        """Ends one job that was held back."""
        job = self.runs.pop(at)
        self.settle(job.then(job.call(), self.now_ms))
        self.settle(self.shard.tick(self.now_ms))

    def advance(self, ms: int) -> None:
        """Lets time pass, with every tick that is wanted on the way."""
        end = self.now_ms + ms
        for _ in range(10_000):
            wake = self.shard.wake_ms()
            if wake is None or wake > end:
                break
            self.now_ms = max(self.now_ms, wake)
            before = wake
            self.settle(self.shard.tick(self.now_ms))
            after = self.shard.wake_ms()
            assert after is None or after > before, "a tick that changes nothing"
        self.now_ms = end

    def submit(self, *transactions: bytes) -> list[int]:
        """The codes; the jobs run at once."""
        self.give(Submit(1, transactions))
        answer = self.sent.events(Room.GATEWAY, SubmitResult)[-1]
        return [code for code, _, _ in answer.results]

    def messages(self, kind: type) -> list[Any]:
        return [effect.message for effect in self.sent.peers if isinstance(effect.message, kind)]


def make_driver(
    *,
    accounts: Accounts | None = None,
    store: Any = None,
    settings: MempoolSettings | None = None,
    genesis: Genesis = GENESIS,
    own_index: int = 0,
    height: int = 0,
    now_ms: int = 1_000,
    **fields: Any,
) -> Driver:
    """A shard on its own; `store`, where given, is loaded first."""
    store = MemoryBatchStore() if store is None else store
    holdings = Holdings(store, store.load(), settings)
    shard = MempoolShard(
        genesis=genesis,
        committee=genesis.committee(),
        own_index=own_index,
        holdings=holdings,
        verifier=VERIFIER,
        reader=Accounts() if accounts is None else accounts,
        height=height,
        settings=settings,
        **fields,
    )
    return Driver(shard, store, now_ms)


def block(
    accounts: Accounts,
    *,
    height: int = 1,
    commit_index: int = 1,
    bodies: Sequence[bytes] = (),
    batches: Sequence[bytes] = (),
    excluded: Sequence[bytes] = (),
    changed: Sequence[bytes] = (),
) -> BlockExecuted:
    """A block that left the `changed` accounts as `accounts` has them."""
    rows = [accounts.get(address) for address in changed]
    writes = WriteSet(
        b"".join(changed),
        np.array([row[0] for row in rows], dtype="<u8").tobytes(),
        np.array([row[1] for row in rows], dtype="<u8").tobytes(),
        b"".join(row[2] for row in rows),
    )
    header = BlockHeader(
        1, CHAIN_ID, 0, height, ZERO, commit_index, ZERO, 0, ZERO, ZERO, ZERO, len(bodies), 0, 0
    )
    record = BlockRecord(header, (), tuple(bodies), (), writes, None)
    return BlockExecuted(record, header.hash(), tuple(batches), tuple(excluded))


def certificate(height: int, commit_index: int) -> Certificate:
    return Certificate(Checkpoint(CHAIN_ID, height, ZERO, ZERO, commit_index, ZERO, ZERO, 0, 1), ())


class Bus:
    """Validators joined by links that lose what `loses` says, in virtual time."""

    def __init__(self, drivers: Sequence[Driver], seed: int = 0) -> None:
        self.drivers = list(drivers)
        self.random = random.Random(seed)
        self.loses: Callable[[int, int, Any], bool] = lambda sender, receiver, message: False
        self._read = [0] * len(drivers)
        self.delivered = 0

    def deliver(self) -> bool:
        """Hands over what was sent since; whether there was anything."""
        moved = False
        for sender, driver in enumerate(self.drivers):
            sent = driver.sent.peers[self._read[sender] :]
            self._read[sender] += len(sent)
            for effect in sent:
                others = [i for i in range(len(self.drivers)) if i != sender]
                for receiver in others if effect.peers is None else effect.peers:
                    moved = True
                    if not self.loses(sender, receiver, effect.message):
                        self.delivered += 1
                        self.drivers[receiver].give(FromPeer(sender, effect.message))
        return moved

    def run(self, ms: int, step_ms: int = 10) -> None:
        for _ in range(ms // step_ms):
            while self.deliver():
                pass
            for driver in self.drivers:
                driver.advance(step_ms)
        while self.deliver():
            pass

    def peer_up(self, a: int, b: int) -> None:
        self.drivers[a].give(PeerUp(b))
        self.drivers[b].give(PeerUp(a))

    def replace(self, index: int, driver: Driver) -> None:
        self.drivers[index] = driver
        self._read[index] = 0


def settings(**fields: Any) -> MempoolSettings:
    return replace(MempoolSettings(), **fields)
