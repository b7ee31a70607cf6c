from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import pytest

from qnet_actors.gateway.events import StatusEvent, block_event
from qnet_actors.gateway.metrics import Metrics
from qnet_actors.gateway.queries import AccountAnswer, StatusAnswer, StatusQuery
from qnet_actors.gateway.settings import Settings
from qnet_actors.gateway.upstream import Upstream, Upstreams, home
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.hashing import HOME, hash32
from tests.gateway.fakes import FakeBackend, Wallet, World, id_of, make_backends, world
from tests.gateway.test_submit import check_problem

DEAD = QnetError(Code.NODE_UNREACHABLE, "gone")
# A death lasts longer than a test.
SLOW_RETRY = Settings(retry_first_ms=60_000, retry_last_ms=60_000)


def homes(w: World, count: int) -> list[FakeBackend]:
    """The home of each of the first wallets, by the published rule."""
    return [
        w.backends[int.from_bytes(hash32(HOME, Wallet(i).address)[:8], "big") % len(w.backends)]
        for i in range(count)
    ]


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


async def test_some_refused_for_load_are_told_apart_from_all():
    async with world(3, settings=Settings(busy_pause_ms=60_000)) as w:
        wallets = [Wallet(seed) for seed in range(12)]
        full = homes(w, 12)[0]
        full.busy = True
        body = msgspec.msgpack.encode([wallet.transfer(0) for wallet in wallets])
        answer = await w.submit(body)
        assert answer.status_code == 202
        codes = [result["code"] for result in answer.json()["results"]]
        at_home = [home is full for home in homes(w, 12)]
        assert codes == ["busy" if there else "success" for there in at_home]


async def test_what_somebody_waits_for_moves_on_when_its_only_holder_dies():
    async with world(3, settings=SLOW_RETRY) as w:
        alice, bob = Wallet(0), Wallet(1)
        dead = homes(w, 1)[0]
        awaited, plain = alice.transfer(0), alice.transfer(1)
        waiting = asyncio.create_task(w.submit(awaited, wait="executed", timeout_ms=30_000))
        await w.settle()
        assert (await w.submit(plain)).status_code == 202
        assert {id_of(awaited), id_of(plain)} <= dead.pool.keys()
        dead.fault = DEAD
        # Whoever submits or asks next finds out.
        sender = next(wallet for wallet in map(Wallet, range(2, 12)) if home_of(w, wallet) is dead)
        assert (await w.submit(sender.transfer(0))).status_code == 202
        await w.settle()
        holders = [b for b in w.backends if b is not dead and id_of(awaited) in b.pool]
        assert len(holders) == 1
        # Nobody waits for the other one, and the gateway keeps nothing for nobody.
        assert not any(id_of(plain) in b.pool for b in w.backends if b is not dead)
        holders[0].execute()
        assert (await waiting).json()["status"] == "executed"
        assert len(w.gateway._held) == 0
        refused = await w.submit(bob.transfer(10**6), wait="executed")
        assert refused.status_code >= 400
        assert len(w.gateway._held) == 0


def home_of(w: World, wallet: Wallet) -> FakeBackend:
    return w.backends[home(wallet.address, len(w.backends))[0]]


@pytest.mark.parametrize("wait", ["batched", "executed"])
async def test_what_is_batched_moves_on_too_until_it_is_executed(wait):
    async with world(3, settings=SLOW_RETRY) as w:
        alice = Wallet(0)
        dead = homes(w, 1)[0]
        done, data = alice.transfer(0), alice.transfer(1)
        executed = asyncio.create_task(w.submit(done, wait="executed"))
        await w.settle()
        dead.execute()
        assert (await executed).json()["status"] == "executed"
        waiting = asyncio.create_task(w.submit(data, wait=wait, timeout_ms=30_000))
        await w.settle()
        dead.batch()
        await w.settle()
        assert waiting.done() == (wait == "batched")
        dead.fault = DEAD
        # The next one would wait for the one before, which the dead validator alone offers.
        assert (await w.submit(alice.transfer(2))).status_code == 202
        await w.settle()
        (heir,) = [b for b in w.backends if b is not dead and b.pool]
        assert heir.pool.keys() == {id_of(data), id_of(alice.transfer(2))}
        heir.execute()
        await w.settle()
        assert (await waiting).status_code == 200
        assert len(w.gateway._held) == 0


async def test_all_that_a_sender_sends_goes_to_one_heir_whoever_is_ahead():
    async with world(4, settings=SLOW_RETRY) as w:
        dead = homes(w, 1)[0]
        dead.fault = DEAD
        for nonce, upstream in enumerate(w.gateway.upstreams.all):
            upstream.height = 10 + nonce
            assert (await w.submit(Wallet(0).transfer(nonce))).status_code == 202
        assert sorted(len(b.pool) for b in w.backends) == [0, 0, 0, 4]


# Nothing ends by itself within a test.
PATIENT = Settings(
    call_timeout_ms=3_600_000,
    poll_timeout_ms=3_600_000,
    silence_timeout_ms=3_600_000,
    retry_first_ms=60_000,
    retry_last_ms=60_000,
)


async def stand_still(w: World, backend: FakeBackend, *under_way: asyncio.Task[Any]) -> Upstream:
    """Has a poll find out that a validator has stopped, with calls under way."""
    upstream = next(u for u in w.gateway.upstreams.all if u.backend is backend)
    await w.settle()
    assert upstream.live
    assert not any(task.done() for task in under_way)
    upstream._settings = msgspec.structs.replace(PATIENT, poll_timeout_ms=1, silence_timeout_ms=1)
    with pytest.raises(QnetError) as refused:
        await upstream.poll(0)
    assert refused.value.code == Code.NODE_UNREACHABLE
    assert not upstream.live
    return upstream


async def test_what_a_validator_that_stands_still_was_offered_is_given_to_another():
    async with world(2, settings=PATIENT) as w:
        stopped = homes(w, 1)[0]
        (other,) = [b for b in w.backends if b is not stopped]
        stopped.stopped = asyncio.Event()
        data = [Wallet(0).transfer(nonce) for nonce in range(3)]
        tasks = [asyncio.create_task(w.submit(each)) for each in data]
        upstream = await stand_still(w, stopped, *tasks)
        assert [(await task).status_code for task in tasks] == [202] * 3
        assert other.pool.keys() == {id_of(each) for each in data}
        assert len(stopped.calls) == 1
        # All that was given up at one time is one death.
        assert upstream._failures == 1


async def test_what_a_validator_that_stands_still_was_asked_another_answers():
    async with world(2, settings=PATIENT) as w:
        stopped = w.backends[0]
        stopped.stopped = asyncio.Event()
        asked = asyncio.create_task(w.http.get("/api/v1/status"))
        await stand_still(w, stopped, asked)
        assert (await asked).json()["validator"] == 1
        assert stopped.queries == 1


async def test_a_validator_that_goes_on_is_home_again_by_its_late_answer():
    async with world(2, settings=PATIENT) as w:
        stopped = homes(w, 1)[0]
        stopped.stopped = asyncio.Event()
        upstream = await stand_still(w, stopped)
        await w.settle()
        late = asyncio.create_task(upstream.poll(0))
        assert (await w.submit(Wallet(0).transfer(0))).status_code == 202
        assert not stopped.calls
        stopped.stopped.set()
        await late
        assert (await w.submit(Wallet(0).transfer(1))).status_code == 202
        assert stopped.pool.keys() == {id_of(Wallet(0).transfer(1))}


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
        expected = homes(w, 12)
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
        expected = homes(w, 12)
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


async def test_what_a_dying_validator_passed_on_is_no_duplicate_to_the_client():
    async with world(2, settings=SLOW_RETRY) as w:
        alice = Wallet(0)
        dying = homes(w, 1)[0]
        (other,) = [backend for backend in w.backends if backend is not dying]
        data = alice.transfer(0)
        other._admit(data)
        dying.fault = DEAD
        assert (await w.submit(data)).status_code == 202


async def test_a_silent_validator_costs_one_time_out_and_is_tried_again_once_it_is_heard_of():
    settings = Settings(call_timeout_ms=60, retry_first_ms=1, retry_last_ms=1)
    async with world(2, settings=settings) as w:
        silent = homes(w, 1)[0]
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


async def test_a_validator_without_room_is_passed_over():
    async with world(2, settings=SLOW_RETRY) as w:
        full, other = w.backends
        full.disk_low = True
        wallets = range(12)
        assert full in homes(w, 12)
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
