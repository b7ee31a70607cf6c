"""Proofs through the API, and a client that believes nothing else."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import msgspec
import pytest

from qnet_actors.client import AsyncClient
from qnet_actors.light import HAND_OFF_CODEC, PROVED_ACCOUNT_CODEC, LightClient
from qnet_actors.wire.address import encode_address
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.genesis import GENESIS_CODEC
from tests.gateway.fakes import World, world
from tests.ledger import epochs
from tests.ledger.rig import PROVIDER
from tests.ledger.world import address
from tests.light.test_client import GENESIS, proved_account, proved_transaction

NOBODY = b"\x09" * 32


@asynccontextmanager
async def proving(**options: object) -> AsyncIterator[tuple[World, AsyncClient]]:
    """A gateway over a validator that holds proofs, and a client that trusts the genesis."""
    async with world() as w:
        w.ledger.genesis = GENESIS
        for raw in (address(1), NOBODY):
            w.ledger.proved_accounts[raw] = proved_account(raw)
        id_, proved = proved_transaction(3)
        w.ledger.proved_transactions[id_] = proved
        options = options or {"light": LightClient(GENESIS, PROVIDER)}
        transport = httpx.ASGITransport(app=w.app)
        client = AsyncClient("http://gateway", transport=transport, **options)  # type: ignore[arg-type]
        async with client:
            yield w, client


async def refused(code: Code, call: object) -> None:
    with pytest.raises(QnetError) as caught:
        await call  # type: ignore[misc]
    assert caught.value.code is code


async def test_a_client_believes_what_is_proved():
    async with proving() as (w, client):
        proved = w.ledger.proved_accounts[address(1)]
        assert proved.account is not None
        account = await client.account(address(1), prove=True)
        assert (account.balance, account.nonce) == (proved.account.balance, proved.account.nonce)
        assert account.height == proved.certificate.checkpoint.height
        assert account.key_id == proved.account.key_id.hex()
        assert account.proved
        nobody = await client.account(encode_address(NOBODY, development=True), prove=True)
        assert (nobody.balance, nobody.nonce, nobody.key_id, nobody.proved) == (0, 0, None, True)
        id_, transaction = proved_transaction(3)
        final = await client.final_transaction(id_)
        assert (final.header.height, final.index) == (3, transaction.transaction.index)
        assert final.receipt.transaction_id == id_
        await refused(Code.NOT_FOUND, client.final_transaction(bytes(32)))


async def test_a_gateway_that_lies_is_found_out():
    async with proving() as (w, client):
        good = w.ledger.proved_accounts[address(1)]
        assert good.account is not None
        richer = msgspec.structs.replace(good.account, balance=good.account.balance + 1)
        for lie in ({"account": richer}, {"account": None}):
            w.ledger.proved_accounts[address(1)] = msgspec.structs.replace(good, **lie)
            await refused(Code.BAD_PROOF, client.account(address(1), prove=True))
        w.ledger.proved_accounts[address(1)] = w.ledger.proved_accounts[NOBODY]
        await refused(Code.BAD_PROOF, client.account(address(1), prove=True))
        few = msgspec.structs.replace(good.certificate, votes=good.certificate.votes[:2])
        w.ledger.proved_accounts[address(1)] = msgspec.structs.replace(good, certificate=few)
        await refused(Code.BAD_CERTIFICATE, client.account(address(1), prove=True))


async def test_the_past_is_asked_for_by_nobody():
    async with proving() as (w, client):
        await client.account(address(1), prove=True)
        w.ledger.proved_accounts[address(1)] = proved_account(address(1), -3)
        await refused(Code.NOT_FOUND, client.account(address(1), prove=True))


async def test_the_genesis_comes_from_the_gateway_and_is_held_to_the_chain_id():
    async with proving(chain_id=GENESIS.chain_id()) as (w, client):
        served = await w.http.get("/api/v1/genesis")
        assert served.headers["content-type"] == "application/msgpack"
        assert GENESIS_CODEC.decode(served.content) == GENESIS
        # The provider for real networks has no keyed hash, which this one signs with.
        await refused(Code.UNKNOWN_SCHEME, client.account(address(1), prove=True))
        w.ledger.genesis = msgspec.structs.replace(GENESIS, name="another")
    async with proving(chain_id=GENESIS.chain_id()) as (w, client):
        await client.status()
        w.ledger.genesis = msgspec.structs.replace(GENESIS, name="another")
        await refused(Code.WRONG_CHAIN, client.account(address(1), prove=True))


async def test_a_gateway_cannot_vouch_for_itself():
    async with proving(retries=0) as (_, client):
        await refused(Code.CONFIGURATION_INVALID, client.account(address(1), prove=True))
        assert not (await client.account(address(1))).proved
    with pytest.raises(QnetError, match="another network"):
        AsyncClient("http://gateway", chain_id=bytes(32), light=LightClient(GENESIS, PROVIDER))


async def test_the_answers_show_what_the_proof_says():
    async with proving() as (w, _):
        text = encode_address(address(1), development=True)
        shown = (await w.http.get(f"/api/v1/accounts/{text}/proof")).json()
        proved = PROVED_ACCOUNT_CODEC.decode(base64.b64decode(shown.pop("proof")))
        assert proved == w.ledger.proved_accounts[address(1)]
        assert proved.account is not None
        assert shown == {
            "address": text,
            "height": str(proved.certificate.checkpoint.height),
            "exists": True,
            "balance": str(proved.account.balance),
            "nonce": str(proved.account.nonce),
            "key_id": proved.account.key_id.hex(),
        }
        for params, code in (({"min_height": "1000"}, 404), ({"min_height": "-1"}, 400)):
            answer = await w.http.get(f"/api/v1/accounts/{text}/proof", params=params)
            assert answer.status_code == code
        w.ledger.genesis = None
        assert (await w.http.get("/api/v1/genesis")).status_code == 413


@asynccontextmanager
async def over_epochs() -> AsyncIterator[tuple[World, AsyncClient]]:
    """A gateway over a validator in the last epoch of a chain, and a client that trusts the
    genesis."""
    async with world() as w:
        w.ledger.genesis = epochs.GENESIS
        w.ledger.hand_offs = dict(enumerate(epochs.told().hand_offs))
        w.ledger.proved_accounts[address(1)] = epochs.told().proved[-1]
        transport = httpx.ASGITransport(app=w.app)
        light = LightClient(epochs.GENESIS, PROVIDER)
        async with AsyncClient("http://gateway", transport=transport, light=light) as client:
            yield w, client


async def test_a_client_follows_the_committee_over_epochs():
    async with over_epochs() as (w, client):
        account = await client.account(address(1), prove=True)
        proved = epochs.told().proved[-1]
        assert (account.proved, account.height) == (True, proved.certificate.checkpoint.height)
        # It has no more to ask.
        w.ledger.hand_offs.clear()
        assert await client.account(address(1), prove=True) == account


async def test_a_gateway_that_leads_elsewhere_is_not_followed():
    async with over_epochs() as (w, client):
        hand_offs = dict(w.ledger.hand_offs)
        w.ledger.hand_offs[1] = hand_offs[0]
        # Sent in circles, the client would never end.
        await refused(Code.BAD_PROOF, client.account(address(1), prove=True))
        w.ledger.hand_offs[1] = msgspec.structs.replace(hand_offs[1], seed=bytes(32))
        await refused(Code.BAD_PROOF, client.account(address(1), prove=True))
        del w.ledger.hand_offs[1]
        await refused(Code.NOT_FOUND, client.account(address(1), prove=True))
        w.ledger.hand_offs[1] = hand_offs[1]
        assert (await client.account(address(1), prove=True)).proved


async def test_the_end_of_an_epoch_is_asked_for_by_its_number():
    async with (
        over_epochs() as (w, _),
        httpx.AsyncClient(transport=httpx.ASGITransport(app=w.app), base_url="http://g") as http,
    ):
        for name, status in [("0", 200), ("4", 404), ("-1", 400), ("x", 400), (str(2**64), 400)]:
            answer = await http.get(f"/api/v1/epochs/{name}/hand-off")
            assert answer.status_code == status
            if status == 200:
                assert answer.headers["content-type"] == "application/msgpack"
                assert HAND_OFF_CODEC.decode(answer.content) == epochs.told().hand_offs[0]
