from __future__ import annotations

import asyncio
import re
from base64 import b64decode
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnet_actors.gateway import schema
from qnet_actors.gateway.queries import EvidenceInfo, VerifierAnswer
from qnet_actors.gateway.settings import Settings
from qnet_actors.wire.address import encode_address
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.dag import DagBlock, DagHeader, header_slot
from qnet_actors.wire.evidence import equivocation_of
from qnet_actors.wire.schemes import Scheme, key_id
from qnet_actors.wire.transactions import MultiTransfer, Payment, RotateKey
from tests.gateway.fakes import World, check_problem, world
from tests.gateway.ledger import BALANCE, CHAIN_ID, Wallet, id_of

ALICE, BOB = Wallet(0), Wallet(1)
PAYEE = encode_address(b"\x44" * 32, development=True)


def text(address: bytes) -> str:
    return encode_address(address, development=True)


async def executed(w: World, *data: bytes) -> None:
    for item in data:
        assert w.backend._admit(item)[0] == Code.SUCCESS
    w.backend.execute()
    await w.settle()


async def get(w: World, path: str, type_: type, **params):
    """A JSON answer that has the published shape, to the last field."""
    response = await w.http.get(f"/api/v1{path}", params=params)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    msgspec.json.decode(response.content, type=type_)
    return response.json()


async def test_status():
    async with world() as w:
        await executed(w, ALICE.transfer(0))
        status = await get(w, "/status", schema.StatusView)
        assert status["chain_id"] == CHAIN_ID.hex()
        assert status["height"] == "1"
        assert status["final_height"] == "0"
        assert status["timestamp_ms"] == 1_700_000_000_100


async def test_an_account_before_and_after():
    async with world() as w:
        path = f"/accounts/{text(ALICE.address)}"
        account = await get(w, path, schema.AccountView)
        assert account == {
            "address": text(ALICE.address),
            "height": "0",
            "balance": str(BALANCE),
            "nonce": "0",
        }
        rotation = ALICE.transfer(1, action=RotateKey(b"\x07" * 32), gas_limit=2_000)
        await executed(w, ALICE.transfer(0, 5), rotation)
        account = await get(w, path, schema.AccountView)
        assert account["balance"] == str(BALANCE - 5 - 1_000 - 2_000)
        assert account["nonce"] == "2"
        assert account["key_id"] == "07" * 32
        nobody = await get(w, f"/accounts/{text(bytes(32))}", schema.AccountView)
        assert nobody["balance"] == nobody["nonce"] == "0"


async def test_the_next_nonce_counts_the_pool():
    async with world() as w:
        path = f"/accounts/{text(ALICE.address)}/next-nonce"
        assert (await get(w, path, schema.NextNonceView))["next_nonce"] == "0"
        await w.submit(ALICE.transfer(0))
        await w.submit(ALICE.transfer(1))
        assert (await get(w, path, schema.NextNonceView))["next_nonce"] == "2"


async def test_an_account_is_never_older_than_what_the_gateway_has_told(monkeypatch):
    async with world(2) as w:
        home = w.backends[w.gateway.upstreams.home(ALICE.address).backend.index]
        other = w.backends[1 - home.index]
        # The home validator is a block behind, but knows its pool.
        home._admit(ALICE.transfer(0))
        home._admit(ALICE.transfer(1))
        stale = home._account(ALICE.address)
        other._admit(ALICE.transfer(0, 5))
        other.execute()
        await w.settle()
        monkeypatch.setattr(home, "_account", lambda _: stale)
        account = await get(w, f"/accounts/{text(ALICE.address)}", schema.AccountView)
        assert account["height"] == "1"
        assert account["balance"] == str(BALANCE - 1_005)
        path = f"/accounts/{text(ALICE.address)}/next-nonce"
        assert (await get(w, path, schema.NextNonceView))["next_nonce"] == "2"


async def test_a_gateway_that_has_just_started_does_not_take_one_validators_word(monkeypatch):
    async with world(2) as w:
        home = w.backends[w.gateway.upstreams.home(ALICE.address).backend.index]
        other = w.backends[1 - home.index]
        stale = home._account(ALICE.address)
        other._admit(ALICE.transfer(0, 5))
        other.execute()
        await w.settle()
        monkeypatch.setattr(home, "_account", lambda _: stale)
        # As before it heard of its first block.
        monkeypatch.setattr(w.gateway.tracker, "height", 0)
        path = f"/accounts/{text(ALICE.address)}/next-nonce"
        assert (await get(w, path, schema.NextNonceView))["next_nonce"] == "1"


async def test_a_transaction_whole():
    async with world() as w:
        payments = (Payment(b"\x44" * 32, 1), Payment(BOB.address, 2))
        data = ALICE.transfer(0, action=MultiTransfer(payments), gas_limit=1_500)
        await executed(w, data)
        view = await get(w, f"/tx/{id_of(data).hex()}", schema.TransactionView)
        assert view["status"] == "executed"
        assert view["block"]["height"] == "1"
        assert view["receipt"] == {"code": "success", "gas_used": "1500"}
        assert view["body"]["sender"] == text(ALICE.address)
        assert view["body"]["action"] == {
            "kind": "multi_transfer",
            "payments": [
                {"payee": PAYEE, "amount": "1"},
                {"payee": text(BOB.address), "amount": "2"},
            ],
        }
        w.backend.certify()
        await w.settle()
        view = await get(w, f"/tx/{id_of(data).hex()}", schema.TransactionView)
        assert view["status"] == "final"


async def test_blocks_by_every_name():
    async with world() as w:
        await executed(w, ALICE.transfer(0))
        await executed(w, ALICE.transfer(1), BOB.transfer(0), BOB.transfer(1))
        by_height = await get(w, "/blocks/2", schema.BlockView)
        assert by_height["header"]["transaction_count"] == 3
        assert "transactions" not in by_height
        assert await get(w, f"/blocks/{by_height['hash']}", schema.BlockView) == by_height
        assert await get(w, "/blocks/latest", schema.BlockView) == by_height
        page = await get(w, "/blocks/2", schema.BlockView, transactions="true", limit=2)
        assert len(page["transactions"]) == 2
        assert page["next_offset"] == 2
        rest = await get(w, "/blocks/2", schema.BlockView, transactions="true", offset=2)
        assert len(rest["transactions"]) == 1
        assert "next_offset" not in rest
        ids = {item["id"] for item in page["transactions"] + rest["transactions"]}
        expected = (ALICE.transfer(1), BOB.transfer(0), BOB.transfer(1))
        assert ids == {id_of(data).hex() for data in expected}
        assert not by_height["final"]
        w.backend.certify()
        await w.settle()
        assert (await get(w, "/blocks/2", schema.BlockView))["final"]


async def test_a_large_block_is_shown_whole():
    async with world() as w:
        data = [ALICE.transfer(nonce) for nonce in range(150)]
        await executed(w, *data)
        block = await get(w, "/blocks/1", schema.BlockView, transactions="true", limit=1_000)
        assert [item["id"] for item in block["transactions"]] == [id_of(d).hex() for d in data]


async def test_blocks_page_by_page():
    async with world() as w:
        empty = await get(w, "/blocks", schema.BlocksView)
        assert empty == {"blocks": []}
        for nonce in range(5):
            await executed(w, ALICE.transfer(nonce))
        heights: list[str] = []
        params: dict[str, str] = {"limit": "2"}
        while True:
            page = await get(w, "/blocks", schema.BlocksView, **params)
            heights += [block["header"]["height"] for block in page["blocks"]]
            if "next_cursor" not in page:
                break
            params["cursor"] = page["next_cursor"]
        assert heights == ["5", "4", "3", "2", "1"]


async def test_the_rest_of_the_network():
    async with world(2) as w:
        validators = await get(w, "/validators", schema.ValidatorsView)
        assert [info["index"] for info in validators["validators"]] == [0, 1]
        assert validators["validators"][0]["scheme"] == "ml_dsa_65"
        fees = await get(w, "/fees", schema.FeesView)
        assert fees["gas"]["transfer"] == "1000"
        assert fees["gas_price_min"] == "1"
        check_problem(await w.http.get("/api/v1/checkpoints/latest"), Code.NOT_FOUND)
        await executed(w, ALICE.transfer(0))
        w.backend.certify()
        checkpoint = await get(w, "/checkpoints/latest", schema.CheckpointView)
        assert checkpoint["height"] == "1"
        assert w.ledger.certificate is not None
        assert checkpoint["digest"] == w.ledger.certificate.checkpoint.digest().hex()
        assert checkpoint["votes"] == [{"author": 0, "signature": "c2lnbmF0dXJl"}]


async def test_evidence_of_an_equivocation():
    one, other = (DagBlock(DagHeader(1, 0, 7, 3, at, (), (), ()), bytes([at]) * 5) for at in (1, 2))
    proof = equivocation_of(one, other)
    async with world(1) as w:
        assert await get(w, "/evidence", schema.EvidenceView) == {"evidence": []}
        w.backend.evidence = (EvidenceInfo(proof, Scheme.ML_DSA_65, b"key"),)
        (found,) = (await get(w, "/evidence", schema.EvidenceView))["evidence"]
    assert (found["author"], found["round"], found["epoch"]) == (3, "7", "0")
    assert found["scheme"] == "ml_dsa_65"
    assert found["key_id"] == key_id(Scheme.ML_DSA_65, b"key").hex()
    in_order = sorted((one, other), key=lambda block: block.digest)
    for name, block in zip(("first", "second"), in_order, strict=True):
        assert found[name]["digest"] == block.digest.hex()
        assert found[name]["timestamp_ms"] == block.header.timestamp_ms
        assert b64decode(found[name]["slot"]) == encode(header_slot(block.header))
        assert b64decode(found[name]["signature"]) == block.signature


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/api/v1/tx/zz", Code.INVALID_PARAMETER),
        ("/api/v1/tx/" + "AB" * 32, Code.INVALID_PARAMETER),
        ("/api/v1/tx/" + "00" * 32, Code.NOT_FOUND),
        ("/api/v1/tx/" + "00" * 32 + "?wait=never", Code.INVALID_PARAMETER),
        ("/api/v1/tx/" + "00" * 32 + "?wait=final&timeout_ms=-1", Code.INVALID_PARAMETER),
        ("/api/v1/tx/" + "00" * 32 + "?wait=final", Code.NOT_FOUND),
        ("/api/v1/blocks/7", Code.NOT_FOUND),
        ("/api/v1/blocks/-1", Code.INVALID_PARAMETER),
        ("/api/v1/blocks/18446744073709551616", Code.INVALID_PARAMETER),
        ("/api/v1/blocks/%D9%A3", Code.INVALID_PARAMETER),
        ("/api/v1/blocks/1?offset=-1", Code.INVALID_PARAMETER),
        ("/api/v1/blocks/1?limit=1001", Code.INVALID_PARAMETER),
        ("/api/v1/blocks?limit=0", Code.INVALID_PARAMETER),
        ("/api/v1/blocks?limit=x", Code.INVALID_PARAMETER),
        ("/api/v1/blocks?cursor=x", Code.INVALID_PARAMETER),
        ("/api/v1/accounts/nobody", Code.BAD_ADDRESS),
        ("/api/v1/accounts/" + encode_address(bytes(32), development=False), Code.BAD_ADDRESS),
        ("/api/v1/nothing", Code.NOT_FOUND),
        ("/api/v2/status", Code.NOT_FOUND),
        ("/%2e%2e/etc/passwd", Code.NOT_FOUND),
    ],
)
async def test_a_question_that_cannot_be_answered(path, code):
    async with world() as w:
        check_problem(await w.http.get(path), code)


async def test_a_wrong_method_is_named_with_the_right_one():
    async with world() as w:
        response = await w.http.delete("/api/v1/status")
        check_problem(response, Code.METHOD_NOT_ALLOWED)
        assert response.headers["allow"] == "GET"


async def test_ready_only_when_a_validator_is():
    async with world() as w:
        assert (await w.http.get("/readyz")).json() == {"status": "ready", "height": "0"}
        w.backend.ready = False
        check_problem(await w.http.get("/readyz"), Code.NOT_READY)


async def test_metrics_count_by_route_and_code_with_bounded_labels():
    async with world() as w:
        await w.submit(ALICE.transfer(0))
        await w.submit(ALICE.transfer(0))
        for i in range(5):
            await w.http.get(f"/nothing/{i}")
        await w.http.get(f"/api/v1/tx/{'00' * 32}")
        page = await w.http.get("/metrics")
        assert page.headers["content-type"].startswith("text/plain")
        assert 'qnet_gateway_transactions_total{code="success"} 1.0' in page.text
        assert 'qnet_gateway_transactions_total{code="duplicate"} 1.0' in page.text
        assert 'route="unmatched",status="404"} 5.0' in page.text
        assert 'route="/api/v1/tx/{id}",status="404"} 1.0' in page.text
        names = set(re.findall(r"^(\w+)[{ ]", page.text, re.M))
        assert all(name.startswith(("qnet_gateway_", "qnet_verifier_")) for name in names)


async def test_metrics_show_how_the_verifiers_of_all_validators_do():
    async with world(count=2) as w:
        first, second = w.backends
        first.verifier = VerifierAnswer("kernel", True, 100, 3, cache_hits=30, cache_misses=10)
        second.verifier = VerifierAnswer("provider", False)
        page = (await w.http.get("/metrics")).text
        assert 'qnet_verifier_key_cache_hit_rate{validator="0"} 0.75' in page
        assert 'qnet_verifier_verified{validator="0"} 100.0' in page
        assert 'qnet_verifier_compiled{validator="1"} 0.0' in page
        assert 'qnet_verifier_key_cache_hit_rate{validator="1"} 0.0' in page


async def test_the_front_page_names_the_rest():
    async with world() as w:
        index = (await w.http.get("/")).json()
        assert (await w.http.get(index["docs"])).status_code == 200


async def test_openapi_names_every_route_code_and_object():
    async with world() as w:
        document = (await w.http.get("/openapi.json")).json()
        routes = {
            f"{method.upper()} {path}"
            for path, operations in document["paths"].items()
            for method in operations
        }
        assert routes == {
            "POST /api/v1/tx/submit",
            "GET /api/v1/tx/{id}",
            "GET /api/v1/blocks",
            "GET /api/v1/blocks/{block}",
            "GET /api/v1/accounts/{address}",
            "GET /api/v1/accounts/{address}/next-nonce",
            "GET /api/v1/accounts/{address}/proof",
            "GET /api/v1/accounts/{address}/transactions",
            "GET /api/v1/events",
            "GET /api/v1/tx/{id}/proof",
            "GET /api/v1/genesis",
            "GET /api/v1/status",
            "GET /api/v1/validators",
            "GET /api/v1/checkpoints/latest",
            "GET /api/v1/epochs/{epoch}/hand-off",
            "GET /api/v1/evidence",
            "GET /api/v1/fees",
        }
        schemas = document["components"]["schemas"]
        assert schemas["Problem"]["properties"]["code"]["enum"] == [code.label for code in Code]
        references = set(
            re.findall(r'"#/components/schemas/(\w+)"', msgspec.json.encode(document).decode())
        )
        assert references <= schemas.keys()
        page = (await w.http.get("/docs")).text
        for name in [*schemas, *(code.label for code in Code)]:
            assert name in page
        # Nothing is loaded from anywhere.
        assert not re.search(r"<script|src=|https?://", page)


async def test_other_origins_are_shut_out_unless_named():
    origin = {"origin": "https://app.example"}
    async with world() as w:
        response = await w.http.get("/api/v1/status", headers=origin)
        assert "access-control-allow-origin" not in response.headers
    async with world(settings=Settings(cors_origins=("https://app.example",))) as w:
        response = await w.http.get("/api/v1/status", headers=origin)
        assert response.headers["access-control-allow-origin"] == "https://app.example"
        response = await w.http.get("/api/v1/status", headers={"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in response.headers


async def test_a_transaction_that_failed_says_why():
    async with world() as w:
        data = ALICE.transfer(0, amount=BALANCE - 2_000)
        w.backend._admit(data)
        w.ledger.account(ALICE.address).balance = 5_000
        w.backend.execute()
        view = await get(w, f"/tx/{id_of(data).hex()}", schema.TransactionView)
        assert view["receipt"]["code"] == "insufficient_balance"
        assert (await get(w, "/blocks/1", schema.BlockView))["header"]["failed_count"] == 1


async def test_stored_bytes_that_do_not_decode_are_a_refusal_not_a_traceback():
    async with world() as w:
        data = ALICE.transfer(0)
        await executed(w, data)
        record, hash_ = w.ledger.records[0]
        w.ledger.records[0] = (msgspec.structs.replace(record, bodies=(b"\x00",)), hash_)
        response = await w.http.get(f"/api/v1/tx/{id_of(data).hex()}")
        assert response.headers["content-type"] == "application/problem+json"
        with pytest.raises(QnetError):
            encode(2**65)


@given(
    st.sampled_from(
        ["tx/{}", "blocks/{}", "accounts/{}", "accounts/{}/next-nonce", "blocks", "{}", "status"]
    ),
    st.text(max_size=70) | st.from_regex(r"[0-9a-f]{60,66}", fullmatch=True),
    st.dictionaries(
        st.sampled_from(["wait", "timeout_ms", "cursor", "limit", "offset", "transactions"]),
        st.text(max_size=6) | st.integers().map(str),
    ),
)
def test_no_question_whatever_causes_a_fault(path, text_, params):
    async def run() -> None:
        async with world() as w:
            url = f"/api/v1/{path.format(quote(text_, safe=''))}"
            response = await w.http.get(url, params={"timeout_ms": "0", **params})
            assert response.status_code in (200, 400, 404, 504), response.text
            if response.status_code != 200:
                check_problem(response, Code[response.json()["code"].upper()])

    asyncio.run(run())
