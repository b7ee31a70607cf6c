"""Ordered commits in, executed blocks out: cutting, execution, the block log, catching up.

`recover` makes what a `LedgerCore` starts from out of a `BlockLog`, which is also the storage that
its driver writes to: `DuckLog` on disk, `MemoryLog` in the simulator.  `LedgerQueries` reads for
the gateway.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qnet_actors.lazy import lazy

if TYPE_CHECKING:
    from qnet_actors.ledger.actions import is_punishable
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
    from qnet_actors.ledger.registry import committee_of, read_epoch, rules_of, validator_keys
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
else:
    __getattr__ = lazy(
        __name__,
        {
            "actions": ("is_punishable",),
            "blocks": ("Draft", "genesis_tip", "identity_of", "make_block"),
            "core": ("LedgerCore",),
            "databases": ("LogOptions",),
            "duck_log": ("DuckLog",),
            "execute": ("OpenBatch", "open_batch", "execute as execute_block"),
            "executor": ("Executor",),
            "groups": ("GroupExecution",),
            "hand_offs": ("HandOffs",),
            "history": ("History",),
            "memory_log": ("MemoryLog",),
            "names": ("HEAD as REGISTRY_HEAD", "approval_account", "offence_account"),
            "outcome": ("Outcome",),
            "plan": ("SnapshotPlan", "SnapshotSettings"),
            "queries": ("FoundAccount", "FoundTransaction", "LedgerQueries"),
            "recovery": ("Recovered", "recover"),
            "reference": ("execute_reference",),
            "registry": ("committee_of", "read_epoch", "rules_of", "validator_keys"),
            "retention": ("Retention", "RetentionMode"),
            "writes": (
                "BlockLog",
                "BlockQueries",
                "BlockReader",
                "BlockWrite",
                "CertificateWrite",
                "Place",
                "SnapshotWrite",
            ),
        },
    )

__all__ = [
    "REGISTRY_HEAD",
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
    "LogOptions",
    "MemoryLog",
    "OpenBatch",
    "Outcome",
    "Place",
    "Recovered",
    "Retention",
    "RetentionMode",
    "SnapshotPlan",
    "SnapshotSettings",
    "SnapshotWrite",
    "approval_account",
    "committee_of",
    "execute_block",
    "execute_reference",
    "genesis_tip",
    "identity_of",
    "is_punishable",
    "make_block",
    "offence_account",
    "open_batch",
    "read_epoch",
    "recover",
    "rules_of",
    "validator_keys",
]
