"""What a validator held goes to another when it dies, and when it stands still."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from qnet_actors.gateway.settings import Settings
from qnet_actors.gateway.upstream import Upstream
from qnet_actors.wire.codes import Code, QnetError
from tests.gateway.fakes import DEAD, SLOW_RETRY, FakeBackend, World, world
from tests.gateway.ledger import Wallet, id_of

# Nothing ends by itself within a test.
PATIENT = Settings(
    call_timeout_ms=3_600_000,
    poll_timeout_ms=3_600_000,
    silence_timeout_ms=3_600_000,
    retry_first_ms=60_000,
    retry_last_ms=60_000,
)


async def test_what_somebody_waits_for_moves_on_when_its_only_holder_dies():
    async with world(3, settings=SLOW_RETRY) as w:
        alice, bob = Wallet(0), Wallet(1)
        dead = w.home_of(Wallet(0))
        awaited, plain = alice.transfer(0), alice.transfer(1)
        waiting = asyncio.create_task(w.submit(awaited, wait="executed", timeout_ms=30_000))
        await w.settle()
        assert (await w.submit(plain)).status_code == 202
        assert {id_of(awaited), id_of(plain)} <= dead.pool.keys()
        dead.fault = DEAD
        # Whoever submits or asks next finds out.
        sender = next(wallet for wallet in map(Wallet, range(2, 12)) if w.home_of(wallet) is dead)
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


@pytest.mark.parametrize("wait", ["batched", "executed"])
async def test_what_is_batched_moves_on_too_until_it_is_executed(wait):
    async with world(3, settings=SLOW_RETRY) as w:
        alice = Wallet(0)
        dead = w.home_of(Wallet(0))
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
        dead = w.home_of(Wallet(0))
        dead.fault = DEAD
        for nonce, upstream in enumerate(w.gateway.upstreams.all):
            upstream.height = 10 + nonce
            assert (await w.submit(Wallet(0).transfer(nonce))).status_code == 202
        assert sorted(len(b.pool) for b in w.backends) == [0, 0, 0, 4]


async def test_what_a_dying_validator_passed_on_is_no_duplicate_to_the_client():
    async with world(2, settings=SLOW_RETRY) as w:
        alice = Wallet(0)
        dying = w.home_of(Wallet(0))
        (other,) = [backend for backend in w.backends if backend is not dying]
        data = alice.transfer(0)
        other._admit(data)
        dying.fault = DEAD
        assert (await w.submit(data)).status_code == 202


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
        stopped = w.home_of(Wallet(0))
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
        stopped = w.home_of(Wallet(0))
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
