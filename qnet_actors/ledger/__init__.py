"""Ordered commits in, executed blocks out: cutting, execution, the block log, catching up.

`recover` makes what a `LedgerCore` starts from out of a `BlockLog`, which is also the storage that
the gateway.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from qnet_actors.ledger.core import LedgerCore
    from qnet_actors.ledger.memory_log import MemoryLog
    from qnet_actors.ledger.recovery import Recovered, recover
    from qnet_actors.ledger.writes import BlockLog, BlockReader

__all__ = [
    "BlockLog",
    "BlockReader",
    "LedgerCore",
    "MemoryLog",
    "Recovered",
    "recover",
]

_MODULES: Final = {
    "BlockLog": "writes",
    "BlockReader": "writes",
    "LedgerCore": "core",
    "MemoryLog": "memory_log",
    "Recovered": "recovery",
    "recover": "recovery",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
