"""A validator that has no room for more: who is refused, who is still offered, and who goes on."""

from __future__ import annotations

import asyncio
import time

import msgspec

from qnet_actors.gateway.settings import Settings
from qnet_actors.wire.codes import Code
from tests.gateway.fakes import SLOW_RETRY, check_problem, world
from tests.gateway.ledger import Wallet


async def test_a_full_queue_is_busy_and_grows_no_further():
    async with world(settings=Settings(queue_transactions_max=3)) as w:
        w.backend.gate = asyncio.Event()
        tasks = []
        for nonce in range(6):
            tasks.append(asyncio.create_task(w.submit(Wallet(0).transfer(nonce))))
            await w.settle()
        w.backend.gate.set()
        answers = [await task for task in tasks]
        assert [answer.status_code for answer in answers] == [202] * 4 + [503] * 2
        assert answers[-1].json()["code"] == "busy"
        assert int(answers[-1].headers["retry-after"]) >= 1


async def test_a_queue_that_stands_still_takes_nothing_more():
    async with world(settings=Settings(queue_wait_ms_max=1, queue_waiting_min=1)) as w:
        w.backend.gate = asyncio.Event()
        alice = Wallet(0)
        taken = []
        for nonce in range(2):
            taken.append(asyncio.create_task(w.submit(alice.transfer(nonce))))
            await w.settle()
        upstream = w.gateway.upstreams.all[0]
        while upstream.refused_gas_price < 0:
            await w.settle()
        refused = await w.submit(alice.transfer(2))
        assert refused.json()["code"] == "busy"
        # Nobody read how many those were.
        page = (await w.http.get("/metrics")).text
        assert 'qnet_gateway_transactions_total{code="busy"} 1.0' in page
        w.backend.gate.set()
        assert [(await task).status_code for task in taken] == [202] * 2


async def test_what_the_next_call_takes_is_not_refused_however_long_this_one_lasts():
    async with world(settings=Settings(queue_wait_ms_max=1, queue_waiting_min=3)) as w:
        w.backend.gate = asyncio.Event()
        alice, taken = Wallet(0), []
        for nonce in range(4):
            taken.append(asyncio.create_task(w.submit(alice.transfer(nonce))))
            await w.settle()
            # One is under way: the third that waits makes it a queue.
            if nonce < 3:
                begin = time.monotonic()
                while time.monotonic() < begin + 0.002:
                    await w.settle()
                assert w.gateway.upstreams.all[0].refused_gas_price < 0
        while w.gateway.upstreams.all[0].refused_gas_price < 0:
            await w.settle()
        assert (await w.submit(alice.transfer(4))).json()["code"] == "busy"
        w.backend.gate.set()
        assert [(await task).status_code for task in taken] == [202] * 4


async def test_a_validator_that_is_busy_is_left_alone_for_a_while():
    async with world(settings=Settings(busy_pause_ms=60_000)) as w:
        w.backend.gate = asyncio.Event()
        w.backend.busy = True
        data = [Wallet(0).transfer(nonce) for nonce in range(3)]
        first = asyncio.create_task(w.submit(data[0]))
        await w.settle()
        waiting = asyncio.create_task(w.submit(msgspec.msgpack.encode(data[1:])))
        await w.settle()
        w.backend.gate.set()
        later = await w.submit(msgspec.msgpack.encode(data))
        for answer in (await first, await waiting, later):
            assert answer.status_code == 503
            assert answer.json()["code"] == "busy"
            assert int(answer.headers["retry-after"]) >= 1
        assert len(w.backend.calls) == 1
        assert len(w.gateway.tracker) == 0


class Clock:
    """What a validator's upstream takes for the time."""

    def __init__(self) -> None:
        self.now_s = 1.0

    def monotonic(self) -> float:
        return self.now_s


async def test_one_call_finds_out_whether_a_validator_is_busy_still(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("qnet_actors.gateway.upstream.time", clock)
    async with world(settings=Settings(busy_pause_ms=1_000)) as w:
        w.backend.busy = True
        alice, upstream = Wallet(0), w.gateway.upstreams.all[0]
        assert (await w.submit(alice.transfer(0))).status_code == 503
        clock.now_s += 0.999
        assert upstream.refused_gas_price >= 0
        clock.now_s += 0.002
        assert upstream.refused_gas_price < 0
        w.backend.busy, w.backend.gate = False, asyncio.Event()
        first = asyncio.create_task(w.submit(alice.transfer(0)))
        await w.settle()
        assert (await w.submit(alice.transfer(1))).status_code == 503
        w.backend.gate.set()
        assert (await first).status_code == 202
        assert (await w.submit(alice.transfer(1))).status_code == 202
        assert len(w.backend.calls) == 3


async def test_who_pays_more_than_what_was_refused_is_offered_to_a_busy_validator():
    async with world(settings=Settings(busy_pause_ms=60_000)) as w:
        w.backend.busy = True
        alice = Wallet(0)
        assert (await w.submit(alice.transfer(0, gas_price=7))).status_code == 503
        w.backend.busy = False
        assert (await w.submit(alice.transfer(0, gas_price=7))).status_code == 503
        cheap = msgspec.msgpack.encode([alice.transfer(0, gas_price=price) for price in (6, 7)])
        assert (await w.submit(cheap)).status_code == 503
        assert len(w.backend.calls) == 1
        better = alice.transfer(0, gas_price=8)
        mixed = msgspec.msgpack.encode([Wallet(1).transfer(0), better])
        answer = (await w.submit(mixed)).json()
        assert [result["code"] for result in answer["results"]] == ["busy", "success"]
        assert w.backend.calls[1:] == [[better]]


async def test_a_dear_one_that_is_refused_for_its_own_fault_keeps_nobody_out():
    async with world(settings=Settings(busy_pause_ms=60_000)) as w:
        alice, upstream = Wallet(0), w.gateway.upstreams.all[0]
        cheap, dear = alice.transfer(0, gas_price=5), alice.transfer(9, gas_price=10**6)
        w.backend.refused = {cheap: Code.BUSY, dear: Code.POOL_FULL}
        assert (await w.submit(dear)).status_code == 503
        assert upstream.refused_gas_price < 0
        # The other still tells what too little is.
        assert (await w.submit(msgspec.msgpack.encode([cheap, dear]))).status_code == 503
        assert upstream.refused_gas_price == 5
        assert (await w.submit(cheap)).status_code == 503
        assert len(w.backend.calls) == 2
        assert (await w.submit(alice.transfer(0, gas_price=6))).status_code == 202


async def test_who_waits_and_pays_more_is_not_refused_with_the_others():
    async with world(settings=Settings(busy_pause_ms=60_000)) as w:
        w.backend.gate = asyncio.Event()
        w.backend.busy = True
        alice, tasks = Wallet(0), []
        for price in (5, 6, 4):
            data = alice.transfer(0, gas_price=price)
            tasks.append(asyncio.create_task(w.submit(data)))
            await w.settle()
        w.backend.gate.set()
        answers = [await task for task in tasks]
        assert [answer.status_code for answer in answers] == [503] * 3
        assert w.backend.calls == [[alice.transfer(0, gas_price=p)] for p in (5, 6)]


async def test_some_refused_for_load_are_told_apart_from_all():
    async with world(3, settings=Settings(busy_pause_ms=60_000)) as w:
        wallets = [Wallet(seed) for seed in range(12)]
        full = w.home_of(Wallet(0))
        full.busy = True
        body = msgspec.msgpack.encode([wallet.transfer(0) for wallet in wallets])
        answer = await w.submit(body)
        assert answer.status_code == 202
        codes = [result["code"] for result in answer.json()["results"]]
        at_home = [home is full for home in [w.home_of(Wallet(seed)) for seed in range(12)]]
        assert codes == ["busy" if there else "success" for there in at_home]


async def test_a_validator_without_room_is_passed_over():
    async with world(2, settings=SLOW_RETRY) as w:
        full, other = w.backends
        full.disk_low = True
        wallets = range(12)
        assert full in [w.home_of(Wallet(seed)) for seed in range(12)]
        answers = [await w.submit(Wallet(seed).transfer(0)) for seed in wallets]
        assert [answer.status_code for answer in answers] == [202] * 12
        assert len(other.pool) == 12
        # It was asked once, and not again for every transaction.
        assert len(full.calls) == 1
        assert (await w.http.get("/readyz")).status_code == 200
        assert (await w.http.get("/api/v1/status")).status_code == 200


async def test_where_nobody_has_room_the_refusal_says_so():
    async with world(2, settings=SLOW_RETRY) as w:
        for backend in w.backends:
            backend.disk_low = True
        for nonce in range(2):
            check_problem(await w.submit(Wallet(0).transfer(nonce)), Code.DISK_FULL)
        check_problem(await w.http.get("/readyz"), Code.DISK_FULL)
        assert (await w.http.get("/api/v1/status")).json()["disk_low"]


async def test_a_validator_with_room_again_is_offered_transactions():
    async with world(settings=Settings(retry_first_ms=1, retry_last_ms=1)) as w:
        w.backend.disk_low = True
        check_problem(await w.submit(Wallet(0).transfer(0)), Code.DISK_FULL)
        w.backend.disk_low = False
        while (await w.submit(Wallet(0).transfer(0))).status_code != 202:
            await w.settle()
        assert (await w.http.get("/readyz")).status_code == 200
