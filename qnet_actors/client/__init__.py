"""The client library: build, sign, submit, wait and ask, through a gateway.

`Client` blocks, `AsyncClient` awaits; both offer the same.  Neither loads Ray, DuckDB or numba.
Environment: QNET_URL names the gateway, QNET_HOME the folder of keys (`~/.qnet`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qnet_actors.lazy import lazy

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
else:
    __getattr__ = lazy(
        __name__,
        {
            "asynchronous": ("AsyncClient",),
            "building": ("Signed", "TransactionSigner", "build", "sign"),
            "environment": ("default_url", "home_directory"),
            "models": (
                "Account",
                "AccountTransaction",
                "AccountTransactions",
                "Block",
                "Blocks",
                "BlockTransaction",
                "Body",
                "Checkpoint",
                "Equivocation",
                "Events",
                "Evidence",
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
        },
    )

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
    "Events",
    "Evidence",
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
