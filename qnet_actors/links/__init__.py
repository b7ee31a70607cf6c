"""Streams between validators: one a pair, both ends proved, bounded in every direction.

Names are loaded when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qnet_actors.lazy import lazy

if TYPE_CHECKING:
    from qnet_actors.links.counters import PeerCounters, Reason
    from qnet_actors.links.links import Links
    from qnet_actors.links.roster import PeerKey, Roster
    from qnet_actors.links.settings import LinkSettings
    from qnet_actors.links.stream import Ended, Payload, Stream
    from qnet_actors.links.transport import Listener, TcpTransport, Transport
else:
    __getattr__ = lazy(
        __name__,
        {
            "counters": ("PeerCounters", "Reason"),
            "links": ("Links",),
            "roster": ("PeerKey", "Roster"),
            "settings": ("LinkSettings",),
            "stream": ("Ended", "Payload", "Stream"),
            "transport": ("Listener", "TcpTransport", "Transport"),
        },
    )

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
