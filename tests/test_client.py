from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnet_actors.client import AsyncClient, Client, default_url, home_directory
from qnet_actors.client.calls import Call, exchange
from qnet_actors.client.nonces import Nonces
from qnet_actors.wire.address import encode_address
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.transactions import Transfer
from tests.gateway.ledger import Wallet, id_of
from tests.gateway.serving import ThreadedWorld, threaded_world

ALICE, BOB = Wallet(0), Wallet(1)
CAROL = b"\x77" * 32


@pytest.fixture(scope="module")
def world():
    with threaded_world() as made:
        yield made


@pytest.fixture
def client(world: ThreadedWorld):
    with Client(world.url) as made:
        yield made


def test_status_and_network(client: Client, world: ThreadedWorld):
    status = client.status()
    assert status.chain_id == "11" * 32
    assert status.development
    assert client.network() == (b"\x11" * 32, True)


def test_a_transfer_goes_through_and_shows_in_balance_and_block(client: Client):
    before = client.balance(CAROL)
    done = client.transfer(ALICE.signer, CAROL, 5, wait="final")
    assert done.status == "final"
    assert done.receipt is not None
    assert done.receipt.succeeded
    assert done.block is not None
    assert client.balance(CAROL) == before + 5
    known = client.transaction(done.id)
    assert known.body is not None
    assert known.body.action.amount == 5
    assert known.body.action.payee == encode_address(CAROL, development=True)
    block = client.block(done.block.height, transactions=True)
    assert block.transactions is not None
    assert done.id in [item.id for item in block.transactions]
    assert client.block(block.hash).header == block.header


async def test_the_asynchronous_client_does_the_same(world: ThreadedWorld):
    async with AsyncClient(world.url) as client:
        done = await client.transfer(BOB.signer, CAROL, 7, wait="executed")
        assert done.status in ("executed", "final")
        assert (await client.account(BOB.address)).nonce == 1
        assert (await client.blocks(limit=1)).blocks[0].header.height >= 1


def test_a_client_keeps_count_of_its_nonces_and_repairs_what_another_took(
    client: Client, world: ThreadedWorld
):
    wallet = Wallet(2)
    for _ in range(3):
        client.transfer(wallet.signer, CAROL, 1, wait="executed")
    with Client(world.url) as other:
        other.transfer(wallet.signer, CAROL, 1, wait="executed")
    # The first client still believes that nonce 3 is free.
    done = client.transfer(wallet.signer, CAROL, 1, wait="executed")
    known = client.transaction(done.id)
    assert known.body is not None
    assert known.body.nonce == 4


def test_a_nonce_that_is_given_is_not_repaired(client: Client):
    client.transfer(Wallet(3).signer, CAROL, 1, wait="executed")
    with pytest.raises(QnetError) as refused:
        client.transfer(Wallet(3).signer, CAROL, 2, nonce=0)
    assert refused.value.code == Code.NONCE_TOO_LOW


def test_the_key_travels_once_and_again_when_it_is_asked_for(world: ThreadedWorld):
    wallet = Wallet(4)
    with Client(world.url) as client:
        first = client.transfer(wallet.signer, CAROL, 1, wait="executed")
        sizes = [len(client.sign(wallet.signer, Transfer(CAROL, 1), nonce=0).data)]
        second = client.transfer(wallet.signer, CAROL, 1, wait="executed")
        world.call(lambda: world.ledger.keys.clear())
        third = client.transfer(wallet.signer, CAROL, 1, wait="executed")
    assert len({first.id, second.id, third.id}) == 3
    assert sizes[0] > 2 * 32


def test_several_payments_at_once(client: Client):
    payees = [bytes([i]) * 32 for i in (101, 102)]
    done = client.multi_transfer(
        ALICE.signer,
        [(payees[0], 3), (encode_address(payees[1], development=True), 4)],
        wait="final",
    )
    assert done.status == "final"
    assert [client.balance(payee) for payee in payees] == [3, 4]


def test_a_rotated_key_signs_for_the_old_address(client: Client):
    old, new = Wallet(5), Wallet(60)
    client.rotate_key(old.signer, new.pair.key_id, wait="executed")
    with pytest.raises(QnetError) as refused:
        client.transfer(old.signer, CAROL, 1)
    assert refused.value.code == Code.KEY_NOT_CURRENT
    done = client.transfer(new.signer, CAROL, 1, sender=old.address, wait="executed")
    known = client.transaction(done.id)
    assert known.body is not None
    assert known.body.sender == encode_address(old.address, development=True)
    account = client.account(old.address)
    assert account.key_id == new.pair.key_id.hex()


def test_many_at_once_with_a_result_for_each(client: Client):
    wallet = Wallet(6)
    signed = [client.sign(wallet.signer, Transfer(CAROL, 1)) for _ in range(20)]
    results = client.submit_many([item.data for item in signed] + [b"junk"], wait="final")
    assert [result.id for result in results[:-1]] == [item.id.hex() for item in signed]
    assert all(result.accepted and result.status == "final" for result in results[:-1])
    assert not results[-1].accepted
    assert results[-1].code == "malformed"


def test_refusals_carry_the_code_of_the_gateway(client: Client, world: ThreadedWorld):
    cases: dict[Code, Callable[[], object]] = {
        Code.NOT_FOUND: lambda: client.transaction(bytes(32)),
        Code.BAD_ADDRESS: lambda: client.balance("tqnet1nothing"),
        Code.INVALID_PARAMETER: lambda: client.transaction("short"),
        Code.MALFORMED: lambda: client.submit(b"\x92\x90\x90"),
        Code.INSUFFICIENT_FUNDS: lambda: client.transfer(ALICE.signer, CAROL, 2**62),
        Code.AMOUNT_OVERFLOW: lambda: client.multi_transfer(
            ALICE.signer, [(CAROL, 2**63), (CAROL, 2**63)]
        ),
        Code.UNSUPPORTED_MEDIA_TYPE: lambda: client._run(
            exchange(Call("POST", "/api/v1/tx/submit", content=b"", content_type="a/b"), bytes, 0)
        ),
    }
    for code, call in cases.items():
        with pytest.raises(QnetError) as refused:
            call()
        assert refused.value.code == code, code
        assert refused.value.detail


def test_a_wait_in_vain_keeps_the_nonce(world: ThreadedWorld):
    wallet = Wallet(7)
    backend = world.backends[0]
    world.call(lambda: setattr(backend, "auto", False))
    try:
        with Client(world.url) as client:
            with pytest.raises(QnetError) as over:
                client.transfer(wallet.signer, CAROL, 1, wait="final", timeout_ms=1)
            assert over.value.code == Code.WAIT_TIMEOUT
            client.transfer(wallet.signer, CAROL, 1)
            pooled = world.call(
                lambda: sorted(
                    body.nonce for body in backend.pool.values() if body.sender == wallet.address
                )
            )
            assert pooled == [0, 1]
    finally:
        world.call(lambda: setattr(backend, "auto", True))
        world.call(backend._run_all)


def test_a_pinned_network_is_the_only_one_that_is_signed_for(world: ThreadedWorld):
    with Client(world.url, chain_id=b"\x11" * 32) as client:
        assert client.status().name == "test"
    with Client(world.url, chain_id=b"\x12" * 32) as client, pytest.raises(QnetError) as refused:
        client.transfer(ALICE.signer, CAROL, 1)
    assert refused.value.code == Code.WRONG_CHAIN


def answering(*replies: httpx.Response) -> tuple[httpx.MockTransport, list[httpx.Request]]:
    """A transport that gives these answers in turn."""
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        reply = replies[min(len(seen), len(replies)) - 1]
        return httpx.Response(reply.status_code, headers=reply.headers, content=reply.content)

    return httpx.MockTransport(handle), seen


def busy(code: Code = Code.BUSY) -> httpx.Response:
    return httpx.Response(
        code.http_status,
        headers={"content-type": "application/problem+json", "retry-after": "3"},
        json={"code": code.label, "detail": "later"},
    )


FEES = httpx.Response(
    200,
    json={
        "gas_price_min": "1",
        "gas_price_max": "2",
        "gas_limit_max": "3",
        "gas": {"transfer": "4", "payment": "5", "rotate_key": "6", "access_entry": "7"},
        "transaction_size_bytes_max": 8,
        "submission_size_bytes_max": 9,
        "submission_transactions_max": 10,
        "something_new": True,
    },
)


def test_a_busy_gateway_is_asked_again_after_the_time_it_names(monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr("qnet_actors.client.synchronous.time.sleep", pauses.append)
    transport, seen = answering(busy(), busy(Code.RATE_LIMITED), FEES)
    with Client("http://gateway", transport=transport) as client:
        assert client.fees().gas.rotate_key == 6
    assert len(seen) == 3
    assert pauses == [3.0, 3.0]
    transport, seen = answering(busy())
    client = Client("http://gateway", transport=transport, retries=1)
    with client, pytest.raises(QnetError, match="later"):
        client.fees()
    assert len(seen) == 2


def test_a_repeated_submission_that_was_taken_after_all_is_no_refusal(monkeypatch):
    monkeypatch.setattr("qnet_actors.client.synchronous.time.sleep", lambda _: None)
    data = ALICE.transfer(0)
    known = httpx.Response(200, json={"id": id_of(data).hex(), "status": "batched"})
    duplicate = busy(Code.DUPLICATE)
    transport, seen = answering(busy(Code.NOT_READY), duplicate, known)
    with Client("http://gateway", transport=transport) as client:
        assert client.submit(data).status == "batched"
    assert seen[2].url.path == f"/api/v1/tx/{id_of(data).hex()}"
    transport, _ = answering(duplicate)
    with Client("http://gateway", transport=transport) as client:
        with pytest.raises(QnetError) as refused:
            client.submit(data)
        assert refused.value.code == Code.DUPLICATE


async def test_so_does_the_asynchronous_one(monkeypatch):
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("qnet_actors.client.asynchronous.asyncio.sleep", pause)
    transport, _ = answering(busy(), FEES)
    async with AsyncClient("http://gateway", transport=transport) as client:
        assert (await client.fees()).gas_price_max == 2
    assert pauses == [3.0]


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (httpx.Response(200, content=b"<html>"), Code.MALFORMED),
        (httpx.Response(200, json={"gas_price_min": "x"}), Code.MALFORMED),
        (httpx.Response(404, content=b"not here"), Code.NODE_UNREACHABLE),
        (busy(Code.POOL_FULL), Code.POOL_FULL),
        (
            httpx.Response(
                418, headers={"content-type": "application/problem+json"}, json={"code": "teapot"}
            ),
            Code.INTERNAL,
        ),
        (
            httpx.Response(
                500, headers={"content-type": "application/problem+json"}, content=b"[1]"
            ),
            Code.INTERNAL,
        ),
    ],
)
def test_what_is_no_answer_of_a_gateway_is_told(reply, code):
    transport, seen = answering(reply)
    with Client("http://gateway", transport=transport) as client, pytest.raises(QnetError) as error:
        client.fees()
    assert error.value.code == code
    assert len(seen) == 1


async def test_nobody_there():
    with Client("http://127.0.0.1:1") as client:
        with pytest.raises(QnetError) as refused:
            client.status()
        assert refused.value.code == Code.NODE_UNREACHABLE
        with pytest.raises(QnetError) as refused, client.subscribe(blocks=True):
            pass
        assert refused.value.code == Code.NODE_UNREACHABLE
        with pytest.raises(QnetError) as refused, client.subscribe():
            pass
        assert refused.value.code == Code.INVALID_PARAMETER
    async with AsyncClient("http://127.0.0.1:1") as client2:
        with pytest.raises(QnetError) as refused:
            await client2.status()
        assert refused.value.code == Code.NODE_UNREACHABLE


@pytest.mark.parametrize("url", ["", "gateway:80", "ftp://gateway", "http://", "http:///x"])
def test_a_url_that_is_none(url, monkeypatch):
    monkeypatch.setenv("QNET_URL", url or "nonsense")
    with pytest.raises(QnetError) as refused:
        Client(url or None)
    assert refused.value.code == Code.CONFIGURATION_INVALID


def test_the_environment_names_gateway_and_home(monkeypatch):
    assert default_url({}) == "http://127.0.0.1:8080"
    assert default_url({"QNET_URL": "http://a"}) == "http://a"
    assert home_directory({"QNET_HOME": "/x"}) == Path("/x")
    assert home_directory({}).name == ".qnet"


def test_subscribing_while_blocking(client: Client):
    with client.subscribe(blocks=True, ids=[bytes(32)]) as messages:
        assert next(messages).type == "subscribed"
        assert next(messages).id == "00" * 32
        client.transfer(Wallet(8).signer, CAROL, 1)
        assert next(messages).type == "block"


@given(
    st.lists(st.tuples(st.sampled_from(["take", "forget", "learn"]), st.integers(0, 20))),
)
def test_no_nonce_is_handed_out_twice_unless_the_gateway_was_asked_again(steps):
    nonces = Nonces()
    handed: set[int] = set()
    for step, number in steps:
        if step == "forget":
            nonces.forget(b"a")
            handed.clear()
            continue
        nonce = nonces.take(b"a") if step == "take" else nonces.learn(b"a", number)
        if nonce is not None:
            assert nonce not in handed
            handed.add(nonce)
