"""Validators over a little ledger in memory, that tests step by hand or let run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI

from qnet_actors.gateway.app import create_app
from qnet_actors.gateway.backend import Result
from qnet_actors.gateway.events import (
    BlockEvent,
    CheckpointEvent,
    Event,
    EventLog,
    StatusEvent,
    block_event,
)
from qnet_actors.gateway.queries import (
    AccountAnswer,
    AccountProofAnswer,
    AccountProofQuery,
    AccountQuery,
    ActivityAnswer,
    ActivityItem,
    ActivityQuery,
    Answer,
    BlockAnswer,
    BlockQuery,
    BlocksAnswer,
    BlocksQuery,
    BlockSummary,
    CheckpointAnswer,
    CheckpointQuery,
    EventsQuery,
    EvidenceAnswer,
    EvidenceInfo,
    EvidenceQuery,
    GenesisAnswer,
    GenesisQuery,
    HandOffAnswer,
    HandOffQuery,
    Query,
    StatusAnswer,
    StatusQuery,
    TransactionAnswer,
    TransactionProofAnswer,
    TransactionProofQuery,
    TransactionQuery,
    ValidatorInfo,
    ValidatorsAnswer,
    ValidatorsQuery,
    VerifierAnswer,
    VerifierQuery,
)
from qnet_actors.gateway.service import Gateway
from qnet_actors.gateway.settings import Settings
from qnet_actors.gateway.tracker import Tracker
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.genesis import Parameters
from qnet_actors.wire.hashing import HOME, ZERO_DIGEST, hash32
from qnet_actors.wire.rules import first_rules
from qnet_actors.wire.schemes import CONTEXT_TRANSACTION, Scheme
from qnet_actors.wire.transactions import (
    BODY_CODEC,
    TRANSACTION_CODEC,
    Body,
    Transaction,
    amount_total,
    check_body,
    transaction_id,
)
from tests.gateway.ledger import BALANCE, CHAIN_ID, SIMULATOR, Ledger, Wallet, id_of

DEAD = QnetError(Code.NODE_UNREACHABLE, "gone")
# A death lasts longer than a test.
SLOW_RETRY = Settings(retry_first_ms=60_000, retry_last_ms=60_000)


class FakeBackend:
    """One validator over a `Ledger`; `faults` are raised by its methods instead of an answer."""

    def __init__(self, index: int, ledger: Ledger, auto: bool = False) -> None:
        self.index = index
        self.ledger = ledger
        self.auto = auto
        """Batches, executes and certifies at once what is submitted."""
        self.peers: list[FakeBackend] = [self]
        self.pool: dict[bytes, Body] = {}
        self.tracker = Tracker()
        self.log = EventLog()
        self.calls: list[list[bytes]] = []
        self.gate: asyncio.Event | None = None
        """Submissions wait for it."""
        self.stopped: asyncio.Event | None = None
        """Nothing is answered before it; the connections stand."""
        self.fault: QnetError | Exception | None = None
        self.ready = True
        self.disk_low = False
        self.evidence: tuple[EvidenceInfo, ...] = ()
        self.verifier = VerifierAnswer("fake", compiled=False)
        self.busy = False
        """Whether it refuses all transactions for load."""
        self.refused: dict[bytes, Code] = {}
        """Transactions with what the pool has against them."""
        self.queries = 0

    async def submit(self, transactions: list[bytes]) -> list[Result]:
        self.calls.append(transactions)
        if self.gate is not None:
            await self.gate.wait()
        await self._fail()
        if self.disk_low:
            raise QnetError(Code.DISK_FULL)
        if self.busy:
            return [(int(Code.BUSY), b"", "")] * len(transactions)
        results = [
            (int(self.refused[data]), id_of(data), "")
            if data in self.refused
            else self._admit(data)
            for data in transactions
        ]
        if self.auto:
            asyncio.get_running_loop().call_soon(self._run_all)
        return results

    async def query(self, request: Query) -> Answer:
        self.queries += 1
        await self._fail()
        return self._answer(request)

    async def poll(self, after: int, timeout_ms: int) -> tuple[int, list[bytes]]:
        await self._fail()
        return await self.log.poll(after, timeout_ms)

    def tell(self, event: Event) -> None:
        """Puts an event into this validator's stream."""
        self.tracker.apply(event, 0)
        self.log.append(event)

    def tell_all(self, event: Event) -> None:
        for peer in self.peers:
            peer.tell(event)

    def batch(self) -> None:
        """Batches what is in the pool."""
        self.tell(StatusEvent("batched", b"".join(self.pool)))

    def execute(self) -> BlockEvent:
        """Executes the pool as one block."""
        bodies = sorted(self.pool.values(), key=lambda body: body.nonce)
        self.pool.clear()
        event = block_event(*self.ledger.execute(bodies))
        self.tell_all(event)
        return event

    def certify(self) -> None:
        self.tell_all(CheckpointEvent(self.ledger.certify().checkpoint))

    def refuse(self, label: str) -> None:
        """The pool gives up all that it holds."""
        ids = b"".join(self.pool)
        self.pool.clear()
        self.tell(StatusEvent(label, ids))

    def _run_all(self) -> None:
        if self.pool:
            self.batch()
            self.execute()
            self.certify()

    async def _fail(self) -> None:
        if self.stopped is not None:
            await self.stopped.wait()
        if self.fault is not None:
            raise self.fault

    def _admit(self, data: bytes) -> Result:
        id_ = b""
        try:
            transaction = TRANSACTION_CODEC.decode(data)
            body = transaction.body
            id_ = transaction_id(encode(body))
            self._check(transaction, id_)
        except QnetError as error:
            return (error.code, id_, error.detail)
        self.pool[id_] = body
        self.tracker.received([id_], 0)
        return (Code.SUCCESS, id_, "")

    def _check(self, transaction: Transaction, id_: bytes) -> None:
        body, witness = transaction.body, transaction.witness
        check_body(body, CHAIN_ID)
        account = self.ledger.account(body.sender)
        if id_ in self.pool or id_ in self.ledger.places:
            raise QnetError(Code.DUPLICATE)
        if body.nonce < account.nonce:
            raise QnetError(Code.NONCE_TOO_LOW, f"the next nonce is {account.nonce}")
        if body.nonce > account.nonce + 2_000:
            raise QnetError(Code.NONCE_TOO_FAR)
        cost = amount_total(body.action) + body.gas_limit * body.gas_price
        if cost > account.balance:
            raise QnetError(Code.INSUFFICIENT_FUNDS, f"it needs {cost}")
        current = account.key_id if account.key_id != ZERO_DIGEST else body.sender
        if body.key_id != current:
            raise QnetError(Code.KEY_NOT_CURRENT)
        key = witness.public_key or self.ledger.keys.get(body.key_id)
        if key is None:
            raise QnetError(Code.UNKNOWN_KEY)
        if witness.scheme == Scheme.KEYED_HASH and not SIMULATOR.verify(
            Scheme.KEYED_HASH, key, id_, witness.signature, CONTEXT_TRANSACTION
        ):
            raise QnetError(Code.BAD_SIGNATURE)
        self.ledger.keys[body.key_id] = key

    def _answer(self, request: Query) -> Answer:
        match request:
            case StatusQuery():
                return self._status()
            case ValidatorsQuery():
                infos = tuple(
                    ValidatorInfo(peer.index, 2, bytes([peer.index]) * 32, 100, b"\x33" * 32, True)
                    for peer in self.peers
                )
                return ValidatorsAnswer(0, 67, infos, first_rules(Parameters(epoch_commits_min=10)))
            case AccountQuery():
                return self._account(request.address)
            case TransactionQuery():
                return self._transaction(request.id)
            case BlockQuery():
                return self._block(request)
            case BlocksQuery():
                end = self.ledger.height
                if request.before is not None:
                    end = min(end, max(0, request.before - 1))
                wanted = self.ledger.records[max(0, end - request.count_max) : end]
                return BlocksAnswer(
                    tuple(BlockSummary(record.header, hash_) for record, hash_ in wanted[::-1])
                )
            case CheckpointQuery():
                if self.ledger.certificate is None:
                    raise QnetError(Code.NOT_FOUND, "there is no checkpoint yet")
                return CheckpointAnswer(self.ledger.certificate)
            case AccountProofQuery(address=address, height_min=height_min):
                account = self.ledger.proved_accounts.get(address)
                if account is None or account.certificate.checkpoint.height < height_min:
                    raise QnetError(Code.NOT_FOUND)
                return AccountProofAnswer(account)
            case TransactionProofQuery(id=id_):
                transaction = self.ledger.proved_transactions.get(id_)
                if transaction is None:
                    raise QnetError(Code.NOT_FOUND)
                return TransactionProofAnswer(transaction)
            case ActivityQuery():
                return self._activity(request)
            case EventsQuery():
                raise QnetError(Code.NOT_FOUND, "no history")
            case GenesisQuery():
                if self.ledger.genesis is None:
                    raise QnetError(Code.TOO_LARGE)
                return GenesisAnswer(encode(self.ledger.genesis))
            case HandOffQuery(epoch=epoch):
                if epoch not in self.ledger.hand_offs:
                    raise QnetError(Code.NOT_FOUND)
                return HandOffAnswer(self.ledger.hand_offs[epoch])
            case EvidenceQuery():
                return EvidenceAnswer(self.evidence)
            case VerifierQuery():
                return self.verifier

    def _status(self) -> StatusAnswer:
        record, hash_ = self.ledger.records[-1] if self.ledger.records else (None, CHAIN_ID)
        return StatusAnswer(
            chain_id=self.ledger.genesis.chain_id() if self.ledger.genesis else CHAIN_ID,
            name="test",
            development=self.ledger.development,
            index=self.index,
            version="0",
            ready=self.ready,
            epoch=0,
            round=9,
            commit_index=8,
            height=self.ledger.height,
            block_hash=hash_,
            timestamp_ms=record.header.timestamp_ms if record else 0,
            final_height=self.ledger.final_height,
            pool_transactions=len(self.pool),
            gas_price_min=1,
            disk_low=self.disk_low,
        )

    def _account(self, address: bytes) -> AccountAnswer:
        account = self.ledger.account(address)
        pooled = [body.nonce + 1 for body in self.pool.values() if body.sender == address]
        next_nonce = max([account.nonce, *pooled])
        return AccountAnswer(
            self.ledger.height, account.balance, account.nonce, next_nonce, account.key_id
        )

    def _activity(self, request: ActivityQuery) -> ActivityAnswer:
        items = [
            ActivityItem(height, index, id_, True, 1, 0, "transfer")
            for id_, (height, index) in self.ledger.places.items()
            if BODY_CODEC.decode(self.ledger.records[height - 1][0].bodies[index]).sender
            == request.address
            and (request.before is None or (height, index) < request.before)
        ]
        items.sort(key=lambda item: (-item.height, -item.index))
        page = tuple(items[: request.count_max])
        before = (page[-1].height, page[-1].index) if len(items) > len(page) else None
        return ActivityAnswer(page, before, self.ledger.height)

    def _transaction(self, id_: bytes) -> TransactionAnswer:
        if id_ in self.ledger.places:
            height, index = self.ledger.places[id_]
            record, hash_ = self.ledger.records[height - 1]
            status = "final" if height <= self.ledger.final_height else "executed"
            return TransactionAnswer(
                status, height, index, hash_, record.bodies[index], record.receipts[index]
            )
        tracked = self.tracker.status(id_)
        if tracked is None:
            raise QnetError(Code.NOT_FOUND)
        return TransactionAnswer(tracked.status, 0, 0, b"", b"", b"")

    def _block(self, request: BlockQuery) -> BlockAnswer:
        for record, hash_ in reversed(self.ledger.records):
            if request.selector in (None, record.header.height, hash_):
                end = request.first + request.count_max
                return BlockAnswer(
                    record.header,
                    hash_,
                    record.header.height <= self.ledger.final_height,
                    record.bodies[request.first : end],
                    record.receipts[request.first : end],
                )
        raise QnetError(Code.NOT_FOUND, "no such block")


class World:
    """A ledger, its validators, a gateway before them, and an HTTP client to it."""

    def __init__(self, backends: list[FakeBackend], app: FastAPI, http: httpx.AsyncClient) -> None:
        self.backends = backends
        self.ledger = backends[0].ledger
        self.app = app
        self.http = http
        self.gateway: Gateway = app.state.gateway

    @property
    def backend(self) -> FakeBackend:
        return self.backends[0]

    def home_of(self, wallet: Wallet) -> FakeBackend:
        """The validator that a sender's transactions go to, by the published rule."""
        digest = hash32(HOME, wallet.address)
        return self.backends[int.from_bytes(digest[:8], "big") % len(self.backends)]

    async def settle(self) -> None:
        """Lets the gateway take in every event that there is."""
        for _ in range(30):
            await asyncio.sleep(0)

    async def submit(self, data: bytes, **params: Any) -> httpx.Response:
        return await self.http.post(
            "/api/v1/tx/submit",
            content=data,
            headers={"content-type": "application/msgpack"},
            params=params,
        )


def make_backends(count: int = 1, *, auto: bool = False, funded: int = 12) -> list[FakeBackend]:
    """Validators over one ledger in which the first wallets have money."""
    ledger = Ledger()
    for seed in range(funded):
        ledger.account(Wallet(seed).address).balance = BALANCE
    backends = [FakeBackend(index, ledger, auto) for index in range(count)]
    for backend in backends:
        backend.peers = backends
    return backends


@asynccontextmanager
async def world(
    count: int = 1,
    *,
    auto: bool = False,
    settings: Settings | None = None,
    client: tuple[str, int] = ("127.0.0.1", 1),
) -> AsyncIterator[World]:
    """A running gateway, reached without a socket; `client` is whom it believes to talk to."""
    backends = make_backends(count, auto=auto)
    app = create_app(backends, settings)
    transport = httpx.ASGITransport(app=app, client=client)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://gateway") as http,
    ):
        made = World(backends, app, http)
        await made.settle()
        yield made


def check_problem(response: httpx.Response, code: Code) -> dict[str, Any]:
    """The document of a refusal, which is to be as RFC 9457 and the table of codes say."""
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["code"] == code.label
    assert document["status"] == response.status_code == code.http_status
    assert document["type"] == f"urn:qnet:problem:{code.label}"
    assert document["title"] == code.description
    assert document["detail"]
    if response.status_code in (429, 503):
        assert int(response.headers["retry-after"]) >= 1
    return document
