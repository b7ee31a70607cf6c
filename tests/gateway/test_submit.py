from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnet_actors.gateway import service
from qnet_actors.gateway.events import EventLog, MissedEvents, StatusEvent
from qnet_actors.gateway.settings import Settings
from qnet_actors.wire.codes import Code
from tests.gateway.fakes import check_problem, world
from tests.gateway.ledger import Wallet, id_of

ALICE = Wallet(0)
BOB = Wallet(1)


async def test_one_transaction_in_wire_bytes_is_accepted():
    async with world() as w:
        data = ALICE.transfer(0)
        response = await w.submit(data)
        assert response.status_code == 202
        id_ = id_of(data).hex()
        assert response.json() == {"id": id_, "code": "success", "status": "received"}
        assert response.headers["location"] == f"/api/v1/tx/{id_}"
        assert w.backend.calls == [[data]]


async def test_json_carries_the_wire_bytes_in_base64():
    async with world() as w:
        data = ALICE.transfer(0)
        one = {"transaction": base64.b64encode(data).decode()}
        response = await w.http.post("/api/v1/tx/submit", json=one)
        assert response.status_code == 202
        assert response.json()["id"] == id_of(data).hex()
        many = {"transactions": [base64.b64encode(ALICE.transfer(n)).decode() for n in (1, 2)]}
        response = await w.http.post("/api/v1/tx/submit", json=many)
        assert response.status_code == 202
        assert [result["code"] for result in response.json()["results"]] == ["success"] * 2


async def test_a_thousand_at_once_are_one_call():
    async with world() as w:
        sent = [ALICE.transfer(nonce) for nonce in range(1_000)]
        response = await w.submit(msgspec.msgpack.encode(sent))
        assert response.status_code == 202
        results = response.json()["results"]
        assert [result["id"] for result in results] == [id_of(data).hex() for data in sent]
        assert {result["code"] for result in results} == {"success"}
        assert [len(call) for call in w.backend.calls] == [1_000]


async def test_each_of_many_has_its_own_result():
    async with world() as w:
        good, low, bad = ALICE.transfer(0), BOB.transfer(0, amount=10**18), b"\x92\x90\x90"
        response = await w.submit(msgspec.msgpack.encode([good, bad, low]))
        first, second, third = response.json()["results"]
        assert first["code"] == "success"
        assert (second["id"], second["code"]) == (None, "malformed")
        assert (third["id"], third["code"]) == (id_of(low).hex(), "insufficient_funds")
        assert second["detail"]
        assert "it needs" in third["detail"]
        assert "status" not in third


@pytest.mark.parametrize(
    ("target", "step"),
    [
        ("batched", lambda b: b.batch()),
        ("executed", lambda b: b.execute()),
        ("final", lambda b: (b.execute(), b.certify())),
    ],
)
async def test_wait_answers_at_the_stage_asked_for(target, step):
    async with world() as w:
        data = ALICE.transfer(0)
        waiting = asyncio.create_task(w.submit(data, wait=target))
        await w.settle()
        assert not waiting.done()
        step(w.backend)
        response = await waiting
        assert response.status_code == 200
        view = response.json()
        assert view["status"] == target
        if target != "batched":
            assert view["block"] == {
                "height": "1",
                "hash": w.ledger.records[0][1].hex(),
                "index": 0,
            }
            assert view["receipt"] == {"code": "success", "gas_used": "1000"}


async def test_many_may_wait_and_each_says_where_it_came():
    async with world(auto=True) as w:
        sent = [ALICE.transfer(0), BOB.transfer(0), ALICE.transfer(0, amount=10**18)]
        response = await w.submit(msgspec.msgpack.encode(sent), wait="final", timeout_ms=5_000)
        assert response.status_code == 200
        first, second, third = response.json()["results"]
        assert first["status"] == second["status"] == "final"
        assert {first["block"]["index"], second["block"]["index"]} == {0, 1}
        assert third["code"] == "insufficient_funds"


async def test_a_wait_that_is_over_says_how_far_it_came():
    async with world() as w:
        data = ALICE.transfer(0)
        response = await w.submit(data, wait="executed", timeout_ms=0)
        document = check_problem(response, Code.WAIT_TIMEOUT)
        assert document["id"] == id_of(data).hex()
        assert "received" in document["detail"]
        assert len(w.gateway.waits) == 0
        (result,) = (
            await w.submit(msgspec.msgpack.encode([BOB.transfer(0)]), wait="final", timeout_ms=0)
        ).json()["results"]
        assert result["code"] == "wait_timeout"


@pytest.mark.parametrize(
    "label", ["replaced", "evicted", "expired", "unpayable", "nonce_too_low", "key_not_current"]
)
async def test_what_a_pool_gives_up_ends_the_wait_and_is_remembered(label):
    async with world() as w:
        data = ALICE.transfer(0)
        waiting = asyncio.create_task(w.submit(data, wait="final"))
        await w.settle()
        w.backend.refuse(label)
        document = check_problem(await waiting, Code[label.upper()])
        assert document["id"] == id_of(data).hex()
        later = await w.http.get(f"/api/v1/tx/{id_of(data).hex()}")
        assert later.json() == {"id": id_of(data).hex(), "status": label}


async def test_a_wait_ends_though_a_validator_told_anew_what_it_had_batched_long_ago(monkeypatch):
    monkeypatch.setattr(service, "LOOK_AGAIN_S", 0.01)
    async with world(auto=True) as w:
        data = ALICE.transfer(0)
        assert (await w.submit(data, wait="final", timeout_ms=5_000)).status_code == 200
        w.backend.tell(StatusEvent("batched", id_of(data)))
        await w.settle()
        tracked = w.gateway.tracker.status(id_of(data))
        assert tracked is not None
        assert tracked.status == "batched"
        waited = await w.gateway.wait(
            id_of(data), "executed", asyncio.get_running_loop().time() + 5
        )
        assert waited.status == "final"
        assert w.gateway.tracker.status(id_of(data)) is None


async def test_events_that_were_missed_do_not_leave_a_wait_hanging():
    async with world() as w:
        data = ALICE.transfer(0)
        waiting = asyncio.create_task(w.submit(data, wait="executed", timeout_ms=30_000))
        await w.settle()
        # The ledger moves on, and the stream forgets to say so.
        log, w.backend.log = w.backend.log, EventLog(10**6)
        w.backend.execute()
        log.append(MissedEvents())
        response = await waiting
        assert response.status_code == 200
        assert response.json()["block"]["height"] == "1"


async def test_a_wait_for_what_another_gateway_took_is_answered():
    async with world() as w:
        data = ALICE.transfer(0)
        await w.backend.submit([data])
        path = f"/api/v1/tx/{id_of(data).hex()}"
        waiting = asyncio.create_task(w.http.get(path, params={"wait": "executed"}))
        await w.settle()
        assert not waiting.done()
        w.backend.execute()
        assert (await waiting).json()["status"] == "executed"


async def test_too_many_waits_are_busy():
    async with world(settings=Settings(waits_max=1)) as w:
        first = asyncio.create_task(w.submit(ALICE.transfer(0), wait="final"))
        await w.settle()
        check_problem(await w.submit(ALICE.transfer(1), wait="final"), Code.BUSY)
        w.backend.execute()
        w.backend.certify()
        assert (await first).status_code == 200


REFUSALS: dict[Code, Callable[[], bytes]] = {
    Code.WRONG_CHAIN: lambda: ALICE.transfer(0, chain_id=b"\x00" * 32),
    Code.UNSUPPORTED_VERSION: lambda: ALICE.transfer(0, version=9),
    Code.GAS_LIMIT_TOO_LOW: lambda: ALICE.transfer(0, gas_limit=1),
    Code.GAS_PRICE_OUT_OF_RANGE: lambda: ALICE.transfer(0, gas_price=0),
    Code.INSUFFICIENT_FUNDS: lambda: ALICE.transfer(0, amount=2**63),
    Code.NONCE_TOO_FAR: lambda: ALICE.transfer(10**6),
    Code.KEY_NOT_CURRENT: lambda: ALICE.transfer(0, key_id=b"\x01" * 32),
    Code.BAD_SIGNATURE: lambda: ALICE.transfer(0)[:-34] + b"\xc4\x20" + BOB.pair.public_key,
    Code.MALFORMED: lambda: b"\x92\x90\x90",
    Code.NON_CANONICAL: lambda: b"\x92" + b"\xdc\x00\x0a" + ALICE.transfer(0)[2:],
    Code.TOO_LARGE: lambda: b"\x92\x9a" + bytes(70_000),
}


@pytest.mark.parametrize("code", REFUSALS)
async def test_a_refused_transaction_is_answered_with_its_problem(code):
    async with world() as w:
        check_problem(await w.submit(REFUSALS[code]()), code)
        assert len(w.gateway.tracker) == 0


async def test_a_duplicate_keeps_the_status_of_the_first():
    async with world() as w:
        data = ALICE.transfer(0)
        assert (await w.submit(data)).status_code == 202
        w.backend.batch()
        await w.settle()
        document = check_problem(await w.submit(data), Code.DUPLICATE)
        assert document["id"] == id_of(data).hex()
        assert (await w.http.get(f"/api/v1/tx/{id_of(data).hex()}")).json()["status"] == "batched"


@pytest.mark.parametrize(
    "params", [{"wait": "received"}, {"timeout_ms": "-1"}, {"timeout_ms": "x"}, {"timeout_ms": ""}]
)
async def test_parameters_out_of_range(params):
    async with world() as w:
        check_problem(await w.submit(ALICE.transfer(0), **params), Code.INVALID_PARAMETER)
        assert w.backend.calls == []


@pytest.mark.parametrize(
    ("body", "type_", "code"),
    [
        (b"", "application/msgpack", Code.MALFORMED),
        (b"\x90", "application/msgpack", Code.MALFORMED),
        (b"\x81\xa1a\x01", "application/msgpack", Code.MALFORMED),
        (b"\x92\x01\x02", "application/msgpack", Code.MALFORMED),
        (b"\xdd\xff\xff\xff\xff", "application/msgpack", Code.MALFORMED),
        (b"\x91" * 100_000, "application/msgpack", Code.MALFORMED),
        (msgspec.msgpack.encode([b""] * 1_001), "application/msgpack", Code.TOO_MANY_TRANSACTIONS),
        (msgspec.msgpack.encode([bytes(65_000)] * 130), "application/msgpack", Code.TOO_LARGE),
        (b"{}", "application/json", Code.MALFORMED),
        (b'{"transactions": []}', "application/json", Code.MALFORMED),
        (b'{"transaction": "AA==", "transactions": ["AA=="]}', "application/json", Code.MALFORMED),
        (b'{"transaction": "not base64!"}', "application/json", Code.MALFORMED),
        (b'{"transaction": 5}', "application/json", Code.MALFORMED),
        (b'{"transaction": "AA==", "extra": 1}', "application/json", Code.MALFORMED),
        (b'{"transaction": "\xff"}', "application/json", Code.MALFORMED),
        (b"[" * 100_000, "application/json", Code.MALFORMED),
        (b"{}", "text/plain", Code.UNSUPPORTED_MEDIA_TYPE),
        (b"{}", "", Code.UNSUPPORTED_MEDIA_TYPE),
    ],
)
async def test_a_body_that_is_not_a_submission(body, type_, code):
    async with world() as w:
        response = await w.http.post(
            "/api/v1/tx/submit", content=body, headers={"content-type": type_}
        )
        check_problem(response, code)
        assert w.backend.calls == []


@given(st.binary(max_size=200), st.sampled_from(["application/msgpack", "application/json"]))
def test_no_bytes_whatever_cause_a_fault(body, type_):
    async def run() -> None:
        async with world() as w:
            for content in (body, b"\x92" + body, b'{"transaction": "' + body, ALICE_0[:-9] + body):
                response = await w.http.post(
                    "/api/v1/tx/submit", content=content, headers={"content-type": type_}
                )
                assert response.status_code in (202, 400, 409)
                if response.status_code != 202:
                    check_problem(response, Code[response.json()["code"].upper()])

    asyncio.run(run())


ALICE_0 = ALICE.transfer(0)


async def test_a_fault_of_a_validator_is_internal_and_shows_nothing_of_itself(caplog):
    async with world() as w:
        w.backend.fault = ZeroDivisionError("secret detail")
        response = await w.submit(ALICE.transfer(0))
        check_problem(response, Code.INTERNAL)
        assert "secret" not in response.text
        assert "secret detail" in caplog.text
        check_problem(await w.http.get("/api/v1/status"), Code.INTERNAL)
