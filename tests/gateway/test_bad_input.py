"""Bad input all the way: a gateway over the real mempool core, from the request to the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from qnet_actors.gateway.backend import Result
from qnet_actors.rooms import Room, Submit, SubmitResult
from qnet_actors.wire.codes import Code
from tests.gateway.fakes import World, check_problem, world
from tests.mempool.test_admission import ALICE, BOB, REFUSED
from tests.mempool.world import Accounts, Driver, make_driver


@asynccontextmanager
async def stack() -> AsyncIterator[tuple[World, Driver]]:
    """A gateway whose validator is a shard of the mempool, with every signature checked."""
    accounts = Accounts()
    accounts.set(BOB.address, nonce=3)
    driver = make_driver(accounts=accounts, height=5)

    async def submit(transactions: list[bytes]) -> list[Result]:
        driver.give(Submit(1, tuple(transactions)))
        answers: list[SubmitResult] = driver.sent.events(Room.GATEWAY, SubmitResult)
        return list(answers[-1].results)

    async with world() as w:
        w.backend.submit = submit  # type: ignore[method-assign]
        yield w, driver


def check_nothing_kept(w: World, driver: Driver) -> None:
    assert driver.shard.metrics.pool_transactions == 0
    assert driver.shard.metrics.admitted == 0
    assert len(w.gateway.tracker) == 0
    assert len(w.gateway.waits) == 0
    assert driver.runs == []


@pytest.mark.parametrize("case", REFUSED)
async def test_each_kind_is_refused_with_its_code_and_nothing_is_kept(case: str) -> None:
    code, make = REFUSED[case]
    data = make()
    async with stack() as (w, driver):
        response = await w.submit(data)
        # A body that is no array of arrays is not even taken for a transaction.
        bare = len(data) > 1 and data[0] == 0x92
        document = check_problem(response, code if bare else Code.MALFORMED)
        assert 400 <= response.status_code < 500
        assert len(document["detail"]) < 400
        assert "Traceback" not in response.text
        check_nothing_kept(w, driver)


@pytest.mark.parametrize("case", REFUSED)
async def test_one_bad_one_among_good_ones_is_refused_alone(case: str) -> None:
    code, make = REFUSED[case]
    async with stack() as (w, driver):
        sent = [ALICE.send(1, price=11), make(), BOB.send(3)]
        response = await w.submit(msgspec.msgpack.encode(sent))
        assert response.status_code == 202
        results = [result["code"] for result in response.json()["results"]]
        assert results == ["success", code.label, "success"]
        assert driver.shard.metrics.admitted == 2
        assert len(w.gateway.tracker) == 2


async def test_a_flood_of_junk_leaves_nothing_behind() -> None:
    good = ALICE.send(0)
    async with stack() as (w, driver):
        for round_ in range(5):
            junk = [
                good[:at] + bytes([good[at] ^ (round_ + 1)]) + good[at + 1 :]
                for at in range(2, len(good))
            ]
            response = await w.submit(msgspec.msgpack.encode(junk))
            codes = [result["code"] for result in response.json()["results"]]
            assert "success" not in codes
            assert all(400 <= Code[label.upper()].http_status < 500 for label in codes)
        check_nothing_kept(w, driver)
        assert (await w.submit(good)).status_code == 202
