"""One validator behind the gateway: calls, homes, and what counts as its death."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from qnet_actors.gateway.events import StatusEvent, block_event
from qnet_actors.gateway.metrics import Metrics
from qnet_actors.gateway.queries import AccountAnswer, StatusAnswer, StatusQuery
from qnet_actors.gateway.settings import Settings
from qnet_actors.gateway.upstream import Upstreams
from qnet_actors.wire.codes import Code, QnetError
from tests.gateway.fakes import DEAD, SLOW_RETRY, check_problem, make_backends, world
from tests.gateway.ledger import Wallet, id_of


async def test_what_arrives_during_a_call_goes_with_the_next():
    async with world() as w:
        w.backend.gate = asyncio.Event()
        alice = Wallet(0)
        tasks = []
        for nonce in range(6):
            tasks.append(asyncio.create_task(w.submit(alice.transfer(nonce))))
            await w.settle()
        assert [len(call) for call in w.backend.calls] == [1]
        w.backend.gate.set()
        assert [(await task).status_code for task in tasks] == [202] * 6
        assert [len(call) for call in w.backend.calls] == [1, 5]


async def test_an_idle_validator_is_called_at_once():
    async with world() as w:
        for nonce in range(3):
            await w.submit(Wallet(0).transfer(nonce))
        assert [len(call) for call in w.backend.calls] == [1, 1, 1]


async def test_a_call_carries_at_most_a_thousand_and_splits_no_request():
    async with world() as w:
        w.backend.gate = asyncio.Event()
        wallets = [Wallet(i) for i in range(4)]
        tasks = []
        for wallet, count in zip(wallets, (1, 700, 300, 1), strict=True):
            body = msgspec.msgpack.encode([wallet.transfer(n) for n in range(count)])
            tasks.append(asyncio.create_task(w.submit(body)))
            await w.settle()
        w.backend.gate.set()
        answers = [await task for task in tasks]
        assert [len(call) for call in w.backend.calls] == [1, 1_000, 1]
        for wallet, count, answer in zip(wallets, (1, 700, 300, 1), answers, strict=True):
            expected = [id_of(wallet.transfer(n)).hex() for n in range(count)]
            assert [result["id"] for result in answer.json()["results"]] == expected


async def test_a_wait_whose_time_is_over_asks_nobody():
    async with world(2) as w:
        data = Wallet(0).transfer(0)
        waiting = asyncio.create_task(w.submit(data, wait="executed", timeout_ms=50))
        await w.settle()
        queries = [backend.queries for backend in w.backends]
        check_problem(await waiting, Code.WAIT_TIMEOUT)
        assert [backend.queries for backend in w.backends] == queries


async def test_a_validator_without_events_says_so_and_is_no_silent_one(monkeypatch):
    settings = Settings(poll_timeout_ms=1, silence_timeout_ms=1_000, call_timeout_ms=60_000)
    async with world(1, settings=settings) as w:
        upstream = w.gateway.upstreams.all[0]
        polls = []
        poll = w.backend.poll

        async def counted(after: int, timeout_ms: int) -> tuple[int, list[bytes]]:
            polls.append(timeout_ms)
            return await poll(after, timeout_ms)

        monkeypatch.setattr(w.backend, "poll", counted)
        while len(polls) < 3:
            await w.settle()
        assert upstream.live


async def test_senders_go_to_their_home_and_stay_there():
    async with world(3) as w:
        expected = [w.home_of(Wallet(seed)) for seed in range(12)]
        assert len({id(home) for home in expected}) > 1
        for nonce in range(2):
            for seed in range(12):
                assert (await w.submit(Wallet(seed).transfer(nonce))).status_code == 202
        for seed, home in enumerate(expected):
            ids = {id_of(Wallet(seed).transfer(nonce)) for nonce in range(2)}
            assert ids <= home.pool.keys()


async def test_one_request_is_split_among_homes_and_answered_in_order():
    async with world(3) as w:
        sent = [Wallet(seed).transfer(nonce) for nonce in range(5) for seed in range(12)]
        response = await w.submit(msgspec.msgpack.encode(sent))
        assert [result["id"] for result in response.json()["results"]] == [
            id_of(data).hex() for data in sent
        ]
        assert sum(len(call) for backend in w.backends for call in backend.calls) == len(sent)


@pytest.mark.parametrize("fault", [DEAD, QnetError(Code.NOT_READY, "stopped")])
async def test_an_absent_validator_is_passed_over_and_only_its_senders_move(fault):
    async with world(3, settings=SLOW_RETRY) as w:
        expected = [w.home_of(Wallet(seed)) for seed in range(12)]
        dead = expected[0]
        dead.fault = fault
        for seed in range(12):
            assert (await w.submit(Wallet(seed).transfer(0))).status_code == 202
        assert len(dead.calls) == 1
        for seed, home in enumerate(expected):
            held = [b for b in w.backends if id_of(Wallet(seed).transfer(0)) in b.pool]
            assert len(held) == 1
            assert held[0] is not dead
            if home is not dead:
                assert held == [home]
        # Held for dead: it is not called again before its back-off is over.
        assert (await w.submit(Wallet(0).transfer(1))).status_code == 202
        assert len(dead.calls) == 1


async def test_a_silent_validator_costs_one_time_out_and_is_tried_again_once_it_is_heard_of():
    settings = Settings(call_timeout_ms=60, retry_first_ms=1, retry_last_ms=1)
    async with world(2, settings=settings) as w:
        silent = w.home_of(Wallet(0))
        silent.gate = asyncio.Event()
        waiting = [asyncio.create_task(w.submit(Wallet(0).transfer(nonce))) for nonce in range(3)]
        assert [(await task).status_code for task in waiting] == [202] * 3
        # What waited behind the call that was not answered moved on with it.
        assert len(silent.calls) == 1
        assert (await w.submit(Wallet(0).transfer(3))).status_code == 202
        assert len(silent.calls) == 1
        silent.gate.set()
        silent.tell(StatusEvent("batched", b""))
        await w.settle()
        assert (await w.submit(Wallet(0).transfer(4))).status_code == 202
        assert len(silent.calls) == 2


async def test_a_dead_validator_is_tried_again_after_its_back_off():
    async with world(1, settings=SLOW_RETRY) as w:
        w.backend.fault = DEAD
        refused = await w.submit(Wallet(0).transfer(0))
        assert refused.status_code == 503
        assert refused.json()["code"] == "not_ready"
        w.backend.fault = None
        upstream = w.gateway.upstreams.all[0]
        # Who follows it finds out first, and no client waits for that.
        upstream._retry_at_s = 0.0
        assert (await w.submit(Wallet(0).transfer(0))).status_code == 503
        assert len(w.backend.calls) == 1
        await upstream.poll(0)
        assert (await w.submit(Wallet(0).transfer(0))).status_code == 202


async def test_back_off_doubles_to_its_bound():
    settings = Settings(retry_first_ms=1_000, retry_last_ms=4_000)
    (upstream,) = Upstreams(make_backends(), settings, Metrics()).all
    waits = []
    for _ in range(4):
        upstream._retry_at_s = 0.0
        for _ in range(3):
            upstream._failed()
        waits.append(round(upstream.retry_in_s))
    assert waits == [1, 2, 4, 4]
    upstream._answered()
    assert upstream.live
    assert upstream.retry_in_s == 0


async def test_a_validator_that_does_not_answer_in_time_is_held_for_dead():
    settings = Settings(call_timeout_ms=1, retry_first_ms=60_000, retry_last_ms=60_000)
    async with world(1, settings=settings) as w:
        w.backend.gate = asyncio.Event()
        response = await w.submit(Wallet(0).transfer(0))
        assert response.status_code == 503
        assert not w.gateway.upstreams.all[0].live
        assert 'qnet_gateway_validator_up{validator="0"} 0.0' in (await w.http.get("/metrics")).text


async def test_a_refusal_is_no_death():
    async with world() as w:
        w.backend.fault = QnetError(Code.BUSY, "full")
        response = await w.submit(Wallet(0).transfer(0))
        assert response.status_code == 503
        assert response.json()["detail"] == "full"
        assert w.gateway.upstreams.all[0].live


async def test_questions_go_to_whoever_lives_and_knows():
    async with world(2, settings=SLOW_RETRY) as w:
        w.backends[0].fault = DEAD
        response = await w.http.get("/api/v1/status")
        assert response.json()["validator"] == 1
        w.backends[1].fault = DEAD
        assert (await w.http.get("/api/v1/status")).json()["code"] == "not_ready"
        assert (await w.http.get("/readyz")).status_code == 503
        assert (await w.http.get("/healthz")).status_code == 200


async def test_a_transaction_is_found_at_whichever_validator_has_it():
    async with world(3) as w:
        alice = Wallet(0)
        for backend in w.backends:
            data = alice.transfer(backend.index)
            backend._admit(data)
            response = await w.http.get(f"/api/v1/tx/{id_of(data).hex()}")
            assert response.json()["status"] == "received"


async def test_a_gateway_that_closes_leaves_nobody_waiting():
    async with world() as w:
        w.backend.gate = asyncio.Event()
        first = asyncio.create_task(w.submit(Wallet(0).transfer(0)))
        await w.settle()
        second = asyncio.create_task(w.submit(Wallet(0).transfer(1)))
        await w.settle()
        await w.gateway.close()
        assert [(await task).json()["code"] for task in (first, second)] == ["not_ready"] * 2


async def test_an_answer_of_the_wrong_kind_is_a_fault():
    async with world() as w:
        with pytest.raises(QnetError) as refused:
            await w.gateway.ask(StatusQuery(), AccountAnswer)
        assert refused.value.code == Code.INTERNAL
        assert isinstance(await w.gateway.ask(StatusQuery(), StatusAnswer), StatusAnswer)


@pytest.mark.parametrize("fault", ["does not decode", "has columns that are too short"])
async def test_a_fault_in_one_event_costs_nobody_the_events_behind_it(fault, caplog):
    async with world() as w:
        first, second = Wallet(0).transfer(0), Wallet(1).transfer(0)
        for data in (first, second):
            assert (await w.submit(data)).status_code == 202
        waiting = asyncio.create_task(w.submit(first, wait="executed"))
        await w.settle()
        bad: Any = ("no event",)
        if fault != "does not decode":
            event = block_event(*w.ledger.execute([]))
            bad = msgspec.structs.replace(event, ids=id_of(first))
        w.backend.log.append(bad)
        w.backend.execute()
        await w.settle()
        assert w.gateway.tracker.height == w.ledger.height
        for data in (first, second):
            tracked = w.gateway.tracker.status(id_of(data))
            assert tracked is not None
            assert tracked.status == "executed"
        assert (await waiting).status_code in (200, 409)
        text = (await w.http.get("/metrics")).text
        assert "qnet_gateway_events_failed_total 1.0" in text
    assert "was passed over" in caplog.text
