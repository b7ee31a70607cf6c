"""The real rooms on storages in memory that outlive the validators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from qnet_actors.crypto import BatchVerifier, Provider
from qnet_actors.ledger import MemoryLog, SnapshotSettings
from qnet_actors.mempool import MemoryBatchStore
from qnet_actors.network.compose import Stores, compose
from qnet_actors.network.node import Node, RoomKey
from qnet_actors.network.offences import MemoryOffences
from qnet_actors.rooms import Storage
from qnet_actors.simulator.signing import SimSigner
from qnet_actors.validators import MemoryJournal
from qnet_actors.wire.blocks import BLOCK_RECORD_CODEC, BlockRecord
from qnet_actors.wire.committee import Committee
from qnet_actors.wire.genesis import Genesis
from qnet_actors.wire.rules import EpochRules

SECTION_ACCOUNTS_MAX: Final = 6


class RealRooms:
    """Composes validators as the packed host does, but for where they write to."""

    def __init__(
        self,
        genesis: Genesis,
        signers: list[SimSigner],
        crypto: Provider,
        shards: int,
        snapshots: SnapshotSettings | None = None,
    ) -> None:
        self._genesis = genesis
        self._signers = signers
        self._shards = shards
        self._snapshots = snapshots
        self._verifier = BatchVerifier(crypto)
        self._committees: dict[int, Committee] = {}
        """Validator -> the committee of the epoch that it is in."""
        self._rules: dict[int, EpochRules] = {}
        """Validator -> the rules of that epoch."""
        self._stores = [
            Stores(
                batches=MemoryBatchStore(),
                journal=MemoryJournal(),
                log=_log(),
                offences=MemoryOffences(),
            )
            for _ in signers
        ]

    def open(self, index: int) -> tuple[Node, Mapping[RoomKey, Storage]]:
        """A new life of a validator; the life before, if any, is dead and writes no more."""
        stores = self._stores[index] = _after_crash(self._stores[index])
        validator = compose(
            self._genesis,
            self._signers[index],
            self._verifier,
            stores,
            shards=self._shards,
            snapshots=self._snapshots,
        )
        self._committees[index] = validator.committee
        self._rules[index] = validator.rules
        return validator.node, stores.by_room(self._shards)

    def committee_of(self, index: int) -> Committee:
        """The committee of the epoch that a validator is in."""
        return self._committees[index]

    def rules_of(self, index: int) -> EpochRules:
        """The rules of the epoch that a validator is in."""
        return self._rules[index]

    def names_of(self, index: int) -> tuple[int, ...]:
        """All validators: the committee of a validator's epoch in its order, then the rest."""
        keys = [member.public_key for member in self._committees[index].members]
        hosts = [signer.public_key for signer in self._signers]
        rest = [host for host, key in enumerate(hosts) if key not in keys]
        return (*(hosts.index(key) for key in keys), *rest)

    def height(self, index: int) -> int:
        """Of the last durable block of a validator; 0: none."""
        return self._stores[index].log.last_height()

    def records(self, index: int, first_height: int) -> list[BlockRecord]:
        """The durable blocks of a validator from a height on, or from where its log begins."""
        log = self._stores[index].log
        first_height = max(first_height, log.first_height())
        count = max(0, self.height(index) - first_height + 1)
        encoded = log.records(first_height, count, 2**62)
        return [BLOCK_RECORD_CODEC.decode(record) for record in encoded]

    def set_ledger_aside(self, index: int) -> None:
        """What it has signed stays, and so do batches that it told others it holds."""
        self._stores[index] = replace(self._stores[index], log=_log())


def _log() -> MemoryLog:
    """Few accounts make several sections, too."""
    return MemoryLog(section_accounts_max=SECTION_ACCOUNTS_MAX)


def _after_crash(stores: Stores) -> Stores:
    batches, journal, log = stores.batches, stores.journal, stores.log
    if isinstance(batches, MemoryBatchStore):
        batches.crash()
    if isinstance(journal, MemoryJournal):
        journal = journal.crash()
    if isinstance(log, MemoryLog):
        log = log.crash()
    return replace(stores, batches=batches, journal=journal, log=log)
