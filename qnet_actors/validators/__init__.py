"""Consensus: an uncertified DAG with one signature a block, committed by the Mysticeti-C rule.

Names are loaded when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qnet_actors.lazy import lazy

if TYPE_CHECKING:
    from qnet_actors.validators.checks import BlockRules, Received, Scope
    from qnet_actors.validators.core import ValidatorCore
    from qnet_actors.validators.evidence import EvidenceBook
    from qnet_actors.validators.follower import FollowerCore
    from qnet_actors.validators.journal import FileJournal, Journalled, MemoryJournal
    from qnet_actors.validators.journal_entries import SnapshotEntry
    from qnet_actors.validators.recovery import Recovered, journalled_evidence, recover
    from qnet_actors.validators.status import ValidatorStatus
else:
    __getattr__ = lazy(
        __name__,
        {
            "checks": ("BlockRules", "Received", "Scope"),
            "core": ("ValidatorCore",),
            "evidence": ("EvidenceBook",),
            "follower": ("FollowerCore",),
            "journal": ("FileJournal", "Journalled", "MemoryJournal"),
            "journal_entries": ("SnapshotEntry",),
            "recovery": ("Recovered", "journalled_evidence", "recover"),
            "status": ("ValidatorStatus",),
        },
    )

__all__ = [
    "BlockRules",
    "EvidenceBook",
    "FileJournal",
    "FollowerCore",
    "Journalled",
    "MemoryJournal",
    "Received",
    "Recovered",
    "Scope",
    "SnapshotEntry",
    "ValidatorCore",
    "ValidatorStatus",
    "journalled_evidence",
    "recover",
]
