from __future__ import annotations

import pytest

from qnet_actors.client import AsyncClient, Client
from qnet_actors.wire.address import encode_address
from tests.gateway.fakes import Wallet
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
