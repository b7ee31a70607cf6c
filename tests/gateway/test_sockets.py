from __future__ import annotations

import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from qnet_actors.client import AsyncClient
from qnet_actors.gateway.events import CheckpointEvent, MissedEvents, block_event
from qnet_actors.gateway.hub import Hub, Subscriber
from qnet_actors.gateway.settings import Settings
from qnet_actors.gateway.tracker import Tracked
from qnet_actors.wire.codes import Code, QnetError
from tests.gateway.fakes import FakeBackend, make_backends
from tests.gateway.ledger import Wallet, id_of
from tests.gateway.serving import served

ALICE = Wallet(0)


def run_blocks(backend: FakeBackend, first: int, count: int, size: int = 1) -> None:
    for height in range(first, first + count):
        for nonce in range(size):
            data = ALICE.transfer((height - 1) * size + nonce)
            assert backend._admit(data)[0] == Code.SUCCESS
        backend.execute()


async def receive(socket) -> dict:
    document: dict = msgspec.json.decode(await socket.recv())
    return document


async def drain(socket, messages: list[dict]) -> None:
    while True:
        messages.append(await receive(socket))


async def request(socket, **fields) -> dict:
    await socket.send(msgspec.json.encode(fields).decode())
    return await receive(socket)


def address(server) -> str:
    return f"ws://127.0.0.1:{server.port}/api/v1/ws"


async def test_blocks_as_they_come_bare_or_with_what_became_of_each_transaction():
    (backend,) = make_backends()
    async with served([backend]) as server, connect(address(server)) as bare:
        assert await request(bare, type="subscribe", to="blocks") == {
            "type": "subscribed",
            "to": "blocks",
        }
        async with connect(address(server)) as full:
            await request(full, type="subscribe", to="blocks", transactions=True)
            run_blocks(backend, 1, 1, size=2)
            backend.certify()
            block = await receive(bare)
            assert block["type"] == "block"
            assert block["header"]["height"] == "1"
            assert block["hash"] == backend.ledger.records[0][1].hex()
            assert not block["final"]
            assert "transactions" not in block
            rich = await receive(full)
            assert rich["transactions"] == [
                {"id": id_of(ALICE.transfer(n)).hex(), "code": "success", "gas_used": "1000"}
                for n in range(2)
            ]
            assert {**rich, "transactions": None} == {**block, "transactions": None}
            final = await receive(bare)
            assert (final["type"], final["height"]) == ("final", "1")
        await request(bare, type="unsubscribe", to="blocks")
        run_blocks(backend, 3, 1)
        assert (await request(bare, type="subscribe", to="blocks"))["type"] == "subscribed"


async def test_one_transaction_from_before_it_is_known_to_its_end():
    (backend,) = make_backends()
    data = ALICE.transfer(0)
    id_ = id_of(data).hex()
    async with served([backend]) as server, connect(address(server)) as socket:
        assert (await request(socket, type="subscribe", to="transaction", id=id_))["id"] == id_
        backend._admit(data)
        backend.batch()
        backend.execute()
        backend.certify()
        messages = [await receive(socket) for _ in range(3)]
        assert [message["status"] for message in messages] == ["batched", "executed", "final"]
        assert messages[1]["block"]["height"] == "1"
        assert messages[2]["receipt"] == {"code": "success", "gas_used": "1000"}
        # Who asks later is told at once.
        async with connect(address(server)) as late:
            await request(late, type="subscribe", to="transaction", id=id_)
            assert (await receive(late))["status"] == "final"


async def test_a_transaction_of_another_operator_is_heard_of_with_its_block():
    (backend,) = make_backends()
    data = ALICE.transfer(0)
    async with served([backend]) as server, connect(address(server)) as socket:
        await request(socket, type="subscribe", to="transaction", id=id_of(data).hex())
        backend._admit(data)
        backend.execute()
        assert (await receive(socket))["status"] == "executed"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "malformed"),
        ("[]", "malformed"),
        ('{"type": "subscribe"}', "malformed"),
        ('{"type": "subscribe", "to": "everything"}', "malformed"),
        ('{"type": "subscribe", "to": "blocks", "extra": 1}', "malformed"),
        ('{"type": "subscribe", "to": "transaction", "id": "zz"}', "invalid_parameter"),
        ("[" * 4_000, "malformed"),
    ],
)
async def test_a_request_that_is_none_is_answered_and_the_connection_stays(text, code):
    async with served(make_backends()) as server, connect(address(server)) as socket:
        await socket.send(text)
        answer = await receive(socket)
        assert answer["type"] == "error"
        assert answer["problem"]["code"] == code
        assert (await request(socket, type="subscribe", to="blocks"))["type"] == "subscribed"


async def test_a_message_that_is_too_large_or_no_text_ends_the_connection():
    async with served(make_backends()) as server:
        for message in ("x" * 5_000, b"\x00"):
            async with connect(address(server)) as socket:
                await socket.send(message)
                with pytest.raises(ConnectionClosed):
                    await socket.recv()


async def test_subscriptions_and_connections_are_bounded():
    settings = Settings(sockets_max=1, socket_subscriptions_max=2)
    async with served(make_backends(), settings) as server, connect(address(server)) as socket:
        for number in range(2):
            answer = await request(socket, type="subscribe", to="transaction", id=f"{number:064x}")
            assert answer["type"] == "subscribed"
        answer = await request(socket, type="subscribe", to="transaction", id="f" * 64)
        assert answer["problem"]["code"] == "busy"
        with pytest.raises(InvalidStatus) as refused:
            await connect(address(server))
        assert refused.value.response.status_code == 503
        assert msgspec.json.decode(refused.value.response.body)["code"] == "busy"


async def test_a_slow_reader_is_told_what_it_missed_and_dropped():
    settings = Settings(socket_queue_max=4, socket_send_timeout_ms=2_000)
    (backend,) = make_backends()
    async with (
        served([backend], settings) as server,
        connect(address(server), max_queue=1) as slow,
        connect(address(server)) as quick,
    ):
        await request(slow, type="subscribe", to="blocks", transactions=True)
        await request(quick, type="subscribe", to="blocks")
        # Each block is some 150 KB of text; the slow one reads none of it for now.
        height = 0
        while not any(s.overflowed for s in server.app.state.gateway.hub.subscribers):
            assert height < 200
            run_blocks(backend, height + 1, 1, size=1_000)
            height += 1
            assert (await receive(quick))["header"]["height"] == str(height)
        messages: list[dict] = []
        with pytest.raises(ConnectionClosed):
            await drain(slow, messages)
        assert slow.close_code == 1013
        *blocks, last = messages
        assert last["type"] == "missed"
        assert last["dropped"]
        assert last["messages"] >= 5
        heights = [int(block["header"]["height"]) for block in blocks]
        assert heights == list(range(1, len(heights) + 1))
        assert len(heights) + last["messages"] >= height
        # The others go on.
        run_blocks(backend, height + 1, 1, size=1_000)
        assert (await receive(quick))["header"]["height"] == str(height + 1)


async def test_the_client_subscribes():
    (backend,) = make_backends(auto=True)
    async with (
        served([backend]) as server,
        AsyncClient(server.url) as client,
        client.subscribe(blocks=True, transactions=True) as messages,
    ):
        first = await anext(messages)
        assert (first.type, first.to) == ("subscribed", "blocks")
        done = await client.transfer(ALICE.signer, b"\x09" * 32, 3)
        block = await anext(messages)
        assert block.header is not None
        assert block.header.height == 1
        assert block.transactions is not None
        assert [item.id for item in block.transactions] == [done.id]
        final = await anext(messages)
        assert (final.type, final.height) == ("final", 1)


def subscriber(queue_max: int = 10) -> Subscriber:
    made = Subscriber(queue_max, 10**6, 2)
    made.blocks = True
    return made


async def test_what_the_gateway_itself_missed_is_named():
    (backend,) = make_backends()
    hub = Hub()
    one = subscriber()
    hub.subscribers.add(one)
    run_blocks(backend, 1, 4)
    events = [block_event(*record) for record in backend.ledger.records]
    hub.block(events[0], False)
    hub.block(events[3], False)
    hub.missed()
    hub.checkpoint(CheckpointEvent(backend.ledger.certify().checkpoint))
    got = [msgspec.json.decode(await one.get() or b"") for _ in range(5)]
    assert [message["type"] for message in got] == ["block", "missed", "block", "missed", "final"]
    assert (got[1]["first_height"], got[1]["last_height"]) == ("2", "3")


async def test_a_queue_that_is_full_is_given_up_as_a_whole():
    one = subscriber(queue_max=2)
    for number in range(5):
        one.put(b"%d" % number)
    assert one.overflowed
    assert one.missed == 5
    assert await one.get() is None
    two = Subscriber(100, 10, 1)
    two.put(b"x" * 11)
    assert two.overflowed


async def test_followers_hear_of_their_own_and_of_the_end_once():
    hub = Hub()
    one = subscriber()
    one.follow(b"a")
    hub.subscribers.add(one)
    hub.changes([(b"b", Tracked("batched", 0)), (b"a", Tracked("evicted", 0))])
    hub.changes([(b"a", Tracked("batched", 1))])
    assert msgspec.json.decode(await one.get() or b"")["status"] == "evicted"
    assert not one.transactions
    one.follow(b"c")
    one.follow(b"d")
    with pytest.raises(QnetError):
        one.follow(b"e")


async def test_a_gateway_that_lost_sight_says_so_to_everyone():
    (backend,) = make_backends()
    async with served([backend]) as server, connect(address(server)) as socket:
        await request(socket, type="subscribe", to="blocks")
        backend.log.append(MissedEvents())
        assert await receive(socket) == {"type": "missed", "messages": None}
