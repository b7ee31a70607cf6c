from __future__ import annotations

import asyncio
import base64

import msgspec
import pytest

from qnet_actors.wire.codes import Code
from tests.gateway.fakes import Wallet, id_of, world

ALICE = Wallet(0)
BOB = Wallet(1)


def check_problem(response, code: Code) -> dict:
    assert response.headers["content-type"] == "application/problem+json"
    document: dict = response.json()
    assert document["code"] == code.label
    assert document["status"] == response.status_code == code.http_status
    assert document["type"] == f"urn:qnet:problem:{code.label}"
    assert document["title"] == code.description
    assert document["detail"]
    if response.status_code in (429, 503):
        assert int(response.headers["retry-after"]) >= 1
    return document


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
