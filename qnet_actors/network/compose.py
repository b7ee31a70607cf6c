"""From what a validator's storages hold to its rooms and their node.

The packed host and the simulator both start here, so neither can put a validator together in a
way of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from qnet_actors.ledger import (
    BlockLog,
    LedgerCore,
    Recovered,
    SnapshotSettings,
)
from qnet_actors.ledger import recover as recover_ledger
from qnet_actors.mempool import BatchStore, Entry, Holdings, MempoolSettings, MempoolShard
from qnet_actors.mempool import Verifier as ColumnVerifier
from qnet_actors.network.consensus import Seat, open_consensus, open_reporter
from qnet_actors.network.node import LEDGER, REPORTER, VALIDATOR, Node, RoomKey
from qnet_actors.network.offences import OffenceStore
from qnet_actors.network.present import present_of
from qnet_actors.rooms import Core, Room, Storage
from qnet_actors.state import State
from qnet_actors.validators import FollowerCore, Journalled, ValidatorCore
from qnet_actors.wire.committee import Committee
from qnet_actors.wire.genesis import Genesis
from qnet_actors.wire.rules import EpochRules
from qnet_actors.wire.schemes import Signer
from qnet_actors.wire.schemes import Verifier as RowVerifier


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
    offences: OffenceStore

    def by_room(self, shards: int) -> dict[RoomKey, Storage]:
        """Which storage each room writes to; the shards share one."""
        storages: dict[RoomKey, Storage] = {
            RoomKey(Room.MEMPOOL, shard): self.batches for shard in range(shards)
        }
        storages[VALIDATOR] = self.journal
        storages[LEDGER] = self.log
        storages[REPORTER] = self.offences
        return storages


@dataclass(frozen=True, slots=True)
class Validator:
    """The rooms of one validator, and the node that routes between them."""

    node: Node
    committee: Committee
    rules: EpochRules
    own: int | None
    """The index in the committee; None: it is not of it, and only follows."""
    shards: tuple[MempoolShard, ...]
    consensus: ValidatorCore | FollowerCore
    ledger: LedgerCore
    state: State
    stores: Stores


def compose(
    genesis: Genesis,
    signer: Signer,
    verifier: Verifier,
    stores: Stores,
    *,
    shards: int = 1,
    mempool: MempoolSettings | None = None,
    snapshots: SnapshotSettings | None = None,
    carried: Recovered[State] | None = None,
    observes: bool = False,
) -> Validator:
    """The validator with the signer's key in the epoch that its ledger stands in, recovered.

    The epoch after that begins once the certificate of the last block is stored.  `carried`: what
    the ledger of the epoch before handed over; None: it is read from the log.  `observes`: it never
    takes part, whoever its key belongs to.

    Raises `QnetError`: DATA_CORRUPT and the like where a store does not hold up;
    UNSUPPORTED_VERSION where the epoch goes by rules that this software does not know.
    """
    recovered = carried or recover_ledger(stores.log, genesis)
    state, tip = recovered.state, recovered.tip
    present = present_of(recovered, genesis)
    committee = present.committee
    own = None if observes else present.place_of(signer.public_key)
    ledger = LedgerCore(
        genesis=genesis,
        committee=committee,
        verifier=verifier,
        recovered=recovered,
        log=stores.log,
        snapshots=snapshots,
    )
    if own is None:
        follower = FollowerCore(committee, observes=observes)
        rooms: dict[RoomKey, Core] = {VALIDATOR: follower, LEDGER: ledger}
        node = Node(rooms)
        return Validator(node, committee, present.rules, None, (), follower, ledger, state, stores)
    holdings = Holdings(stores.batches, stores.batches.load(), mempool)
    mempool_shards = tuple(
        MempoolShard(
            genesis=genesis,
            committee=committee,
            own_index=own,
            holdings=holdings,
            verifier=verifier,
            reader=state,
            shard=shard,
            shard_count=shards,
            height=tip.height,
            settings=mempool,
            previous=present.previous,
        )
        for shard in range(shards)
    )
    seat = Seat(genesis, present, own, signer, verifier, stores.journal.journalled)
    consensus = open_consensus(seat)
    rooms = {RoomKey(Room.MEMPOOL, shard): core for shard, core in enumerate(mempool_shards)}
    rooms[VALIDATOR] = consensus
    rooms[LEDGER] = ledger
    reporter = open_reporter(seat, consensus, stores.offences, state, shards)
    if reporter is not None:
        rooms[REPORTER] = reporter

    def take_over(leftovers: Sequence[Sequence[Entry]]) -> None:
        for core, entries in zip(mempool_shards, leftovers, strict=True):
            core.take_over(entries)

    node = Node(rooms, (), None, lambda: [core.leftovers() for core in mempool_shards], take_over)
    return Validator(
        node, committee, present.rules, own, mempool_shards, consensus, ledger, state, stores
    )
