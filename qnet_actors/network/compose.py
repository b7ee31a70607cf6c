"""From what a validator's storages hold to its rooms and their node.

The packed host and the simulator both start here, so neither can put a validator together in a
way of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from qnet_actors.ledger import BlockLog, LedgerCore, SnapshotSettings
from qnet_actors.ledger import recover as recover_ledger
from qnet_actors.mempool import BatchStore, Holdings, MempoolSettings, MempoolShard
from qnet_actors.mempool import Verifier as ColumnVerifier
from qnet_actors.network.node import LEDGER, VALIDATOR, Node, RoomKey
from qnet_actors.rooms import Core, Room, Storage
from qnet_actors.state import State
from qnet_actors.validators import Journalled, ValidatorCore
from qnet_actors.validators import recover as recover_validator
from qnet_actors.validators.checks import Signer
from qnet_actors.validators.checks import Verifier as RowVerifier
from qnet_actors.wire.committee import Committee
from qnet_actors.wire.genesis import Genesis


class Verifier(RowVerifier, ColumnVerifier, Protocol):
    """What the rooms need of `crypto.BatchVerifier`: rows and columns."""


class Journal(Storage, Protocol):
    """A journal that has been read."""

    @property
    def journalled(self) -> Journalled:
        """What it held when it was opened."""


@dataclass(frozen=True, slots=True)
class Stores:
    """The durable side of a validator, opened and not yet read (but for the journal)."""

    batches: BatchStore
    journal: Journal
    log: BlockLog

    def by_room(self, shards: int) -> dict[RoomKey, Storage]:
        """Which storage each room writes to; the shards share one."""
        storages: dict[RoomKey, Storage] = {
            RoomKey(Room.MEMPOOL, shard): self.batches for shard in range(shards)
        }
        storages[VALIDATOR] = self.journal
        storages[LEDGER] = self.log
        return storages


@dataclass(frozen=True, slots=True)
class Validator:
    """The rooms of one validator, and the node that routes between them."""

    node: Node
    committee: Committee
    shards: tuple[MempoolShard, ...]
    consensus: ValidatorCore
    ledger: LedgerCore
    state: State
    stores: Stores


def compose(
    genesis: Genesis,
    index: int,
    signer: Signer,
    verifier: Verifier,
    stores: Stores,
    *,
    shards: int = 1,
    mempool: MempoolSettings | None = None,
    snapshots: SnapshotSettings | None = None,
) -> Validator:
    """The validator `index` of epoch 0, recovered from its stores.

    Raises `QnetError`: DATA_CORRUPT and the like where a store does not hold up.
    """
    committee = genesis.committee()
    ledger_recovered = recover_ledger(stores.log, genesis)
    state = ledger_recovered.state
    holdings = Holdings(stores.batches, stores.batches.load(), mempool)
    mempool_shards = tuple(
        MempoolShard(
            genesis=genesis,
            committee=committee,
            own_index=index,
            holdings=holdings,
            verifier=verifier,
            reader=state,
            shard=shard,
            shard_count=shards,
            height=ledger_recovered.tip.height,
            settings=mempool,
        )
        for shard in range(shards)
    )
    consensus = ValidatorCore(
        genesis=genesis,
        committee=committee,
        own=index,
        signer=signer,
        verifier=verifier,
        recovered=recover_validator(stores.journal.journalled, genesis, committee, index, verifier),
        executed_index=ledger_recovered.tip.commit_index,
    )
    ledger = LedgerCore(
        genesis=genesis,
        committee=committee,
        verifier=verifier,
        recovered=ledger_recovered,
        log=stores.log,
        snapshots=snapshots,
    )
    rooms: dict[RoomKey, Core] = {
        RoomKey(Room.MEMPOOL, shard): core for shard, core in enumerate(mempool_shards)
    }
    rooms[VALIDATOR] = consensus
    rooms[LEDGER] = ledger
    return Validator(Node(rooms), committee, mempool_shards, consensus, ledger, state, stores)
