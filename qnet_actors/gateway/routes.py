"""The HTTP routes under /api/v1."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any, Final, Literal, cast

import msgspec
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from qnet_actors.gateway.admission import rate_headers
from qnet_actors.gateway.front import BodyReader, client_host
from qnet_actors.gateway.openapi import SUBMIT_BODY, SUBMIT_PARAMETERS, answers
from qnet_actors.gateway.problems import Refused
from qnet_actors.gateway.queries import (
    PAGE_BLOCKS_MAX,
    PAGE_TRANSACTIONS_MAX,
    AccountAnswer,
    AccountQuery,
    BlockAnswer,
    BlockQuery,
    BlocksAnswer,
    BlocksQuery,
    CheckpointAnswer,
    CheckpointQuery,
    EvidenceAnswer,
    EvidenceQuery,
    StatusAnswer,
    StatusQuery,
    ValidatorsAnswer,
    ValidatorsQuery,
)
from qnet_actors.gateway.schema import (
    AccountView,
    BlocksView,
    BlockView,
    CheckpointView,
    EvidenceView,
    FeesView,
    NextNonceView,
    StatusView,
    SubmissionView,
    SubmittedView,
    TransactionView,
    ValidatorsView,
)
from qnet_actors.gateway.service import Gateway, Outcome
from qnet_actors.gateway.submission import BODY_SIZE_BYTES_MAX, media_type, read_submission
from qnet_actors.gateway.tracker import RECEIVED, Tracked
from qnet_actors.gateway.views import (
    checkpoint_view,
    evidence_view,
    fees_view,
    status_view,
    tracked_views,
)
from qnet_actors.gateway.waits import WAIT_TARGETS
from qnet_actors.wire.address import decode_address
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.limits import U64_MAX

API: Final = "/api/v1"
# Larger pages are made off the event loop, which others wait for.
_THREAD_ROWS: Final = 64
_TAKEN: Final = Code.SUCCESS.label
_encode: Final = msgspec.json.Encoder().encode

Target = Literal["batched", "executed", "final"]
Wait = Annotated[
    Target | None, Query(description="Answer only when the transaction has come this far.")
]
TimeoutMs = Annotated[
    int | None, Query(ge=0, description="How long to wait; the gateway bounds it.")
]
TransactionId = Annotated[str, Path(description="64 hex digits.")]
AddressText = Annotated[str, Path(description="bech32m, `qnet1...` or `tqnet1...`.")]


def json_response(
    view: Any, status_code: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """A view as JSON."""
    return Response(
        _encode(view), status_code=status_code, media_type="application/json", headers=headers
    )


def parse_digest(text: str) -> bytes:
    """32 bytes of lower-case hex; raises `QnetError(INVALID_PARAMETER)`."""
    try:
        digest = bytes.fromhex(text) if len(text) == 64 and text == text.lower() else b""
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise QnetError(Code.INVALID_PARAMETER, "an id is 64 lower-case hex digits")
    return digest


def parse_height(text: str, name: str) -> int:
    """A u64 in decimal; raises `QnetError(INVALID_PARAMETER)`."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 20) or int(text) > U64_MAX:
        raise QnetError(Code.INVALID_PARAMETER, f"{name} is a decimal number below 2^64")
    return int(text)


def create_router(gateway: Gateway) -> APIRouter:
    """The routes of `gateway`."""
    router = APIRouter(prefix=API)
    _add_submit(router, gateway)
    _add_transactions(router, gateway)
    _add_blocks(router, gateway)
    _add_accounts(router, gateway)
    _add_network(router, gateway)
    return router


def _deadline_s(gateway: Gateway, timeout_ms: int | None) -> float:
    settings = gateway.settings
    chosen_ms = settings.wait_timeout_ms if timeout_ms is None else timeout_ms
    return asyncio.get_running_loop().time() + min(chosen_ms, settings.wait_timeout_ms_max) / 1_000


def _add_submit(router: APIRouter, gateway: Gateway) -> None:
    bodies = BodyReader(gateway)

    def limit(client: str | None, count: int) -> dict[str, str]:
        if client is None:
            return {}
        buckets = gateway.limiter.transactions
        verdict = buckets.take(client, count, time.monotonic())
        headers = rate_headers("transactions", buckets.rate, verdict)
        if not verdict.allowed:
            raise Refused(
                Code.RATE_LIMITED, headers=headers, retry_after_s=max(1, round(verdict.wait_s))
            )
        return headers

    @router.post(
        "/tx/submit",
        summary="Submit one signed transaction, or up to 1,000",
        status_code=202,
        openapi_extra={"requestBody": SUBMIT_BODY, "parameters": SUBMIT_PARAMETERS},
        responses=answers(
            {
                202: (SubmittedView, SubmissionView),
                200: (TransactionView, SubmissionView),
            },
            Code.MALFORMED,
            Code.NONCE_TOO_LOW,
            Code.TOO_LARGE,
            Code.UNSUPPORTED_MEDIA_TYPE,
            Code.REQUEST_TIMEOUT,
            Code.RATE_LIMITED,
            Code.BUSY,
            Code.WAIT_TIMEOUT,
        ),
    )
    async def submit(request: Request) -> Response:
        """One transaction is answered with its id, or with the problem that refused it.  Many are
        answered with a result for each, in order, whatever became of them.  With `wait` the answer
        comes when the transactions are batched, executed or final, with block and receipt.
        """
        # Read by hand: the framework's way takes half as long again as all the rest.
        wait, timeout_ms = _wait_parameters(request)
        type_ = media_type(request.headers.get("content-type"))
        if gateway.upstreams.refused_gas_price >= U64_MAX:
            # What is left of the body is read and dropped by the server, and costs nothing more;
            # unread it counts as one transaction.
            gateway.metrics.submitted(Code.BUSY.label)
            raise Refused(Code.BUSY)
        body = await bodies.read(request, BODY_SIZE_BYTES_MAX[type_])
        submission = read_submission(body, type_)
        client = gateway.limiter.client(client_host(request.scope))
        headers = limit(client, len(submission.transactions))
        deadline_s = _deadline_s(gateway, timeout_ms)
        outcomes = await gateway.submit(
            submission.transactions, limited=client is not None, hold=wait is not None
        )
        if submission.single:
            return await _answer_one(gateway, outcomes[0], wait, deadline_s, headers)
        return await _answer_many(gateway, outcomes, wait, deadline_s, headers)


def _wait_parameters(request: Request) -> tuple[Target | None, int | None]:
    """`wait` and `timeout_ms` of a submission; raises `QnetError(INVALID_PARAMETER)`."""
    if not request.scope["query_string"]:
        return None, None
    wait = request.query_params.get("wait")
    if wait is not None and wait not in WAIT_TARGETS:
        raise QnetError(Code.INVALID_PARAMETER, f"wait: one of {', '.join(WAIT_TARGETS)}")
    text = request.query_params.get("timeout_ms")
    timeout_ms = None if text is None else parse_height(text, "timeout_ms")
    return cast("Target | None", wait), timeout_ms


async def _answer_one(
    gateway: Gateway,
    outcome: Outcome,
    wait: Target | None,
    deadline_s: float,
    headers: dict[str, str],
) -> Response:
    id_ = outcome.id.hex()
    members = {"id": id_} if id_ else {}
    if outcome.code != Code.SUCCESS:
        raise Refused(outcome.code, outcome.detail, members=members, headers=headers)
    headers = {**headers, "Location": f"{API}/tx/{id_}"}
    if wait is None:
        view = SubmittedView(id=id_, code=outcome.code.label, status=RECEIVED)
        return json_response(view, 202, headers)
    tracked = await _wait_one(gateway, outcome.id, wait, deadline_s)
    return json_response(TransactionView(id=id_, **tracked_views(tracked)), 200, headers)


async def _wait_one(gateway: Gateway, id_: bytes, wait: Target, deadline_s: float) -> Tracked:
    try:
        tracked = await gateway.wait(id_, wait, deadline_s)
    except QnetError as error:
        raise Refused(error.code, error.detail, members={"id": id_.hex()}) from None
    if tracked.refused:
        raise Refused(Code[tracked.status.upper()], members={"id": id_.hex()})
    return tracked


async def _answer_many(
    gateway: Gateway,
    outcomes: list[Outcome],
    wait: Target | None,
    deadline_s: float,
    headers: dict[str, str],
) -> Response:
    codes = {outcome.code for outcome in outcomes}
    if codes and all(code.http_status == 503 for code in codes):
        # Nothing was taken: whoever reads no further than the status must not believe otherwise.
        code = outcomes[0].code
        raise Refused(code, f"none of {len(outcomes)} transactions was taken", headers=headers)
    if wait is None:
        results = [_result(outcome) for outcome in outcomes]
        return json_response(SubmissionView(results), 202, headers)
    results = await asyncio.gather(
        *(_result_after(gateway, outcome, wait, deadline_s) for outcome in outcomes)
    )
    return json_response(SubmissionView(results), 200, headers)


def _result(outcome: Outcome) -> SubmittedView:
    id_ = outcome.id.hex() or None
    if outcome.code == Code.SUCCESS:
        return SubmittedView(id=id_, code=_TAKEN, status=RECEIVED)
    return SubmittedView(id=id_, code=outcome.code.label, detail=outcome.detail)


async def _result_after(
    gateway: Gateway, outcome: Outcome, wait: Target, deadline_s: float
) -> SubmittedView:
    if outcome.code != Code.SUCCESS:
        return _result(outcome)
    try:
        tracked = await _wait_one(gateway, outcome.id, wait, deadline_s)
    except QnetError as error:
        return SubmittedView(id=outcome.id.hex(), code=error.code.label, detail=error.detail)
    return SubmittedView(id=outcome.id.hex(), code=Code.SUCCESS.label, **tracked_views(tracked))


def _add_transactions(router: APIRouter, gateway: Gateway) -> None:
    @router.get(
        "/tx/{id}",
        summary="A transaction: status, block, receipt, body",
        responses=answers(
            {200: (TransactionView,)},
            Code.INVALID_PARAMETER,
            Code.NOT_FOUND,
            Code.PRUNED,
            Code.WAIT_TIMEOUT,
        ),
    )
    async def transaction(
        id: TransactionId,  # noqa: A002 - the name in the path
        wait: Wait = None,
        timeout_ms: TimeoutMs = None,
    ) -> Response:
        """Statuses that come before execution, and refusals, are remembered for ten minutes."""
        id_ = parse_digest(id)
        network = await gateway.network()
        if wait is not None:
            await _wait_one(gateway, id_, wait, _deadline_s(gateway, timeout_ms))
        status, answer, tracked = await gateway.transaction(id_)
        if not answer.height and tracked is not None:
            return json_response(TransactionView(id=id, **tracked_views(tracked)))
        return json_response(network.views.transaction(id_, answer, status))


def _add_blocks(router: APIRouter, gateway: Gateway) -> None:
    @router.get(
        "/blocks",
        summary="Blocks, the latest first",
        responses=answers({200: (BlocksView,)}, Code.INVALID_PARAMETER),
    )
    async def blocks(
        cursor: Annotated[
            str | None, Query(description="`next_cursor` of the page before.")
        ] = None,
        limit: Annotated[int, Query(ge=1, le=PAGE_BLOCKS_MAX)] = 20,
    ) -> Response:
        network = await gateway.network()
        before = None if cursor is None else parse_height(cursor, "cursor")
        answer = await gateway.ask(BlocksQuery(before, limit), BlocksAnswer)
        final_height = gateway.tracker.final_height
        views = [
            network.views.summary(block, block.header.height <= final_height)
            for block in answer.blocks
        ]
        last = answer.blocks[-1].header.height if answer.blocks else 0
        return json_response(BlocksView(views, str(last) if last > 1 else None))

    @router.get(
        "/blocks/{block}",
        summary="A block by height, by hash, or the latest",
        responses=answers({200: (BlockView,)}, Code.INVALID_PARAMETER, Code.NOT_FOUND, Code.PRUNED),
    )
    async def block(
        block: Annotated[str, Path(description="A height, a hash, or `latest`.")],
        transactions: Annotated[bool, Query(description="With the transactions.")] = False,
        offset: Annotated[int, Query(ge=0, lt=2**32)] = 0,
        limit: Annotated[int, Query(ge=1, le=PAGE_TRANSACTIONS_MAX)] = 100,
    ) -> Response:
        network = await gateway.network()
        selector: int | bytes | None
        if block == "latest":
            selector = None
        elif len(block) == 64:
            selector = parse_digest(block)
        else:
            selector = parse_height(block, "a block is named by height, hash or `latest`; a height")
        count = limit if transactions else 0
        answer = await gateway.ask(BlockQuery(selector, offset, count), BlockAnswer)
        final = answer.final or answer.header.height <= gateway.tracker.final_height
        if len(answer.bodies) <= _THREAD_ROWS:
            view = network.views.block(answer, final, offset, transactions)
        else:
            view = await asyncio.to_thread(network.views.block, answer, final, offset, transactions)
        return json_response(view)


def _add_accounts(router: APIRouter, gateway: Gateway) -> None:
    refusals = (Code.BAD_ADDRESS,)

    @router.get(
        "/accounts/{address}",
        summary="An account in the newest executed state, or as of a block",
        responses=answers({200: (AccountView,)}, *refusals, Code.NOT_FOUND, Code.PRUNED),
    )
    async def account(
        address: AddressText,
        height: Annotated[
            str | None, Query(description="As of this block, where a history is kept.")
        ] = None,
    ) -> Response:
        """An account that does not exist reads as zeros."""
        network = await gateway.network()
        raw = decode_address(address, development=network.development)
        if height is None:
            answer = await gateway.account(raw)
        else:
            query = AccountQuery(raw, parse_height(height, "height"))
            answer = await gateway.ask(query, AccountAnswer)
        return json_response(network.views.account(raw, answer))

    @router.get(
        "/accounts/{address}/next-nonce",
        summary="The nonce that the next transaction should carry",
        responses=answers({200: (NextNonceView,)}, *refusals),
    )
    async def next_nonce(address: AddressText) -> Response:
        """Counts what waits in the pool of the account's home validator."""
        network = await gateway.network()
        raw = decode_address(address, development=network.development)
        answer = await gateway.account(raw)
        return json_response(NextNonceView(network.views.address(raw), str(answer.next_nonce)))


def _add_network(router: APIRouter, gateway: Gateway) -> None:
    @router.get(
        "/status",
        summary="Where the network stands",
        responses=answers({200: (StatusView,)}, Code.NOT_READY),
    )
    async def status() -> Response:
        """As the validator sees it that is furthest ahead."""
        return json_response(status_view(await gateway.ask(StatusQuery(), StatusAnswer)))

    @router.get(
        "/validators",
        summary="The committee",
        responses=answers({200: (ValidatorsView,)}, Code.NOT_READY),
    )
    async def validators() -> Response:
        network = await gateway.network()
        answer = await gateway.ask(ValidatorsQuery(), ValidatorsAnswer)
        return json_response(network.views.validators(answer))

    @router.get(
        "/checkpoints/latest",
        summary="The latest certified checkpoint, with its signatures",
        responses=answers({200: (CheckpointView,)}, Code.NOT_FOUND),
    )
    async def checkpoint() -> Response:
        return json_response(
            checkpoint_view(await gateway.ask(CheckpointQuery(), CheckpointAnswer))
        )

    @router.get(
        "/evidence",
        summary="Proofs that validators signed two blocks for one slot",
        responses=answers({200: (EvidenceView,)}, Code.NOT_READY),
    )
    async def evidence() -> Response:
        """As the validator keeps them that is furthest ahead, at most two for each author."""
        return json_response(evidence_view(await gateway.ask(EvidenceQuery(), EvidenceAnswer)))

    @router.get(
        "/fees",
        summary="What transactions cost, and the limits they are held to",
        responses=answers({200: (FeesView,)}, Code.NOT_READY),
    )
    async def fees() -> Response:
        """A fee is gas used times gas price."""
        return json_response(fees_view(await gateway.ask(StatusQuery(), StatusAnswer)))
