"""Streams between validators: one a pair, both ends proved, bounded in every direction.

Names are loaded when they are first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qnet_actors.links.counters import PeerCounters, Reason
    from qnet_actors.links.links import Links
    from qnet_actors.links.roster import PeerKey, Roster
    from qnet_actors.links.settings import LinkSettings
    from qnet_actors.links.stream import Ended, Payload, Stream
    from qnet_actors.links.transport import Listener, TcpTransport, Transport

_HOME = {
    "Ended": "stream",
    "LinkSettings": "settings",
    "Links": "links",
    "Listener": "transport",
    "Payload": "stream",
    "PeerCounters": "counters",
    "PeerKey": "roster",
    "Reason": "counters",
    "Roster": "roster",
    "Stream": "stream",
    "TcpTransport": "transport",
    "Transport": "transport",
}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


__all__ = [
    "Ended",
    "LinkSettings",
    "Links",
    "Listener",
    "Payload",
    "PeerCounters",
    "PeerKey",
    "Reason",
    "Roster",
    "Stream",
    "TcpTransport",
    "Transport",
]
