"""Accounts in memory and the authenticated tree over them.

`State` is what a ledger executes on and what admission and the gateway read.  Who checks a proof
needs `light` alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qnet_actors.lazy import lazy

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
else:
    __getattr__ = lazy(
        __name__,
        {
            "accounts": ("split_rows",),
            "partition": ("State", "genesis_write_set", "write_set_columns"),
            "partitioned": ("AccountReplica", "PartitionedProofs", "PartitionedState"),
            "ports": ("PartitionServer", "Port"),
            "sections": ("check_section", "section_prefixes", "sections_root", "split_sections"),
        },
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
