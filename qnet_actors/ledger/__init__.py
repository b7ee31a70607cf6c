"""Ordered commits in, executed blocks out: cutting, execution, the block log, catching up.

`recover` makes what a `LedgerCore` starts from out of a `BlockLog`, which is also the storage that
its driver writes to: `DuckLog` on disk, `MemoryLog` in the simulator.  `LedgerQueries` reads for
the gateway.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from qnet_actors.ledger.blocks import Draft, genesis_tip, identity_of, make_block
    from qnet_actors.ledger.core import LedgerCore
    from qnet_actors.ledger.databases import LogOptions
    from qnet_actors.ledger.duck_log import DuckLog
    from qnet_actors.ledger.execute import OpenBatch, open_batch
    from qnet_actors.ledger.execute import execute as execute_block
    from qnet_actors.ledger.executor import Executor
    from qnet_actors.ledger.groups import GroupExecution
    from qnet_actors.ledger.hand_offs import HandOffs
    from qnet_actors.ledger.history import History
    from qnet_actors.ledger.memory_log import MemoryLog
    from qnet_actors.ledger.names import HEAD as REGISTRY_HEAD
    from qnet_actors.ledger.names import approval_account, offence_account
    from qnet_actors.ledger.outcome import Outcome
    from qnet_actors.ledger.plan import SnapshotPlan, SnapshotSettings
    from qnet_actors.ledger.queries import FoundAccount, FoundTransaction, LedgerQueries
    from qnet_actors.ledger.recovery import Recovered, recover
    from qnet_actors.ledger.reference import execute_reference
    from qnet_actors.ledger.registry import (
        committee_of,
        is_punishable,
        read_epoch,
        rules_of,
        validator_keys,
    )
    from qnet_actors.ledger.retention import Retention, RetentionMode
    from qnet_actors.ledger.writes import (
        BlockLog,
        BlockQueries,
        BlockReader,
        BlockWrite,
        CertificateWrite,
        Place,
        SnapshotWrite,
    )

__all__ = [
    "BlockLog",
    "BlockQueries",
    "BlockReader",
    "BlockWrite",
    "CertificateWrite",
    "Draft",
    "DuckLog",
    "Executor",
    "FoundAccount",
    "FoundTransaction",
    "GroupExecution",
    "HandOffs",
    "History",
    "LedgerCore",
    "LedgerQueries",
    "MemoryLog",
    "LogOptions",
    "Outcome",
    "Place",
    "REGISTRY_HEAD",
    "Recovered",
    "Retention",
    "RetentionMode",
    "SnapshotSettings",
    "approval_account",
    "committee_of",
    "SnapshotPlan",
    "SnapshotWrite",
    "genesis_tip",
    "identity_of",
    "is_punishable",
    "make_block",
    "offence_account",
    "OpenBatch",
    "execute_block",
    "execute_reference",
    "open_batch",
    "read_epoch",
    "recover",
    "rules_of",
    "validator_keys",
]

_MODULES: Final = {
    "BlockLog": "writes",
    "BlockQueries": "writes",
    "BlockReader": "writes",
    "BlockWrite": "writes",
    "CertificateWrite": "writes",
    "Draft": "blocks",
    "DuckLog": "duck_log",
    "Executor": "executor",
    "FoundAccount": "queries",
    "FoundTransaction": "queries",
    "GroupExecution": "groups",
    "HandOffs": "hand_offs",
    "History": "history",
    "LedgerCore": "core",
    "LedgerQueries": "queries",
    "MemoryLog": "memory_log",
    "LogOptions": "databases",
    "Outcome": "outcome",
    "Place": "writes",
    "REGISTRY_HEAD": "names:HEAD",
    "Recovered": "recovery",
    "Retention": "retention",
    "RetentionMode": "retention",
    "SnapshotSettings": "plan",
    "approval_account": "names",
    "committee_of": "registry",
    "SnapshotPlan": "plan",
    "SnapshotWrite": "writes",
    "genesis_tip": "blocks",
    "identity_of": "blocks",
    "is_punishable": "registry",
    "make_block": "blocks",
    "offence_account": "names",
    # Not by its own name, which is its module's.
    "execute_block": "execute:execute",
    "execute_reference": "reference",
    "OpenBatch": "execute",
    "open_batch": "execute",
    "read_epoch": "registry",
    "recover": "recovery",
    "rules_of": "registry",
    "validator_keys": "registry",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _MODULES[name].partition(":")
    return getattr(import_module(f"{__name__}.{module}"), attribute or name)
