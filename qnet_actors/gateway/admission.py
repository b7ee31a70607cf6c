"""Token buckets: how much one client or one sender may ask for."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Final, NamedTuple

from qnet_actors.gateway.settings import Rate, Settings

_IPV6_NETWORK_BITS: Final = 64


class Verdict(NamedTuple):
    """What a bucket answers."""

    allowed: bool
    remaining: int
    """Whole tokens that are left."""
    wait_s: float
    """Until the cost could be paid; 0 where it was."""


class Buckets:
    """A token bucket a key, of which the longest unused are forgotten past `keys_max`."""

    def __init__(self, rate: Rate, keys_max: int) -> None:
        self.rate = rate
        self._keys_max = keys_max
        self._levels: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._levels)

    def look(self, key: Hashable, cost: int, now_s: float) -> Verdict:
        """Whether `cost` tokens are there; takes none.

        A cost above the bucket's size is as good as its size: it passes when the bucket is full.
        """
        level = self._level(key, now_s)
        lacking = min(cost, self.rate.burst) - level
        return Verdict(lacking <= 0, int(level), max(0.0, lacking / self.rate.per_s))

    def take(self, key: Hashable, cost: int, now_s: float) -> Verdict:
        """Takes `cost` tokens if they are there."""
        verdict = self.look(key, cost, now_s)
        if not verdict.allowed:
            return verdict
        level = max(0.0, self._level(key, now_s) - cost)
        self._levels[key] = (level, now_s)
        self._levels.move_to_end(key)
        while len(self._levels) > self._keys_max:
            self._levels.popitem(last=False)
        return Verdict(True, int(level), 0.0)

    def _level(self, key: Hashable, now_s: float) -> float:
        level, at_s = self._levels.get(key, (float(self.rate.burst), now_s))
        return min(float(self.rate.burst), level + max(0.0, now_s - at_s) * self.rate.per_s)


class Limiter:
    """The three limits of a gateway.

    The sender that a transaction names proves nothing before its signature is checked.  So a
    sender's tokens are spent only by transactions that a pool took: nobody can use up another's.
    """

    def __init__(self, settings: Settings) -> None:
        self._limit_loopback = settings.limit_loopback
        keys_max = settings.limited_keys_max
        self.requests = Buckets(settings.client_requests, keys_max)
        self.transactions = Buckets(settings.client_transactions, keys_max)
        self.senders = Buckets(settings.sender_transactions, keys_max)

    def client(self, host: str | None) -> str | None:
        """The key of a client's address: an IPv6 network, an IPv4 address; None: not limited."""
        key, loopback = _client_key(host or "local")
        return None if loopback and not self._limit_loopback else key


@lru_cache(maxsize=4_096)
def _client_key(host: str) -> tuple[str, bool]:
    """(key, whether it is this machine)."""
    try:
        address = ip_address(host)
    except ValueError:
        return host[:64], host == "local"
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if isinstance(address, IPv6Address) and not address.is_loopback:
        shift = 128 - _IPV6_NETWORK_BITS
        return str(IPv6Address(int(address) >> shift << shift)), False
    return str(address), address.is_loopback


def rate_headers(name: str, rate: Rate, verdict: Verdict) -> dict[str, str]:
    """`RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers)."""
    window_s = max(1, math.ceil(rate.burst / rate.per_s))
    reset_s = math.ceil(max(verdict.wait_s, (rate.burst - verdict.remaining) / rate.per_s))
    return {
        "RateLimit-Policy": f'"{name}";q={rate.burst};w={window_s}',
        "RateLimit": f'"{name}";r={verdict.remaining};t={reset_s}',
    }
