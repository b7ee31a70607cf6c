"""The asynchronous client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self, TypeVar, Unpack

import httpx

from qnet_actors.client import models
from qnet_actors.client.building import Signed, TransactionSigner
from qnet_actors.client.calls import (
    ANSWER_SIZE_BYTES_MAX,
    Call,
    Flow,
    Pause,
    Reply,
    check_url,
    is_loopback,
    read_message,
    socket_url,
    unreachable,
)
from qnet_actors.client.environment import default_url
from qnet_actors.client.flows import (
    WAIT_TIMEOUT_MS,
    AddressLike,
    Flows,
    SendKeywords,
    SendOptions,
    Target,
    subscription,
)
from qnet_actors.light import FinalTransaction, LightClient
from qnet_actors.wire.transactions import Action

T = TypeVar("T")


class AsyncClient:
    """Talks to one gateway, on one event loop.

    Every method raises `QnetError`: with the gateway's code where it refuses, NODE_UNREACHABLE
    where nothing answers.  `chain_id` pins the network, so that no gateway can have the client
    sign for another one.  Addresses are bytes or text; ids bytes or hex.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        timeout_s: float = 10.0,
        retries: int = 2,
        chain_id: bytes | None = None,
        light: LightClient | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`url` None: QNET_URL.  `retries`: how often a busy gateway is asked again.  `light`
        checks proofs; None: one over the genesis that hashes to `chain_id`, once it is needed.
        """
        self.url = check_url(url or default_url())
        self._timeout_s = timeout_s
        self._flows = Flows(retries, chain_id, light)
        self._http = httpx.AsyncClient(
            base_url=self.url,
            timeout=timeout_s,
            transport=transport,
            trust_env=not is_loopback(self.url),
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def status(self) -> models.Status:
        """Where the network stands."""
        return await self._run(self._flows.status())

    async def network(self) -> tuple[bytes, bool]:
        """(chain id, whether it is a development network), asked for once."""
        return await self._run(self._flows.network())

    async def validators(self) -> models.Validators:
        """The committee."""
        return await self._run(self._flows.validators())

    async def fees(self) -> models.Fees:
        """What transactions cost, and the limits they are held to."""
        return await self._run(self._flows.fees())

    async def checkpoint(self) -> models.Checkpoint:
        """The latest certified checkpoint."""
        return await self._run(self._flows.checkpoint())

    async def evidence(self) -> models.Evidence:
        """Proofs that validators signed two blocks for one slot."""
        return await self._run(self._flows.evidence())

    async def account(
        self, address: AddressLike, *, prove: bool = False, height: int | None = None
    ) -> models.Account:
        """An account in the newest executed state, or as of a block where a history is kept.

        With `prove` it is that of the newest certified checkpoint, about a second old, and believed
        only with a proof.  That needs `chain_id` or `light`; raises BAD_PROOF, BAD_CERTIFICATE.
        """
        return await self._run(self._flows.account(address, prove, height))

    async def account_transactions(
        self, address: AddressLike, *, cursor: str | None = None, limit: int = 20
    ) -> models.AccountTransactions:
        """Transactions of an account, the newest first, where a history is kept."""
        return await self._run(self._flows.account_transactions(address, cursor, limit))

    async def events(
        self,
        topic: bytes,
        *,
        source: AddressLike | None = None,
        cursor: str | None = None,
        limit: int = 20,
    ) -> models.Events:
        """Events of a topic, the newest first, where a history is kept."""
        return await self._run(self._flows.events(topic, source, cursor, limit))

    async def balance(self, address: AddressLike) -> int:
        """The balance in the smallest unit."""
        return await self._run(self._flows.balance(address))

    async def next_nonce(self, address: AddressLike) -> int:
        """The nonce that the next transaction should carry; pooled ones count."""
        return await self._run(self._flows.next_nonce(address))

    async def transaction(self, id_: bytes | str) -> models.Transaction:
        """What is known of a transaction; raises `QnetError(NOT_FOUND)`."""
        return await self._run(self._flows.transaction(id_))

    async def final_transaction(self, id_: bytes | str) -> FinalTransaction:
        """A transaction that a quorum certified, with its block and receipt, checked by proof.

        Needs `chain_id` or `light`; raises NOT_FOUND until it is final, BAD_PROOF, BAD_CERTIFICATE.
        """
        return await self._run(self._flows.final_transaction(id_))

    async def wait(
        self, id_: bytes | str, target: Target = "final", timeout_ms: int = WAIT_TIMEOUT_MS
    ) -> models.Transaction:
        """The transaction once it is as far as `target`.

        Raises `QnetError`: WAIT_TIMEOUT, or why a pool gave it up (EVICTED, REPLACED, ...).
        """
        return await self._run(self._flows.wait(id_, target, timeout_ms))

    async def block(
        self,
        selector: int | str | bytes = "latest",
        *,
        transactions: bool = False,
        offset: int = 0,
        limit: int = 100,
    ) -> models.Block:
        """A block by height, by hash, or the latest; with `limit` transactions from `offset` on."""
        return await self._run(self._flows.block(selector, transactions, offset, limit))

    async def blocks(self, *, cursor: str | None = None, limit: int = 20) -> models.Blocks:
        """A page of blocks, the latest first."""
        return await self._run(self._flows.blocks(cursor, limit))

    async def submit(
        self, data: bytes, *, wait: Target | None = None, timeout_ms: int = WAIT_TIMEOUT_MS
    ) -> models.Transaction:
        """Submits the wire bytes of a signed transaction."""
        return await self._run(self._flows.submit(data, wait, timeout_ms))

    async def submit_many(
        self,
        data: Sequence[bytes],
        *,
        wait: Target | None = None,
        timeout_ms: int = WAIT_TIMEOUT_MS,
    ) -> list[models.Submitted]:
        """Submits up to 1,000 at once; a result for each, in order."""
        return await self._run(self._flows.submit_many(data, wait, timeout_ms))

    async def transfer(
        self,
        signer: TransactionSigner,
        to: AddressLike,
        amount: int,
        **options: Unpack[SendKeywords],
    ) -> models.Transaction:
        """Sends `amount` of the smallest unit from the signer's account; see `SendOptions`."""
        return await self._run(self._flows.transfer(signer, to, amount, SendOptions(**options)))

    async def multi_transfer(
        self,
        signer: TransactionSigner,
        payments: Iterable[tuple[AddressLike, int]],
        **options: Unpack[SendKeywords],
    ) -> models.Transaction:
        """Sends several amounts at once: all of them or none."""
        return await self._run(self._flows.multi_transfer(signer, payments, SendOptions(**options)))

    async def rotate_key(
        self, signer: TransactionSigner, new_key_id: bytes, **options: Unpack[SendKeywords]
    ) -> models.Transaction:
        """Makes `new_key_id` the account's only valid key; its address stays.

        From then on sign with the new key and name the account: `sender=<address>`.
        """
        return await self._run(self._flows.rotate_key(signer, new_key_id, SendOptions(**options)))

    async def sign(
        self, signer: TransactionSigner, action: Action, **options: Unpack[SendKeywords]
    ) -> Signed:
        """Signs without sending, for `submit` and `submit_many`."""
        return await self._run(self._flows.sign(signer, action, SendOptions(**options)))

    async def send(
        self, signer: TransactionSigner, action: Action, **options: Unpack[SendKeywords]
    ) -> models.Transaction:
        """Signs any action with the next nonce and submits it."""
        return await self._run(self._flows.send(signer, action, SendOptions(**options)))

    @asynccontextmanager
    async def subscribe(
        self,
        *,
        blocks: bool = False,
        transactions: bool = False,
        ids: Iterable[bytes | str] = (),
    ) -> AsyncIterator[AsyncIterator[models.Message]]:
        """Messages as they come, for blocks (with `transactions`, what became of them) and for
        single transactions; the iterator ends when the gateway closes.
        """
        from websockets.asyncio.client import connect
        from websockets.exceptions import ConnectionClosed, WebSocketException

        requests = subscription(blocks=blocks, transactions=transactions, ids=ids)
        try:
            connection = await connect(
                socket_url(self.url),
                open_timeout=self._timeout_s,
                max_size=ANSWER_SIZE_BYTES_MAX,
                proxy=None if is_loopback(self.url) else True,
            )
        except (OSError, WebSocketException) as error:
            raise unreachable(self.url, error) from None

        async def messages() -> AsyncIterator[models.Message]:
            try:
                for request in requests:
                    await connection.send(request)
                async for text in connection:
                    yield read_message(text)
            except ConnectionClosed:
                return

        async with connection:
            yield messages()

    async def _run(self, flow: Flow[T]) -> T:
        reply: Reply | None = None
        while True:
            try:
                step = flow.send(reply)
            except StopIteration as done:
                result: T = done.value
                return result
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
                reply = None
            else:
                reply = await self._call(step)

    async def _call(self, call: Call) -> Reply:
        try:
            response = await self._http.request(
                call.method,
                call.path,
                params=dict(call.params),
                content=call.content,
                headers=call.headers,
                timeout=self._timeout_s + call.wait_s,
            )
        except httpx.HTTPError as error:
            raise unreachable(self.url, error) from None
        return Reply(
            response.status_code,
            response.headers.get("content-type", ""),
            response.headers.get("retry-after"),
            response.content,
        )
