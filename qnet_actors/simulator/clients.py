"""Clients: transfers, multi-transfers, rotations, and all the ways in which nonces conflict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from qnet_actors.mempool import shard_of
from qnet_actors.rooms import Room, Submit
from qnet_actors.simulator.accounts import Accounts
from qnet_actors.simulator.host import Host
from qnet_actors.simulator.scheduler import Scheduler
from qnet_actors.simulator.signing import Signing, SimSigner
from qnet_actors.wire.codec import encode
from qnet_actors.wire.schemes import CONTEXT_TRANSACTION
from qnet_actors.wire.transactions import (
    TRANSACTION_VERSION,
    Action,
    Body,
    MultiTransfer,
    Payment,
    RotateKey,
    Transaction,
    Transfer,
    Witness,
    intrinsic_gas,
    transaction_id,
)

PATIENCE_MS: Final = 1_500
"""After so long without an execution a client looks up its nonce and begins there again."""


@dataclass(slots=True)
class Client:
    """One account: what its owner believes."""

    address: bytes
    signer: SimSigner
    home: int
    nonce: int = 0
    executed: int = 0
    moved_ms: int = 0


class Workload:
    """Submits through random validators until it is told to stop."""

    def __init__(
        self,
        scheduler: Scheduler,
        rng: Random,
        hosts: Sequence[Host],
        accounts: Accounts,
        signing: Signing,
        signers: Sequence[SimSigner],
        chain_id: bytes,
        shards: int,
        interval_ms: tuple[int, int],
        height: Callable[[], int],
        submitted_max: int | None = None,
    ) -> None:
        self.submitted = 0
        self.bodies: dict[bytes, Body] = {}
        """What was submitted, by id."""
        self._scheduler = scheduler
        self._rng = rng
        self._hosts = hosts
        self._accounts = accounts
        self._signing = signing
        self._chain_id = chain_id
        self._shards = shards
        self._interval_ms = interval_ms
        self._height = height
        self._submitted_max = submitted_max
        self._running = False
        self._requests = 0
        self._rotations = 0
        self._signers = {signer.key_id: signer for signer in signers}
        self._clients = [
            Client(signer.key_id, signer, row % len(hosts)) for row, signer in enumerate(signers)
        ]

    def start(self) -> None:
        self._running = True
        self._scheduler.after(self._rng.randrange(*self._interval_ms), self._step)

    def stop(self) -> None:
        self._running = False

    def fill_gaps(self, promised: Mapping[bytes, Iterable[int]]) -> None:
        """Sends the nonce that an account is at, where something promised waits behind it.

        It goes through the validators that made the promise: each must still hold what waits.
        """
        waiting: dict[bytes, dict[int, None]] = {}
        for id_, tellers in promised.items():
            body = self.bodies.get(id_)
            if body is not None and body.nonce > self._accounts.get(body.sender).nonce:
                waiting.setdefault(body.sender, {}).update(dict.fromkeys(tellers))
        for client in self._clients:
            account = self._accounts.get(client.address)
            for index in waiting.get(client.address, ()):
                client.signer = self._signer_of(client)
                self._submit(
                    client, index, [self._sign(client, account.nonce, self._transfer(client))]
                )

    def _signer_of(self, client: Client) -> SimSigner:
        """That of the key which the chain holds to be the account's."""
        key_id = self._accounts.get(client.address).key_id
        return self._signers[key_id if any(key_id) else client.address]

    def _step(self) -> None:
        if not self._running:
            return
        if self._submitted_max is not None and self.submitted >= self._submitted_max:
            return
        rng = self._rng
        self._scheduler.after(rng.randrange(*self._interval_ms), self._step)
        client = rng.choice(self._clients)
        self._look_up(client)
        kind = rng.random()
        if kind < 0.75:
            self._submit(
                client, client.home, [self._next(client) for _ in range(rng.randrange(1, 9))]
            )
        elif kind < 0.87:
            # Two transactions with one nonce, through two validators.
            nonce = client.nonce
            first, second = self._next(client), self._sign(client, nonce, self._transfer(client))
            self._submit(client, client.home, [first])
            self._submit(client, rng.randrange(len(self._hosts)), [second])
        elif kind < 0.92:
            # The later nonce arrives first.
            first, second = self._next(client), self._next(client)
            self._submit(client, client.home, [second])
            self._submit(client, client.home, [first])
        elif kind < 0.95:
            # The same transaction through two validators.
            sent = self._next(client)
            self._submit(client, client.home, [sent])
            self._submit(client, rng.randrange(len(self._hosts)), [sent])
        elif kind < 0.98:
            self._rotate(client)
        else:
            self._submit(client, client.home, [rng.randbytes(rng.randrange(1, 300)), b""])

    def _look_up(self, client: Client) -> None:
        """Believes the chain where it moves, and begins again where nothing has moved for long."""
        account = self._accounts.get(client.address)
        now_ms = self._scheduler.now_ms
        if account.nonce != client.executed or client.nonce == client.executed:
            client.executed, client.moved_ms = account.nonce, now_ms
            client.nonce = max(client.nonce, account.nonce)
        elif now_ms - client.moved_ms > PATIENCE_MS:
            client.nonce, client.moved_ms = account.nonce, now_ms
            client.home = self._rng.randrange(len(self._hosts))
            client.signer = self._signer_of(client)

    def _next(self, client: Client) -> bytes:
        rng = self._rng
        nonce, client.nonce = client.nonce, client.nonce + 1
        if rng.random() < 0.8:
            return self._sign(client, nonce, self._transfer(client))
        payments = tuple(
            Payment(rng.choice(self._clients).address, rng.randrange(1_000))
            for _ in range(rng.randrange(1, 6))
        )
        return self._sign(client, nonce, MultiTransfer(payments))

    def _transfer(self, client: Client) -> Action:
        rng = self._rng
        amount = rng.randrange(1, 10_000)
        if rng.random() < 0.03:
            # More than there may be by the time it is executed.
            amount = self._accounts.get(client.address).balance
        payee = rng.choice(self._clients).address if rng.random() < 0.9 else rng.randbytes(32)
        return Transfer(payee, amount)

    def _rotate(self, client: Client) -> None:
        self._rotations += 1
        signer = self._signing.signer("rotated", self._rotations)
        self._signers[signer.key_id] = signer
        nonce, client.nonce = client.nonce, client.nonce + 1
        rotation = self._sign(client, nonce, RotateKey(signer.key_id))
        client.signer = signer
        if self._rng.random() < 0.5:
            self._submit(client, client.home, [rotation, self._next(client)])
        else:
            self._submit(client, client.home, [rotation])

    def _sign(self, client: Client, nonce: int, action: Action) -> bytes:
        rng = self._rng
        gas = intrinsic_gas(0, action)
        body = Body(
            version=TRANSACTION_VERSION,
            chain_id=self._chain_id,
            sender=client.address,
            key_id=client.signer.key_id,
            nonce=nonce,
            valid_until=self._height() + rng.randrange(1, 40) if rng.random() < 0.05 else 0,
            gas_limit=gas + rng.randrange(500),
            gas_price=rng.randrange(1, 5),
            access=(),
            action=action,
        )
        id_ = transaction_id(encode(body))
        self.bodies[id_] = body
        signature = client.signer.sign(id_, CONTEXT_TRANSACTION)
        known = self._accounts.get(client.address).key_id == client.signer.key_id
        public_key = b"" if known and rng.random() < 0.5 else client.signer.public_key
        return encode(Transaction(body, Witness(client.signer.scheme, signature, public_key)))

    def _submit(self, client: Client, index: int, transactions: list[bytes]) -> None:
        """Through a validator that lives, the given one if it does, to the sender's shard."""
        alive = [host.index for host in self._hosts if host.takes_part]
        if not alive:
            return
        chosen = index if self._hosts[index].takes_part else self._rng.choice(alive)
        self._requests += 1
        self.submitted += len(transactions)
        self._hosts[chosen].handle(
            Room.MEMPOOL,
            Submit(self._requests, tuple(transactions)),
            shard_of(client.address, self._shards),
        )
