"""Has equivocators punished: a validator that holds a proof reports it by an own transaction.

All honest validators hold the same proofs, so they take turns by the clock: one of them reports,
and who comes next sees in the state that it was done.  The transaction is like anybody's: it goes
through the own mempool, its fee is paid by the validator's reward account, and the reporter's
share goes there.  A validator whose reward account has another key than its own, or cannot pay,
lets its turns pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import numpy as np

from qnet_actors.ledger import offence_account
from qnet_actors.mempool import shard_of
from qnet_actors.rooms import AccountReader, Effect, Room, Run, Submit, ToRoom
from qnet_actors.wire.codec import encode
from qnet_actors.wire.committee import Committee
from qnet_actors.wire.evidence import Equivocation
from qnet_actors.wire.hashing import ZERO_DIGEST
from qnet_actors.wire.schemes import CONTEXT_TRANSACTION, Signer, key_id
from qnet_actors.wire.transactions import (
    GAS_REPORT,
    TRANSACTION_VERSION,
    Body,
    ReportEquivocation,
    Transaction,
    Witness,
    transaction_id,
)

LOOK_MS: Final = 500
TURN_MS: Final = 4_000
"""Long enough for a report to be executed before it is the next validator's turn."""
GAS_PRICE: Final = 16
GAS_PRICE_MAX: Final = 4_096
"""A shard that is crowded takes only what pays more than something it has: each report offers four
times as much as the last one, up to this."""
REQUEST: Final = -1
"""Of the submissions; gateways count theirs up from 1, so nobody takes the answer for its own."""


class Reporter:
    """A room without storage, which looks at the proofs of the consensus room twice a second."""

    def __init__(
        self,
        *,
        chain_id: bytes,
        committee: Committee,
        own: int,
        signer: Signer,
        reader: AccountReader,
        evidence: Callable[[], tuple[Equivocation, ...]],
        shard_count: int,
    ) -> None:
        self._chain_id: Final = chain_id
        self._committee: Final = committee
        self._own: Final = own
        self._signer: Final = signer
        self._reader: Final = reader
        self._evidence: Final = evidence
        self._shard_count: Final = shard_count
        self._due_ms = 0
        self._tried: dict[int, tuple[int, int]] = {}
        """Author -> the turn in which it was reported last, and the gas price to offer next; no
        more than the committee has."""

    def handle(self, event: Any, now_ms: int) -> Sequence[Effect]:
        """Nothing that happens concerns it: what it goes by stands in the state."""
        return []

    def tick(self, now_ms: int) -> Sequence[Effect]:
        if now_ms < self._due_ms:
            return []
        self._due_ms = now_ms + LOOK_MS
        first = {proof.author: proof for proof in reversed(self._evidence())}
        for author, proof in sorted(first.items()):
            turn = now_ms // TURN_MS
            last, gas_price = self._tried.get(author, (-1, GAS_PRICE))
            if self._is_own_turn(author, turn) and last != turn:
                self._tried[author] = turn, min(4 * gas_price, GAS_PRICE_MAX)
                return self._report(proof, gas_price)
        return []

    def wake_ms(self) -> int:
        return self._due_ms

    def _is_own_turn(self, author: int, turn: int) -> bool:
        others = [index for index in range(len(self._committee)) if index != author]
        return bool(others) and others[turn % len(others)] == self._own

    def _report(self, proof: Equivocation, gas_price: int) -> list[Effect]:
        """One report at a time: two would have the same nonce.  It offers what it can pay."""
        offender = self._committee.members[proof.author]
        own = self._committee.members[self._own]
        own_id = key_id(own.scheme, own.public_key)
        name = key_id(offender.scheme, offender.public_key)
        wanted = offence_account(name, proof.epoch) + own.reward
        accounts = self._reader.read(np.frombuffer(wanted, dtype=np.uint8).reshape(2, 32))
        offence, current = (accounts.key_ids[row].tobytes() for row in range(2))
        is_own = own_id == (own.reward if current == ZERO_DIGEST else current)
        gas_price = min(gas_price, int(accounts.balances[1]) // GAS_REPORT)
        if offence != ZERO_DIGEST or not is_own or not gas_price:
            return []
        body = Body(
            version=TRANSACTION_VERSION,
            chain_id=self._chain_id,
            sender=own.reward,
            key_id=own_id,
            nonce=int(accounts.nonces[1]),
            valid_until=0,
            gas_limit=GAS_REPORT,
            gas_price=gas_price,
            access=(),
            action=ReportEquivocation(offender.scheme, offender.public_key, proof),
        )
        sign = partial(self._signer.sign, transaction_id(encode(body)), CONTEXT_TRANSACTION)
        return [Run(sign, partial(self._signed, body))]

    def _signed(self, body: Body, signature: bytes, now_ms: int) -> list[Effect]:
        own = self._committee.members[self._own]
        data = encode(Transaction(body, Witness(own.scheme, signature, own.public_key)))
        shard = shard_of(body.sender, self._shard_count)
        return [ToRoom(Room.MEMPOOL, Submit(REQUEST, (data,)), shard)]
