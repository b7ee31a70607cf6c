"""What a gateway counts, for Prometheus; labels are bounded: route patterns, codes, validators."""

from __future__ import annotations

from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from qnet_actors.gateway.queries import VerifierAnswer

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_COUNTS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_000)

_VERIFIER: Final = {
    "compiled": "1 where the compiled kernel verifies, 0 where a library does",
    "verified": "Signatures verified since the validator's start",
    "refused": "Of those, the ones that are not valid",
    "key_cache_hits": "Expanded keys that were in the cache",
    "key_cache_misses": "Keys that had to be expanded",
    "key_cache_hit_rate": "Hits of hits and misses",
    "key_cache_evictions": "Keys that made room for others",
    "key_cache_keys": "Keys in the cache",
    "key_cache_capacity": "Keys that it has room for",
    "sampled": "Verdicts that a library was asked about too",
}


class _Route(NamedTuple):
    """The instruments of one (method, route, status), found once: a look-up costs 5 us."""

    requests: Counter
    seconds: Histogram


class Metrics:
    """The instruments of one gateway, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "qnet_gateway_requests",
            "Requests answered",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "qnet_gateway_request_seconds",
            "From the end of a request's head to the end of its answer, waits included",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.transactions = Counter(
            "qnet_gateway_transactions",
            "Submitted transactions by the code they were answered with",
            ("code",),
            registry=self.registry,
        )
        self.batch_transactions = Histogram(
            "qnet_gateway_batch_transactions",
            "Transactions in one call to a validator",
            ("validator",),
            buckets=_COUNTS,
            registry=self.registry,
        )
        self.queue_transactions = Gauge(
            "qnet_gateway_queue_transactions",
            "Transactions waiting for the call in flight to a validator",
            ("validator",),
            registry=self.registry,
        )
        self.validator_up = Gauge(
            "qnet_gateway_validator_up",
            "1 while the validator answers",
            ("validator",),
            registry=self.registry,
        )
        self.waits = Gauge(
            "qnet_gateway_waits", "Transactions that are waited for", registry=self.registry
        )
        self.sockets = Gauge(
            "qnet_gateway_sockets", "Open WebSocket connections", registry=self.registry
        )
        self.sockets_dropped = Counter(
            "qnet_gateway_sockets_dropped",
            "WebSocket connections dropped because they read too slowly",
            registry=self.registry,
        )
        self.height = Gauge(
            "qnet_gateway_height", "Latest executed height seen", registry=self.registry
        )
        self.final_height = Gauge(
            "qnet_gateway_final_height", "Latest final height seen", registry=self.registry
        )
        self.events_failed = Counter(
            "qnet_gateway_events_failed",
            "Events of validators that could not be taken and were passed over",
            registry=self.registry,
        )
        self.verifier = {
            name: Gauge(f"qnet_verifier_{name}", text, ("validator",), registry=self.registry)
            for name, text in _VERIFIER.items()
        }
        self._routes: dict[tuple[str, str, int], _Route] = {}
        self._codes: dict[str, Counter] = {}

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts a request; all three labels come from bounded sets."""
        found = self._routes.get((method, route, status))
        if found is None:
            found = _Route(
                self.requests.labels(method, route, str(status)),
                self.request_seconds.labels(route),
            )
            self._routes[method, route, status] = found
        found.requests.inc()
        found.seconds.observe(seconds)

    def verifying(self, validator: int, answer: VerifierAnswer) -> None:
        """Shows what a validator says of its verifier."""
        looked_up = answer.cache_hits + answer.cache_misses
        values = {
            "compiled": answer.compiled,
            "verified": answer.verified,
            "refused": answer.refused,
            "key_cache_hits": answer.cache_hits,
            "key_cache_misses": answer.cache_misses,
            "key_cache_hit_rate": answer.cache_hits / looked_up if looked_up else 0.0,
            "key_cache_evictions": answer.cache_evictions,
            "key_cache_keys": answer.cache_keys,
            "key_cache_capacity": answer.cache_capacity,
            "sampled": answer.sampled,
        }
        for name, value in values.items():
            self.verifier[name].labels(str(validator)).set(value)

    def submitted(self, label: str, count: int = 1) -> None:
        """Counts transactions by the code they were answered with."""
        found = self._codes.get(label)
        if found is None:
            found = self._codes[label] = self.transactions.labels(label)
        found.inc(count)
