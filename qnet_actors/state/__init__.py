"""Accounts in memory, the authenticated tree over them, and proofs.

`State` is what a ledger executes on and what admission and the gateway read; `verify_account` is
all that a light client needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from qnet_actors.state.accounts import split_rows
    from qnet_actors.state.partition import State, genesis_write_set, write_set_columns
    from qnet_actors.state.partitioned import AccountReplica, PartitionedState
    from qnet_actors.state.ports import PartitionServer, Port
    from qnet_actors.state.proofs import (
        Account,
        AccountProof,
        key_hash,
        value_hash,
        verify_account,
    )

__all__ = [
    "Account",
    "AccountProof",
    "AccountReplica",
    "PartitionServer",
    "PartitionedState",
    "Port",
    "State",
    "genesis_write_set",
    "key_hash",
    "split_rows",
    "value_hash",
    "verify_account",
    "write_set_columns",
]

_MODULES: Final = {
    "AccountReplica": "partitioned",
    "PartitionServer": "ports",
    "PartitionedState": "partitioned",
    "Port": "ports",
    "State": "partition",
    "genesis_write_set": "partition",
    "split_rows": "accounts",
    "write_set_columns": "partition",
    "Account": "proofs",
    "AccountProof": "proofs",
    "key_hash": "proofs",
    "value_hash": "proofs",
    "verify_account": "proofs",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
