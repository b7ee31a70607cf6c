"""Has equivocators punished: a validator that holds a proof reports it by an own transaction.

All honest validators hold the same proofs, so they take turns by the clock: one of them reports,
and who comes next sees in the state that it was done.  The transaction is like anybody's: it goes
through the own mempool, its fee is paid by the validator's reward account, and the reporter's
share goes there.  A validator whose reward account has another key than its own, or cannot pay,
lets its turns pass.  What an epoch leaves unpunished is reported in the next ones; see `offences`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Literal

import numpy as np

from qnet_actors.ledger import offence_account
from qnet_actors.mempool import shard_of
from qnet_actors.network.offences import Name, Offences, name_of
from qnet_actors.rooms import AccountReader, Effect, Persist, Room, Run, Submit, ToRoom
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
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
    """A room that looks at the proofs of the consensus room twice a second.

    Accounts are read where CPU work is done, since they may be another process's.
    """

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
        past: Sequence[ReportEquivocation] = (),
        stored: Sequence[ReportEquivocation] = (),
    ) -> None:
        """`past`: what is to be reported of earlier epochs, checked; `stored`: what its storage
        holds.  `reader` raises `QnetError(NOT_READY)` where it cannot tell now."""
        self._chain_id: Final = chain_id
        self._committee: Final = committee
        self._own: Final = own
        self._signer: Final = signer
        self._reader: Final = reader
        self._evidence: Final = evidence
        self._shard_count: Final = shard_count
        self._past = tuple(past)
        self._stored = tuple(stored)
        self._due_ms = 0
        self._is_making = False
        self._punished: set[Name] = set()
        self._tried: dict[Name, tuple[int, int]] = {}
        """Offence -> the turn in which it was reported last, and the gas price to offer next; no
        more than are kept of earlier epochs, and the committee has."""

    def handle(self, event: Any, now_ms: int) -> Sequence[Effect]:
        """Nothing that happens concerns it: what it goes by stands in the state."""
        return []

    def tick(self, now_ms: int) -> Sequence[Effect]:
        if now_ms < self._due_ms:
            return []
        self._due_ms = now_ms + LOOK_MS
        out: list[Effect] = []
        if self._past != self._stored:
            self._stored = self._past
            out.append(Persist((Offences(self._past),)))
        # One report at a time: two would have the same nonce.
        if self._is_making:
            return out
        turn = now_ms // TURN_MS
        for report in (*self._past, *self._present()):
            name = name_of(report)
            last, gas_price = self._tried.get(name, (-1, GAS_PRICE))
            if name in self._punished or last == turn or not self._is_own_turn(name[0], turn):
                continue
            self._tried[name] = turn, min(4 * gas_price, GAS_PRICE_MAX)
            self._is_making = True
            return [*out, Run(partial(self._make, report, gas_price), partial(self._made, name))]
        return out

    def wake_ms(self) -> int:
        return self._due_ms

    def _present(self) -> list[ReportEquivocation]:
        """One report for each author that this epoch has proofs against."""
        first = {proof.author: proof for proof in reversed(self._evidence())}
        members = self._committee.members
        return [
            ReportEquivocation(members[author].scheme, members[author].public_key, proof)
            for author, proof in sorted(first.items())
        ]

    def _is_own_turn(self, offender: bytes, turn: int) -> bool:
        places = range(len(self._committee))
        others = [index for index in places if self._committee.key_id(index) != offender]
        return bool(others) and others[turn % len(others)] == self._own

    def _make(
        self, report: ReportEquivocation, gas_price: int
    ) -> tuple[bytes, bytes] | Literal["punished"] | None:
        """(sender, transaction) that offers what it can pay; None: it can send none now."""
        own = self._committee.members[self._own]
        own_id = key_id(own.scheme, own.public_key)
        wanted = offence_account(*name_of(report)) + own.reward
        try:
            accounts = self._reader.read(np.frombuffer(wanted, dtype=np.uint8).reshape(2, 32))
        except QnetError as error:
            if error.code != Code.NOT_READY:
                raise
            return None
        offence, current = (accounts.key_ids[row].tobytes() for row in range(2))
        if offence != ZERO_DIGEST:
            return "punished"
        is_own = own_id == (own.reward if current == ZERO_DIGEST else current)
        gas_price = min(gas_price, int(accounts.balances[1]) // GAS_REPORT)
        if not is_own or not gas_price:
            return None
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
            action=report,
        )
        signature = self._signer.sign(transaction_id(encode(body)), CONTEXT_TRANSACTION)
        witness = Witness(own.scheme, signature, own.public_key)
        return own.reward, encode(Transaction(body, witness))

    def _made(
        self, name: Name, made: tuple[bytes, bytes] | Literal["punished"] | None, now_ms: int
    ) -> list[Effect]:
        self._is_making = False
        if made == "punished":
            self._punished.add(name)
            self._past = tuple(report for report in self._past if name_of(report) != name)
        if made is None or isinstance(made, str):
            return []
        sender, data = made
        shard = shard_of(sender, self._shard_count)
        return [ToRoom(Room.MEMPOOL, Submit(REQUEST, (data,)), shard)]
