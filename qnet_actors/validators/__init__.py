"""Consensus: an uncertified DAG with one signature a block, committed by the Mysticeti-C rule.

Names are loaded when they are first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qnet_actors.validators.checks import BlockRules, Received, Scope
    from qnet_actors.validators.core import ValidatorCore
    from qnet_actors.validators.evidence import EvidenceBook
    from qnet_actors.validators.follower import FollowerCore
    from qnet_actors.validators.journal import FileJournal, Journalled, MemoryJournal
    from qnet_actors.validators.recovery import Recovered, journalled_evidence, recover
    from qnet_actors.validators.status import ValidatorStatus

_HOME = {
    "BlockRules": "checks",
    "EvidenceBook": "evidence",
    "FollowerCore": "follower",
    "FileJournal": "journal",
    "Journalled": "journal",
    "MemoryJournal": "journal",
    "Received": "checks",
    "Recovered": "recovery",
    "Scope": "checks",
    "ValidatorCore": "core",
    "ValidatorStatus": "status",
    "journalled_evidence": "recovery",
    "recover": "recovery",
}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


__all__ = [
    "BlockRules",
    "EvidenceBook",
    "FollowerCore",
    "FileJournal",
    "Journalled",
    "MemoryJournal",
    "Received",
    "Recovered",
    "Scope",
    "ValidatorCore",
    "ValidatorStatus",
    "journalled_evidence",
    "recover",
]
