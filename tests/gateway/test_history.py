"""The past through the API, and through the client."""

from __future__ import annotations

import httpx
import pytest

from qnet_actors.client import AsyncClient
from qnet_actors.gateway.queries import AccountAnswer, EventItem, EventsAnswer
from qnet_actors.wire.address import encode_address
from qnet_actors.wire.codes import Code, QnetError
from tests.gateway.fakes import World, check_problem, world
from tests.gateway.ledger import Wallet, id_of

ALICE = Wallet(0)
TEXT = encode_address(ALICE.address, development=True)


def client(w: World) -> AsyncClient:
    return AsyncClient("http://gateway", transport=httpx.ASGITransport(app=w.app), retries=0)


async def test_transactions_of_an_account_page_by_page():
    async with world(auto=True) as w, client(w) as asking:
        sent = []
        for nonce in range(5):
            data = ALICE.transfer(nonce)
            assert (await w.submit(data, wait="final")).status_code == 200
            sent.append(id_of(data).hex())
        found, cursor = [], None
        for expected in (2, 2, 1):
            page = await asking.account_transactions(ALICE.address, cursor=cursor, limit=2)
            assert len(page.transactions) == expected
            assert page.height == w.ledger.height
            found += page.transactions
            cursor = page.next_cursor
        assert cursor is None
        assert [item.id for item in found] == sent[::-1]
        assert {(i.kind, i.sent, i.amount, i.code) for i in found} == {
            ("transfer", True, 1, "success")
        }


async def test_events_and_accounts_of_the_past(monkeypatch):
    asked = []
    item = EventItem(7, 1, 2, b"\x01" * 32, ALICE.address, b"paid", b"\xff\x00")

    async with world() as w, client(w) as asking:
        backend = w.backend
        answer = backend._answer

        def past(request):
            if type(request).__name__ == "EventsQuery":
                asked.append(request)
                return EventsAnswer((item,), (7, 1, 2) if request.before is None else None, 9)
            if getattr(request, "height", None) is not None:
                return AccountAnswer(request.height, 5, 3, 3, bytes(32))
            return answer(request)

        monkeypatch.setattr(backend, "_answer", past)
        page = await asking.events(b"paid", source=ALICE.address, limit=1)
        (event,) = page.events
        assert (event.height, event.index, event.number) == (7, 1, 2)
        assert (event.source, event.topic, event.data) == (TEXT, b"paid", b"\xff\x00")
        assert page.next_cursor == "7.1.2"
        assert (await asking.events(b"paid", cursor=page.next_cursor)).next_cursor is None
        assert [(q.topic, q.source, q.before, q.count_max) for q in asked] == [
            (b"paid", ALICE.address, None, 1),
            (b"paid", None, (7, 1, 2), 20),
        ]
        old = await asking.account(ALICE.address, height=4)
        assert (old.height, old.balance, old.nonce) == (4, 5, 3)
        with pytest.raises(QnetError) as refused:
            await asking.account(ALICE.address, height=4, prove=True)
        assert refused.value.code is Code.INVALID_PARAMETER


async def test_where_no_history_is_kept():
    async with world() as w:
        check_problem(await w.http.get("/api/v1/events", params={"topic": "00"}), Code.NOT_FOUND)


@pytest.mark.parametrize(
    ("path", "params"),
    [
        (f"/accounts/{TEXT}/transactions", {"cursor": "7"}),
        (f"/accounts/{TEXT}/transactions", {"cursor": "7.1.2"}),
        (f"/accounts/{TEXT}/transactions", {"cursor": "7.4294967296"}),
        (f"/accounts/{TEXT}/transactions", {"cursor": "7.-1"}),
        (f"/accounts/{TEXT}/transactions", {"limit": "101"}),
        (f"/accounts/{TEXT}", {"height": "x"}),
        ("/events", {"topic": "zz"}),
        ("/events", {"topic": "00" * 65}),
        ("/events", {}),
        ("/events", {"topic": "00", "cursor": "1.2.65536"}),
    ],
)
async def test_questions_that_make_no_sense(path, params):
    async with world() as w:
        response = await w.http.get(f"/api/v1{path}", params=params)
        check_problem(response, Code.INVALID_PARAMETER)
