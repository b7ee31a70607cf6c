"""What a client does, step by step and without I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypedDict, TypeVar

import msgspec

from qnet_actors.client import models
from qnet_actors.client.building import Signed, TransactionSigner, build, sign, signer_key_id
from qnet_actors.client.calls import API, Call, Flow, decoder, exchange
from qnet_actors.client.nonces import Nonces
from qnet_actors.light import (
    HAND_OFF_CODEC,
    PROVED_ACCOUNT_CODEC,
    PROVED_TRANSACTION_CODEC,
    FinalTransaction,
    LightClient,
)
from qnet_actors.wire.address import decode_address, encode_address
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.genesis import GENESIS_CODEC
from qnet_actors.wire.hashing import ZERO_DIGEST
from qnet_actors.wire.transactions import (
    TRANSACTION_CODEC,
    Action,
    MultiTransfer,
    Payment,
    RotateKey,
    Transfer,
    transaction_id,
)

T = TypeVar("T")
Target = Literal["batched", "executed", "final"]
AddressLike = bytes | str
WAIT_TIMEOUT_MS: Final = 10_000
# The nonce is not what the client believed: another client of the same account was faster.
_STALE_NONCE: Final = frozenset(
    {Code.NONCE_TOO_LOW, Code.NONCE_TOO_FAR, Code.REPLACEMENT_UNDERPRICED, Code.DUPLICATE}
)
_ATTEMPTS: Final = 3

_status = decoder(models.Status)
_validators = decoder(models.Validators)
_account = decoder(models.Account)
_activity = decoder(models.AccountTransactions)
_events = decoder(models.Events)
_proof = decoder(models.Proof)
_next_nonce = decoder(models.NextNonce)
_transaction = decoder(models.Transaction)
_submission = decoder(models.Submission)
_block = decoder(models.Block)
_blocks = decoder(models.Blocks)
_checkpoint = decoder(models.Checkpoint)
_evidence = decoder(models.Evidence)
_fees = decoder(models.Fees)


class SendKeywords(TypedDict, total=False):
    """The keywords of whatever signs and submits: see `SendOptions`."""

    sender: AddressLike | None
    nonce: int | None
    valid_until: int
    gas_price: int
    gas_limit: int | None
    wait: Target | None
    timeout_ms: int


@dataclass(frozen=True, slots=True)
class SendOptions:
    """How a transaction is made and sent."""

    sender: AddressLike | None = None
    """None: the account whose first key the signer is; else the address of a rotated one."""
    nonce: int | None = None
    """None: the next one."""
    valid_until: int = 0
    """The last height at which it may be included; 0: for ever."""
    gas_price: int = 1
    gas_limit: int | None = None
    """None: just what the action costs."""
    wait: Target | None = None
    """None: the answer comes once a pool has taken it."""
    timeout_ms: int = WAIT_TIMEOUT_MS


class Flows:
    """The state of a client, and its operations as flows."""

    def __init__(
        self, retries: int, chain_id: bytes | None, light: LightClient | None = None
    ) -> None:
        """Raises `QnetError(WRONG_CHAIN)` where `light` is of another network than `chain_id`."""
        if light is not None and chain_id not in (None, light.chain_id):
            raise QnetError(Code.WRONG_CHAIN, "the light client is of another network")
        self._retries = retries
        self._chain_id = chain_id if light is None else light.chain_id
        self._light = light
        self._pinned = self._chain_id is not None
        self._development: bool | None = None
        self._nonces = Nonces()
        self._known_keys: set[bytes] = set()

    # Asking

    def status(self) -> Flow[models.Status]:
        answer = yield from self._get("/status", _status)
        chain_id = bytes.fromhex(answer.chain_id)
        if self._chain_id is not None and chain_id != self._chain_id:
            raise QnetError(
                Code.WRONG_CHAIN, f"the gateway's network is {answer.name}, {answer.chain_id}"
            )
        self._chain_id = chain_id
        self._development = answer.development
        return answer

    def network(self) -> Flow[tuple[bytes, bool]]:
        """(chain id, whether it is a development network)."""
        if self._chain_id is None or self._development is None:
            yield from self.status()
        assert self._chain_id is not None
        assert self._development is not None
        return self._chain_id, self._development

    def validators(self) -> Flow[models.Validators]:
        return self._get("/validators", _validators)

    def fees(self) -> Flow[models.Fees]:
        return self._get("/fees", _fees)

    def checkpoint(self) -> Flow[models.Checkpoint]:
        return self._get("/checkpoints/latest", _checkpoint)

    def evidence(self) -> Flow[models.Evidence]:
        return self._get("/evidence", _evidence)

    def account(
        self, address: AddressLike, prove: bool = False, height: int | None = None
    ) -> Flow[models.Account]:
        text = yield from self._text(address)
        if not prove:
            at = {} if height is None else {"height": str(height)}
            return (yield from self._get(f"/accounts/{text}", _account, at))
        if height is not None:
            raise QnetError(
                Code.INVALID_PARAMETER, "only the newest certified checkpoint can be proved under"
            )
        raw = yield from self._raw(address)
        light = yield from self._trusted()
        # What is certified is never older than what was shown before.
        params = {"min_height": str(light.height)}
        answer = yield from self._get(f"/accounts/{text}/proof", _proof, params)
        proved = PROVED_ACCOUNT_CODEC.decode(answer.proof)
        yield from self._follow(light, proved.certificate.checkpoint.epoch)
        checkpoint, held = light.account(raw, proved)
        if held is None:
            return models.Account(text, checkpoint.height, 0, 0, proved=True)
        key_id = None if held.key_id == ZERO_DIGEST else held.key_id.hex()
        return models.Account(text, checkpoint.height, held.balance, held.nonce, key_id, True)

    def account_transactions(
        self, address: AddressLike, cursor: str | None, limit: int
    ) -> Flow[models.AccountTransactions]:
        text = yield from self._text(address)
        params = _page(cursor, limit)
        return (yield from self._get(f"/accounts/{text}/transactions", _activity, params))

    def events(
        self, topic: bytes, source: AddressLike | None, cursor: str | None, limit: int
    ) -> Flow[models.Events]:
        params = {"topic": topic.hex(), **_page(cursor, limit)}
        if source is not None:
            params["source"] = yield from self._text(source)
        return (yield from self._get("/events", _events, params))

    def final_transaction(self, id_: bytes | str) -> Flow[FinalTransaction]:
        text = _hex(id_)
        light = yield from self._trusted()
        answer = yield from self._get(f"/tx/{text}/proof", _proof)
        proved = PROVED_TRANSACTION_CODEC.decode(answer.proof)
        yield from self._follow(light, proved.certificate.checkpoint.epoch)
        return light.transaction(bytes.fromhex(text), proved)

    def _follow(self, light: LightClient, epoch: int) -> Flow[None]:
        """To an epoch that a gateway speaks of; each step is proved, so it cannot lead for ever."""
        while light.epoch < epoch:
            ending = light.epoch
            hand_off = yield from self._get(f"/epochs/{ending}/hand-off", HAND_OFF_CODEC.decode)
            if hand_off.certificate.checkpoint.epoch != ending:
                raise QnetError(Code.BAD_PROOF, f"that is not how epoch {ending} ended")
            light.follow(hand_off)

    def _trusted(self) -> Flow[LightClient]:
        """The light client, over the genesis that the caller's chain id names.

        Raises `QnetError`: CONFIGURATION_INVALID where the caller named none, for a gateway cannot
        vouch for itself; WRONG_CHAIN for another genesis.
        """
        if self._light is None:
            if not self._pinned:
                raise QnetError(
                    Code.CONFIGURATION_INVALID,
                    "proofs are checked against a network that you name; give a chain_id",
                )
            genesis = yield from self._get("/genesis", GENESIS_CODEC.decode)
            if genesis.chain_id() != self._chain_id:
                raise QnetError(Code.WRONG_CHAIN, "the gateway's genesis is another network's")
            from qnet_actors.crypto import select_provider

            self._light = LightClient(genesis, select_provider().provider)
        return self._light

    def balance(self, address: AddressLike) -> Flow[int]:
        return (yield from self.account(address)).balance

    def next_nonce(self, address: AddressLike) -> Flow[int]:
        text = yield from self._text(address)
        return (yield from self._get(f"/accounts/{text}/next-nonce", _next_nonce)).next_nonce

    def transaction(self, id_: bytes | str) -> Flow[models.Transaction]:
        return self._get(f"/tx/{_hex(id_)}", _transaction)

    def wait(self, id_: bytes | str, target: Target, timeout_ms: int) -> Flow[models.Transaction]:
        return self._get(
            f"/tx/{_hex(id_)}", _transaction, _waiting(target, timeout_ms), timeout_ms / 1_000
        )

    def block(
        self, selector: int | str | bytes, transactions: bool, offset: int, limit: int
    ) -> Flow[models.Block]:
        name = selector.hex() if isinstance(selector, bytes) else str(selector)
        if not (name.isascii() and name.isalnum()):
            raise QnetError(Code.INVALID_PARAMETER, "a block is named by height, hash or latest")
        params: dict[str, str] = {}
        if transactions:
            params = {"transactions": "true", "offset": str(offset), "limit": str(limit)}
        return self._get(f"/blocks/{name}", _block, params)

    def blocks(self, cursor: str | None, limit: int) -> Flow[models.Blocks]:
        return self._get("/blocks", _blocks, _page(cursor, limit))

    # Submitting

    def submit(self, data: bytes, wait: Target | None, timeout_ms: int) -> Flow[models.Transaction]:
        call = Call(
            "POST",
            f"{API}/tx/submit",
            params=_waiting(wait, timeout_ms),
            content=data,
            wait_s=timeout_ms / 1_000 if wait else 0.0,
        )

        def taken() -> Flow[models.Transaction]:
            id_ = transaction_id(encode(TRANSACTION_CODEC.decode(data).body))
            return self.transaction(id_) if wait is None else self.wait(id_, wait, timeout_ms)

        return exchange(call, _transaction, self._retries, taken)

    def submit_many(
        self, data: Sequence[bytes], wait: Target | None, timeout_ms: int
    ) -> Flow[list[models.Submitted]]:
        call = Call(
            "POST",
            f"{API}/tx/submit",
            params=_waiting(wait, timeout_ms),
            content=msgspec.msgpack.encode(list(data)),
            wait_s=timeout_ms / 1_000 if wait else 0.0,
        )
        return (yield from exchange(call, _submission, self._retries)).results

    def transfer(
        self, signer: TransactionSigner, to: AddressLike, amount: int, options: SendOptions
    ) -> Flow[models.Transaction]:
        payee = yield from self._raw(to)
        return (yield from self.send(signer, Transfer(payee, amount), options))

    def multi_transfer(
        self,
        signer: TransactionSigner,
        payments: Iterable[tuple[AddressLike, int]],
        options: SendOptions,
    ) -> Flow[models.Transaction]:
        lines = []
        for to, amount in payments:
            payee = yield from self._raw(to)
            lines.append(Payment(payee, amount))
        return (yield from self.send(signer, MultiTransfer(tuple(lines)), options))

    def rotate_key(
        self, signer: TransactionSigner, new_key_id: bytes, options: SendOptions
    ) -> Flow[models.Transaction]:
        return self.send(signer, RotateKey(new_key_id), options)

    def sign(self, signer: TransactionSigner, action: Action, options: SendOptions) -> Flow[Signed]:
        """A signed transaction, not sent; its nonce counts as used."""
        chain_id, _ = yield from self.network()
        sender = yield from self._sender(signer, options)
        nonce = yield from self._nonce(sender, options)
        return self._sign(chain_id, sender, signer, action, nonce, options, with_key=True)

    def send(
        self, signer: TransactionSigner, action: Action, options: SendOptions
    ) -> Flow[models.Transaction]:
        """Signs with the next nonce and submits; again where another client took the nonce."""
        chain_id, _ = yield from self.network()
        sender = yield from self._sender(signer, options)
        key = signer_key_id(signer)
        for attempt in range(_ATTEMPTS):
            nonce = yield from self._nonce(sender, options)
            with_key = key not in self._known_keys
            signed = self._sign(chain_id, sender, signer, action, nonce, options, with_key)
            try:
                answer = yield from self.submit(signed.data, options.wait, options.timeout_ms)
            except QnetError as error:
                fixed_nonce = options.nonce is not None
                again = self._repair(error, sender, key, with_key, fixed_nonce)
                if not again or attempt == _ATTEMPTS - 1:
                    raise
                continue
            self._known_keys.add(key)
            return answer
        raise AssertionError("the last attempt returns or raises")

    def _repair(
        self, error: QnetError, sender: bytes, key: bytes, with_key: bool, fixed_nonce: bool
    ) -> bool:
        """Puts right what the client believed; whether another attempt may succeed."""
        if error.code == Code.WAIT_TIMEOUT:
            # It was taken, and may come through yet.
            self._known_keys.add(key)
            return False
        self._nonces.forget(sender)
        if error.code == Code.UNKNOWN_KEY and not with_key:
            self._known_keys.discard(key)
            return True
        return error.code in _STALE_NONCE and not fixed_nonce

    def _sign(
        self,
        chain_id: bytes,
        sender: bytes,
        signer: TransactionSigner,
        action: Action,
        nonce: int,
        options: SendOptions,
        with_key: bool,
    ) -> Signed:
        body = build(
            chain_id=chain_id,
            sender=sender,
            signer=signer,
            nonce=nonce,
            action=action,
            valid_until=options.valid_until,
            gas_price=options.gas_price,
            gas_limit=options.gas_limit,
        )
        return sign(body, signer, with_key=with_key)

    def _nonce(self, sender: bytes, options: SendOptions) -> Flow[int]:
        if options.nonce is not None:
            return options.nonce
        nonce = self._nonces.take(sender)
        if nonce is not None:
            return nonce
        return self._nonces.learn(sender, (yield from self.next_nonce(sender)))

    def _sender(self, signer: TransactionSigner, options: SendOptions) -> Flow[bytes]:
        if options.sender is None:
            return signer_key_id(signer)
        return (yield from self._raw(options.sender))

    def _raw(self, address: AddressLike) -> Flow[bytes]:
        if isinstance(address, bytes):
            return address
        _, development = yield from self.network()
        return decode_address(address, development=development)

    def _text(self, address: AddressLike) -> Flow[str]:
        _, development = yield from self.network()
        if isinstance(address, bytes):
            return encode_address(address, development=development)
        decode_address(address, development=development)
        return address

    def _get(
        self,
        path: str,
        decode: Callable[[bytes], T],
        params: dict[str, str] | None = None,
        wait_s: float = 0,
    ) -> Flow[T]:
        call = Call("GET", API + path, params=params or {}, wait_s=wait_s)
        return exchange(call, decode, self._retries)


def subscription(*, blocks: bool, transactions: bool, ids: Iterable[bytes | str]) -> list[str]:
    """The messages that ask a gateway's WebSocket for blocks and for single transactions."""
    requests: list[dict[str, object]] = []
    if blocks:
        requests.append({"type": "subscribe", "to": "blocks", "transactions": transactions})
    requests += [{"type": "subscribe", "to": "transaction", "id": _hex(id_)} for id_ in ids]
    if not requests:
        raise QnetError(Code.INVALID_PARAMETER, "subscribe to blocks or to a transaction")
    return [msgspec.json.encode(request).decode() for request in requests]


def _page(cursor: str | None, limit: int) -> dict[str, str]:
    return {"limit": str(limit)} | ({} if cursor is None else {"cursor": cursor})


def _hex(id_: bytes | str) -> str:
    text = id_.hex() if isinstance(id_, bytes) else id_.lower()
    if len(text) != 64 or any(digit not in "0123456789abcdef" for digit in text):
        raise QnetError(Code.INVALID_PARAMETER, "a transaction id is 64 hex digits")
    return text


def _waiting(wait: Target | None, timeout_ms: int) -> dict[str, str]:
    return {} if wait is None else {"wait": wait, "timeout_ms": str(timeout_ms)}
