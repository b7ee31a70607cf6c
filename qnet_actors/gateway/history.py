"""The routes that ask about the past, of validators that keep a history."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from qnet_actors.gateway.openapi import answers
from qnet_actors.gateway.queries import (
    HISTORY_PAGE_MAX,
    ActivityAnswer,
    ActivityItem,
    ActivityQuery,
    EventItem,
    EventsAnswer,
    EventsQuery,
)
from qnet_actors.gateway.routes import API, AddressText, json_response, parse_height
from qnet_actors.gateway.schema import (
    AccountTransactionsView,
    AccountTransactionView,
    EventsView,
    FoundEventView,
)
from qnet_actors.gateway.service import Gateway
from qnet_actors.gateway.views import Views, status_name
from qnet_actors.wire.address import decode_address
from qnet_actors.wire.codes import Code, QnetError

Cursor = Annotated[str | None, Query(description="`next_cursor` of the page before.")]
Limit = Annotated[int, Query(ge=1, le=HISTORY_PAGE_MAX)]


def parse_cursor(text: str | None, parts: int) -> list[int] | None:
    """The numbers of a cursor; raises `QnetError(INVALID_PARAMETER)`."""
    if text is None:
        return None
    numbers = [parse_height(part, "a part of cursor") for part in text.split(".", parts)]
    if len(numbers) != parts or any(number >= 2**32 for number in numbers[1:]):
        raise QnetError(Code.INVALID_PARAMETER, "cursor: pass on next_cursor as it came")
    return numbers


def create_history_router(gateway: Gateway) -> APIRouter:
    """The routes of `gateway` about the past."""
    router = APIRouter(prefix=API)

    @router.get(
        "/accounts/{address}/transactions",
        summary="Transactions of an account, the newest first",
        responses=answers(
            {200: (AccountTransactionsView,)},
            Code.BAD_ADDRESS,
            Code.INVALID_PARAMETER,
            Code.NOT_FOUND,
        ),
    )
    async def transactions(
        address: AddressText, cursor: Cursor = None, limit: Limit = 20
    ) -> Response:
        """Those that it sent, and those that it received from. A page may be short, or empty, and
        not be the last. `not_found` where no validator of this gateway keeps a history."""
        network = await gateway.network()
        raw = decode_address(address, development=network.development)
        numbers = parse_cursor(cursor, 2)
        before = None if numbers is None else (numbers[0], numbers[1])
        answer = await gateway.ask(ActivityQuery(raw, before, limit), ActivityAnswer)
        return json_response(
            AccountTransactionsView(
                transactions=[_activity(item) for item in answer.items],
                height=str(answer.height),
                next_cursor=_cursor(answer.before),
            )
        )

    @router.get(
        "/events",
        summary="Events of a topic, the newest first",
        responses=answers({200: (EventsView,)}, Code.INVALID_PARAMETER, Code.NOT_FOUND),
    )
    async def events(
        topic: Annotated[str, Query(description="In hex, at most 64 bytes.")],
        source: Annotated[str | None, Query(description="Only of this account.")] = None,
        cursor: Cursor = None,
        limit: Limit = 20,
    ) -> Response:
        """Of what contracts and the ledger told in receipts."""
        network = await gateway.network()
        raw = None
        if source is not None:
            raw = decode_address(source, development=network.development)
        numbers = parse_cursor(cursor, 3)
        if numbers is not None and numbers[2] >= 2**16:
            raise QnetError(Code.INVALID_PARAMETER, "cursor: pass on next_cursor as it came")
        before = None if numbers is None else (numbers[0], numbers[1], numbers[2])
        query = EventsQuery(_topic(topic), raw, before, limit)
        answer = await gateway.ask(query, EventsAnswer)
        return json_response(
            EventsView(
                events=[_event(network.views, item) for item in answer.items],
                height=str(answer.height),
                next_cursor=_cursor(answer.before),
            )
        )

    return router


def _topic(text: str) -> bytes:
    try:
        topic = bytes.fromhex(text) if len(text) <= 128 else None
    except ValueError:
        topic = None
    if topic is None:
        raise QnetError(Code.INVALID_PARAMETER, "topic: up to 64 bytes in hex")
    return topic


def _cursor(before: tuple[int, ...] | None) -> str | None:
    return None if before is None else ".".join(map(str, before))


def _activity(item: ActivityItem) -> AccountTransactionView:
    return AccountTransactionView(
        id=item.id.hex(),
        height=str(item.height),
        index=item.index,
        kind=item.kind,
        sent=item.sent,
        amount=str(item.amount),
        code=status_name(item.status),
    )


def _event(views: Views, item: EventItem) -> FoundEventView:
    return FoundEventView(
        transaction=item.id.hex(),
        height=str(item.height),
        index=item.index,
        number=item.number,
        source=views.address(item.source),
        topic=item.topic,
        data=item.data,
    )
