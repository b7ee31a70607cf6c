from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnet_actors.gateway.admission import Buckets, Limiter
from qnet_actors.gateway.app import create_app
from qnet_actors.gateway.settings import Rate, Settings
from qnet_actors.gateway.submission import BODY_SIZE_BYTES_MAX, MSGPACK_TYPE
from qnet_actors.wire.codes import Code, QnetError
from tests.gateway.fakes import check_problem, make_backends, world
from tests.gateway.ledger import Wallet

FAR = ("192.0.2.1", 1)


@given(
    st.integers(1, 50),
    st.integers(1, 50),
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 60), st.floats(0, 3)), max_size=40),
)
def test_a_bucket_never_gives_more_than_its_rate_and_burst(per_s, burst, steps):
    buckets = Buckets(Rate(per_s, burst), keys_max=3)
    now_s = 0.0
    taken: dict[int, int] = {}
    for key, cost, pause_s in steps:
        now_s += pause_s
        verdict = buckets.take(key, cost, now_s)
        assert 0 <= verdict.remaining <= burst
        if verdict.allowed:
            taken[key] = taken.get(key, 0) + min(cost, burst)
        else:
            # What it says of the wait is true.
            assert buckets.look(key, cost, now_s + verdict.wait_s + 1e-6).allowed
        assert taken.get(key, 0) <= burst + now_s * per_s + 1e-6


def test_buckets_remember_a_bounded_number_of_keys():
    buckets = Buckets(Rate(1, 1), keys_max=2)
    for key in range(10):
        assert buckets.take(key, 1, 0.0).allowed
    assert len(buckets) == 2
    assert not buckets.take(9, 1, 0.0).allowed


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("127.0.0.1", None),
        ("::1", None),
        ("::ffff:127.0.0.1", None),
        (None, None),
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("testclient", "testclient"),
    ],
)
def test_who_a_client_is(host, key):
    assert Limiter(Settings()).client(host) == key
    if key is None:
        assert Limiter(Settings(limit_loopback=True)).client(host) is not None


async def test_a_client_that_asks_too_fast_is_told_when_to_come_again():
    settings = Settings(client_requests=Rate(1, 3))
    async with world(settings=settings, client=FAR) as w:
        for left in (2, 1, 0):
            response = await w.http.get("/api/v1/status")
            assert response.status_code == 200
            assert response.headers["ratelimit"].startswith(f'"client";r={left};t=')
            assert response.headers["ratelimit-policy"] == '"client";q=3;w=3'
        response = await w.http.get("/api/v1/status")
        check_problem(response, Code.RATE_LIMITED)
        assert response.headers["ratelimit"].startswith('"client";r=0;t=')
        # Whoever watches over the gateway is not kept out.
        for path in ("/healthz", "/readyz", "/metrics"):
            assert (await w.http.get(path)).status_code == 200


async def test_loopback_is_free_unless_the_operator_says_otherwise():
    settings = Settings(client_requests=Rate(1, 1))
    async with world(settings=settings) as w:
        for _ in range(5):
            response = await w.http.get("/api/v1/status")
            assert response.status_code == 200
            assert "ratelimit" not in response.headers
    async with world(settings=msgspec.structs.replace(settings, limit_loopback=True)) as w:
        assert (await w.http.get("/api/v1/status")).status_code == 200
        assert (await w.http.get("/api/v1/status")).status_code == 429


async def test_transactions_have_a_bucket_of_their_own():
    settings = Settings(client_transactions=Rate(1, 10))
    async with world(settings=settings, client=FAR) as w:
        alice = Wallet(0)
        eight = msgspec.msgpack.encode([alice.transfer(n) for n in range(8)])
        assert (await w.submit(eight)).status_code == 202
        response = await w.submit(eight)
        check_problem(response, Code.RATE_LIMITED)
        assert '"transactions";r=2' in response.headers["ratelimit"]
        assert (await w.submit(alice.transfer(8))).status_code == 202


async def test_a_sender_is_limited_by_what_a_pool_took_and_by_nothing_else():
    settings = Settings(sender_transactions=Rate(1, 3))
    async with world(settings=settings, client=FAR) as w:
        alice = Wallet(0)
        # Anybody may name Alice as sender: what is refused costs her nothing.
        forged = [Wallet(1).transfer(n, sender=alice.address) for n in range(20)]
        results = (await w.submit(msgspec.msgpack.encode(forged))).json()["results"]
        assert {result["code"] for result in results} == {"key_not_current"}
        for nonce in range(3):
            assert (await w.submit(alice.transfer(nonce))).status_code == 202
        check_problem(await w.submit(alice.transfer(3)), Code.RATE_LIMITED)
        assert (await w.submit(Wallet(1).transfer(0))).status_code == 202
    async with world(settings=settings) as w:
        for nonce in range(5):
            assert (await w.submit(alice.transfer(nonce))).status_code == 202


async def chunks(*parts: bytes, stall: asyncio.Event | None = None) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    if stall is not None:
        await stall.wait()


HEADERS = {"content-type": MSGPACK_TYPE}


async def test_a_body_over_the_limit_is_refused_declared_or_not():
    async with world() as w:
        declared = {**HEADERS, "content-length": str(BODY_SIZE_BYTES_MAX[MSGPACK_TYPE] + 1)}
        response = await w.http.post("/api/v1/tx/submit", content=b"x", headers=declared)
        check_problem(response, Code.TOO_LARGE)
        assert response.headers["connection"] == "close"
        many = chunks(*[bytes(1024 * 1024)] * 9)
        response = await w.http.post("/api/v1/tx/submit", content=many, headers=HEADERS)
        check_problem(response, Code.TOO_LARGE)


class StalledTransport:
    """Speaks ASGI by hand: a body that stops before its end."""

    def __init__(self, app, parts: list[bytes]) -> None:
        self.app = app
        self.parts = parts
        self.sent: list[dict] = []

    async def run(self) -> dict:
        async def receive():
            if not self.parts:
                await asyncio.Event().wait()
            return {"type": "http.request", "body": self.parts.pop(0), "more_body": True}

        async def send(message):
            self.sent.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "path": "/api/v1/tx/submit",
            "raw_path": b"/api/v1/tx/submit",
            "root_path": "",
            "scheme": "http",
            "query_string": b"",
            "headers": [(b"content-type", MSGPACK_TYPE.encode())],
            "client": ("127.0.0.1", 1),
            "server": ("gateway", 80),
            "state": {},
        }
        await self.app(scope, receive, send)
        assert self.sent[0]["status"] == 408
        document: dict = msgspec.json.decode(self.sent[1]["body"])
        return document


@pytest.mark.parametrize("parts", [[], [b"\x92"], [b"\x92", b"\x9a"]])
async def test_a_body_that_stalls_is_given_up(parts):
    settings = Settings(first_byte_timeout_ms=5, body_timeout_ms=10)
    async with world(settings=settings) as w:
        document = await StalledTransport(w.app, parts).run()
        assert document["code"] == "request_timeout"


async def test_all_bodies_together_are_bounded():
    async with world(settings=Settings(bodies_size_bytes_max=1_000)) as w:
        response = await w.http.post("/api/v1/tx/submit", content=bytes(1_001), headers=HEADERS)
        check_problem(response, Code.BUSY)
        # What was held is given back.
        assert (await w.submit(Wallet(0).transfer(0))).status_code == 202


@pytest.mark.parametrize(
    ("changes", "needle"),
    [
        ({"port": 70_000}, "port"),
        ({"connections_max": 0}, "connections_max"),
        ({"retry_first_ms": 10, "retry_last_ms": 9}, "retry_first_ms"),
    ],
)
def test_settings_out_of_range_are_refused(changes, needle):
    with pytest.raises(QnetError, match=needle) as refused:
        create_app(make_backends(), Settings(**changes))
    assert refused.value.code == Code.CONFIGURATION_INVALID


def test_a_gateway_without_validators_is_refused():
    with pytest.raises(QnetError):
        create_app([])
