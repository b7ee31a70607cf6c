"""Accounts in memory and the authenticated tree over them.

`State` is what a ledger executes on and what admission and the gateway read.  Who checks a proof
needs `light` alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from qnet_actors.state.accounts import split_rows
    from qnet_actors.state.partition import State, genesis_write_set, write_set_columns
    from qnet_actors.state.partitioned import AccountReplica, PartitionedProofs, PartitionedState
    from qnet_actors.state.ports import PartitionServer, Port
    from qnet_actors.state.sections import (
        check_section,
        section_prefixes,
        sections_root,
        split_sections,
    )

__all__ = [
    "AccountReplica",
    "PartitionServer",
    "PartitionedProofs",
    "PartitionedState",
    "Port",
    "State",
    "check_section",
    "genesis_write_set",
    "section_prefixes",
    "sections_root",
    "split_rows",
    "split_sections",
    "write_set_columns",
]

_MODULES: Final = {
    "AccountReplica": "partitioned",
    "PartitionServer": "ports",
    "PartitionedProofs": "partitioned",
    "PartitionedState": "partitioned",
    "Port": "ports",
    "State": "partition",
    "genesis_write_set": "partition",
    "check_section": "sections",
    "section_prefixes": "sections",
    "sections_root": "sections",
    "split_sections": "sections",
    "split_rows": "accounts",
    "write_set_columns": "partition",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
