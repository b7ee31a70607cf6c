"""The front door: HTTP and WebSocket for clients, in front of an operator's validators.

What stands here is the room's offer; importing one name does not load FastAPI or Ray.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from qnet_actors.gateway.backend import Backend, BackendFrames, FramedBackend, Result
    from qnet_actors.gateway.calls import CallServer, Door
    from qnet_actors.gateway.events import (
        BlockEvent,
        CheckpointEvent,
        Event,
        EventLog,
        MissedEvents,
        StatusEvent,
        block_event,
    )
    from qnet_actors.gateway.queries import (
        AccountAnswer,
        AccountProofAnswer,
        AccountProofQuery,
        AccountQuery,
        Answer,
        BlockAnswer,
        BlockQuery,
        BlocksAnswer,
        BlocksQuery,
        BlockSummary,
        CheckpointAnswer,
        CheckpointQuery,
        EvidenceAnswer,
        EvidenceInfo,
        EvidenceQuery,
        GenesisAnswer,
        GenesisQuery,
        HandOffAnswer,
        HandOffQuery,
        Query,
        StatusAnswer,
        StatusQuery,
        TransactionAnswer,
        TransactionProofAnswer,
        TransactionProofQuery,
        TransactionQuery,
        ValidatorInfo,
        ValidatorsAnswer,
        ValidatorsQuery,
        VerifierAnswer,
        VerifierQuery,
    )
    from qnet_actors.gateway.tracker import Tracked, Tracker
    from qnet_actors.gateway.upstream import home

_MODULES: Final = {
    "backend": ("Backend", "BackendFrames", "FramedBackend", "Result"),
    "calls": ("CallServer", "Door"),
    "events": (
        "BlockEvent",
        "CheckpointEvent",
        "Event",
        "EventLog",
        "MissedEvents",
        "StatusEvent",
        "block_event",
    ),
    "queries": (
        "AccountAnswer",
        "AccountQuery",
        "TransactionProofQuery",
        "TransactionProofAnswer",
        "GenesisQuery",
        "GenesisAnswer",
        "HandOffQuery",
        "HandOffAnswer",
        "AccountProofQuery",
        "AccountProofAnswer",
        "Answer",
        "BlockAnswer",
        "BlockQuery",
        "BlockSummary",
        "BlocksAnswer",
        "BlocksQuery",
        "CheckpointAnswer",
        "CheckpointQuery",
        "EvidenceAnswer",
        "EvidenceInfo",
        "EvidenceQuery",
        "Query",
        "StatusAnswer",
        "StatusQuery",
        "TransactionAnswer",
        "TransactionQuery",
        "ValidatorInfo",
        "ValidatorsAnswer",
        "ValidatorsQuery",
        "VerifierAnswer",
        "VerifierQuery",
    ),
    "tracker": ("Tracked", "Tracker"),
    "upstream": ("home",),
}
_HOMES: Final = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "AccountAnswer",
    "AccountQuery",
    "TransactionProofQuery",
    "TransactionProofAnswer",
    "GenesisQuery",
    "GenesisAnswer",
    "HandOffQuery",
    "HandOffAnswer",
    "AccountProofQuery",
    "AccountProofAnswer",
    "Answer",
    "Backend",
    "BackendFrames",
    "BlockAnswer",
    "BlockEvent",
    "BlockQuery",
    "BlockSummary",
    "BlocksAnswer",
    "BlocksQuery",
    "CallServer",
    "CheckpointAnswer",
    "CheckpointEvent",
    "CheckpointQuery",
    "Door",
    "EvidenceAnswer",
    "EvidenceInfo",
    "EvidenceQuery",
    "Event",
    "EventLog",
    "FramedBackend",
    "MissedEvents",
    "Query",
    "Result",
    "StatusAnswer",
    "StatusEvent",
    "StatusQuery",
    "Tracked",
    "Tracker",
    "TransactionAnswer",
    "TransactionQuery",
    "ValidatorInfo",
    "ValidatorsAnswer",
    "ValidatorsQuery",
    "VerifierAnswer",
    "VerifierQuery",
    "block_event",
    "home",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
