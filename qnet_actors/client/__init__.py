"""The client library: build, sign, submit, wait and ask, through a gateway.

`Client` blocks, `AsyncClient` awaits; both offer the same.  Neither loads Ray, DuckDB or numba.
Environment: QNET_URL names the gateway, QNET_HOME the folder of keys (`~/.qnet`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from qnet_actors.client.asynchronous import AsyncClient
    from qnet_actors.client.building import Signed, TransactionSigner, build, sign
    from qnet_actors.client.environment import default_url, home_directory
    from qnet_actors.client.models import (
        Account,
        AccountTransaction,
        AccountTransactions,
        Block,
        Blocks,
        BlockTransaction,
        Body,
        Checkpoint,
        Equivocation,
        Events,
        Evidence,
        Fees,
        FoundEvent,
        Header,
        Message,
        Place,
        Receipt,
        Rules,
        Status,
        Submitted,
        Transaction,
        Validators,
    )
    from qnet_actors.client.synchronous import Client

_MODULES: Final = {
    "asynchronous": ("AsyncClient",),
    "building": ("Signed", "TransactionSigner", "build", "sign"),
    "environment": ("default_url", "home_directory"),
    "models": (
        "Account",
        "AccountTransaction",
        "AccountTransactions",
        "Block",
        "BlockTransaction",
        "Blocks",
        "Body",
        "Checkpoint",
        "Equivocation",
        "Evidence",
        "Events",
        "Fees",
        "FoundEvent",
        "Header",
        "Message",
        "Place",
        "Receipt",
        "Rules",
        "Status",
        "Submitted",
        "Transaction",
        "Validators",
    ),
    "synchronous": ("Client",),
}
_HOMES: Final = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Account",
    "AccountTransaction",
    "AccountTransactions",
    "AsyncClient",
    "Block",
    "BlockTransaction",
    "Blocks",
    "Body",
    "Checkpoint",
    "Client",
    "Equivocation",
    "Evidence",
    "Events",
    "Fees",
    "FoundEvent",
    "Header",
    "Message",
    "Place",
    "Receipt",
    "Rules",
    "Signed",
    "Status",
    "Submitted",
    "Transaction",
    "TransactionSigner",
    "Validators",
    "build",
    "default_url",
    "home_directory",
    "sign",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
