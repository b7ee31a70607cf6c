"""The seam between the pure cores of the rooms and whatever drives them.

A room is a core without I/O: it takes an event and the time, and returns effects.  Three drivers
carry effects out: the packed host (one process a validator), the actors of the split placement,
and the simulator on its virtual clock.

What a driver owes a room:

- Effects of one room are carried out in the order in which they were returned.  `Persist` is a
  barrier: what follows it, also in later returns, is released only once the write is durable at
  the network's level.  A driver may gather the writes that wait into one.
- `Run` starts at once, off the event loop, and is no barrier.  `then` is called back with the
  result and the time, as an event of the same room.
- `tick` is called at `wake_ms()`, never much later, and at least after every event.
- A fault of the node (an exception from `Run`, a failed `Persist`, a broken invariant) stops it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from qnet_actors.wire.batches import Batch, BatchRef
from qnet_actors.wire.blocks import BlockRecord, Certificate, Checkpoint
from qnet_actors.wire.dag import Commit
from qnet_actors.wire.messages import Message


class Room(IntEnum):
    """Who an event inside one validator is for."""

    MEMPOOL = 1
    VALIDATOR = 2
    LEDGER = 3
    GATEWAY = 4
    REPORTER = 5


@dataclass(frozen=True, slots=True)
class ToPeers:
    """Sends `message` to other validators, in order, best effort; `peers` None: to all."""

    message: Message
    peers: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class ToRoom:
    """Hands `event` to another room of the same validator, in order."""

    room: Room
    event: Any
    shard: int = 0
    """Which mempool shard, where the room is one."""


@dataclass(frozen=True, slots=True)
class Persist:
    """Writes to the room's own storage; a barrier."""

    writes: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """CPU work without I/O, off the event loop."""

    call: Callable[[], Any]
    then: Callable[[Any, int], Sequence[Effect]]


@dataclass(frozen=True, slots=True)
class Halt:
    """Stops the validator: an assumption of the protocol does not hold."""

    reason: str


@dataclass(frozen=True, slots=True)
class NextEpoch:
    """The epoch is over, and that is durable: the rooms are to be made anew from storage."""

    number: int
    """Of the epoch that begins."""


Effect = ToPeers | ToRoom | Persist | Run | Halt | NextEpoch


class Core(Protocol):
    """What a driver sees of a room."""

    def handle(self, event: Any, now_ms: int) -> Sequence[Effect]:
        """Takes an event of `rooms` (or one of the room's own) and returns effects in order."""

    def tick(self, now_ms: int) -> Sequence[Effect]:
        """Does what is due at `now_ms`."""

    def wake_ms(self) -> int | None:
        """When `tick` is wanted next; None: not until something happens."""


class Storage(Protocol):
    """A room's durable side: files or a database, or the simulator's memory with losses."""

    def write(self, writes: Sequence[Any]) -> None:
        """Makes `writes` durable before it returns; raises on any failure."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class FromPeer:
    """A message of another validator, whose identity the link has proved; else hostile."""

    peer: int
    message: Message


@dataclass(frozen=True, slots=True)
class PeerUp:
    """A link stands (again); what was sent before may be lost."""

    peer: int


# Gateway <-> mempool


@dataclass(frozen=True, slots=True)
class Submit:
    """Transactions as clients sent them; answered by one `SubmitResult`."""

    request: int
    transactions: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class SubmitResult:
    """One (code, id, detail) a transaction, in order; id is empty where the bytes have none."""

    request: int
    results: tuple[tuple[int, bytes, str], ...]


@dataclass(frozen=True, slots=True)
class StatusChanged:
    """Mempool -> gateway: transactions reached `status` ("batched", or a refusal's label)."""

    status: str
    ids: tuple[bytes, ...]


# Mempool <-> validator


@dataclass(frozen=True, slots=True)
class BatchReady:
    """An own batch that a quorum holds durably, in sequence order within its shard."""

    ref: BatchRef
    quorum_ms: int = 0
    """How long the quorum took, which shows how busy the validators are; 0: not measured."""


@dataclass(frozen=True, slots=True)
class BatchesHeld:
    """Batches of others, verified and held durably, however they were obtained."""

    digests: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class FetchBatches:
    """Blocks name these batches and they are not held: get them, from `peer` first."""

    refs: tuple[tuple[int, BatchRef], ...]
    """(author, ref)"""
    peer: int


@dataclass(frozen=True, slots=True)
class BatchesDropped:
    """Own batches whose blocks fell below gc_round uncommitted: propose them again."""

    refs: tuple[BatchRef, ...]


@dataclass(frozen=True, slots=True)
class BatchesExpiring:
    """Mempool shard -> validator: these batches have been held for long enough.

    They are held on until `BatchesReleased` names them, and are asked about again until then.
    """

    digests: tuple[bytes, ...]
    shard: int


@dataclass(frozen=True, slots=True)
class BatchesReleased:
    """Validator -> mempool shard: no block that may yet be executed names these batches.

    They may be dropped: a block that names one from now on waits until it is held again.
    """

    digests: tuple[bytes, ...]


# Validator <-> ledger


@dataclass(frozen=True, slots=True)
class CommitReady:
    """A commit with the batches of its blocks, in order; delivered in order of index."""

    commit: Commit
    batches: tuple[tuple[int, BatchRef], ...]
    """(author, ref); a batch that an earlier commit named already does not stand here again."""


@dataclass(frozen=True, slots=True)
class CommitsExecuted:
    """All commits up to `index` are executed and durable."""

    index: int


@dataclass(frozen=True, slots=True)
class EpochEnds:
    """Ledger -> validator: the epoch ends with commit `index`; nothing after it is executed."""

    index: int


@dataclass(frozen=True, slots=True)
class CheckpointMade:
    """The ledger executed a checkpoint: vote for it."""

    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class CheckpointCertified:
    """Validator -> ledger, mempool, gateway: a quorum signed it; all up to its height is final."""

    certificate: Certificate


@dataclass(frozen=True, slots=True)
class CatchUp:
    """Validator -> ledger: too far behind to chase the DAG; take blocks from these peers."""

    peers: tuple[int, ...]
    height: int = 0
    """At least so high is a certified block of one of them; 0: not known."""


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """Ledger -> validator: executed up to a certified checkpoint from a peer's block log.

    `commits` are the last ones, oldest first, back to gc_round; the last is the checkpoint's.
    Without a certificate: nobody has one yet; the ledger goes on asking by itself.
    """

    certificate: Certificate | None
    commits: tuple[Commit, ...]


@dataclass(frozen=True, slots=True)
class Joined:
    """Ledger -> mempool, gateway: the state is that of a certified block far ahead.

    It was taken over from a peer's snapshot; what was executed between is not known here.
    """

    record: BlockRecord
    block_hash: bytes


@dataclass(frozen=True, slots=True)
class JoinProgress:
    """Ledger -> gateway: how much of a snapshot is here."""

    height: int
    """0: none is fetched any more, and blocks are taken instead."""
    parts: int
    parts_total: int


# Ledger <-> mempool


@dataclass(frozen=True, slots=True)
class BodiesWanted:
    """Ledger -> mempool shard: the batches of a commit, by digest."""

    commit_index: int
    digests: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Bodies:
    """Mempool shard -> ledger: the answer, in the order asked."""

    commit_index: int
    batches: tuple[Batch, ...]


@dataclass(frozen=True, slots=True)
class BlockExecuted:
    """Ledger -> mempool, gateway: a block is executed and durable."""

    record: BlockRecord
    block_hash: bytes
    batches: tuple[bytes, ...]
    """Digests of the batches that its commits named; empty where the block came from a peer."""
    excluded: tuple[bytes, ...]
    """Ids in those batches that were not included; a pool may try its own again."""


@dataclass(frozen=True, slots=True)
class AccountColumns:
    """Accounts in the order asked; one that does not exist reads as zeros."""

    nonces: npt.NDArray[np.uint64]
    balances: npt.NDArray[np.uint64]
    key_ids: npt.NDArray[np.uint8]
    """uint8[n, 32]; zeros: the account has no key yet, its address is the only valid key id."""


class AccountReader(Protocol):
    """The newest executed state, as admission and the gateway read it."""

    def read(self, addresses: npt.NDArray[np.uint8]) -> AccountColumns:
        """The accounts of `addresses`, uint8[n, 32]."""
