"""Who reports an equivocator, when, and with what."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from qnet_actors.ledger import offence_account
from qnet_actors.network.offences import MemoryOffences
from qnet_actors.network.reporting import GAS_PRICE_MAX, LOOK_MS, TURN_MS, Reporter
from qnet_actors.rooms import AccountColumns, PeerUp, Persist, Room, Run, Submit, ToRoom
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.committee import Committee, Member
from qnet_actors.wire.evidence import Equivocation, equivocation_of
from qnet_actors.wire.schemes import CONTEXT_TRANSACTION, Scheme, key_id
from qnet_actors.wire.transactions import (
    GAS_REPORT,
    TRANSACTION_CODEC,
    ReportEquivocation,
    Transaction,
    check_body,
    transaction_id,
)
from tests.validators.support import PROVIDER, genesis_blocks, make_block, make_genesis, signer

GENESIS = make_genesis()
CHAIN_ID = GENESIS.chain_id()
NAMES = [key_id(Scheme.KEYED_HASH, signer(i).public_key) for i in range(4)]
COMMITTEE = Committee(
    [Member(Scheme.KEYED_HASH, signer(i).public_key, 1, NAMES[i]) for i in range(4)], 0, bytes(32)
)
LIAR = 2


def proof(author: int = LIAR, round_: int = 1) -> Equivocation:
    zero = genesis_blocks(GENESIS)
    one, other = (make_block(round_, author, zero, timestamp_ms=at) for at in (1, 2))
    return equivocation_of(one, other)


class Accounts:
    """(nonce, balance, key id) by address."""

    def __init__(self) -> None:
        self.rows = {name: (5, GAS_REPORT, bytes(32)) for name in NAMES}

    def read(self, addresses: npt.NDArray[np.uint8]) -> AccountColumns:
        rows = [self.rows.get(row.tobytes(), (0, 0, bytes(32))) for row in addresses]
        keys = np.frombuffer(b"".join(key for _, _, key in rows), dtype=np.uint8)
        return AccountColumns(
            np.array([nonce for nonce, _, _ in rows], dtype=np.uint64),
            np.array([balance for _, balance, _ in rows], dtype=np.uint64),
            keys.reshape(-1, 32),
        )


class Network:
    """The reporters of four validators that hold the same proofs."""

    def __init__(
        self,
        *proofs: Equivocation,
        past: tuple[ReportEquivocation, ...] = (),
        committee: Committee = COMMITTEE,
    ) -> None:
        self.accounts = Accounts()
        self.proofs = proofs
        self.stores = [MemoryOffences() for _ in range(len(committee))]
        self.reporters = [
            Reporter(
                chain_id=CHAIN_ID,
                committee=committee,
                own=own,
                signer=signer(own),
                reader=self.accounts,
                evidence=lambda: self.proofs,
                shard_count=1,
                past=past,
            )
            for own in range(len(committee))
        ]

    def run(self, start_ms: int, end_ms: int) -> list[tuple[int, int, Transaction]]:
        """(time, validator, transaction) of all reports of a time."""
        sent: list[tuple[int, int, Transaction]] = []
        for now_ms in range(start_ms, end_ms, LOOK_MS):
            for own, reporter in enumerate(self.reporters):
                for effect in reporter.tick(now_ms):
                    if isinstance(effect, Persist):
                        self.stores[own].write(effect.writes)
                        continue
                    assert isinstance(effect, Run)
                    for submit in effect.then(effect.call(), now_ms):
                        assert isinstance(submit, ToRoom)
                        assert (submit.room, submit.shard) == (Room.MEMPOOL, 0)
                        assert isinstance(submit.event, Submit)
                        assert submit.event.request < 0
                        (data,) = submit.event.transactions
                        sent.append((now_ms, own, TRANSACTION_CODEC.decode(data)))
                assert reporter.wake_ms() > now_ms
        return sent


def test_the_others_report_by_turns_with_a_signed_transaction_each():
    network = Network(proof())
    sent = network.run(0, 6 * TURN_MS)
    assert [own for _, own, _ in sent] == [0, 1, 3, 0, 1, 3]
    assert [now_ms for now_ms, _, _ in sent] == [turn * TURN_MS for turn in range(6)]
    for _, own, transaction in sent:
        body, witness = transaction.body, transaction.witness
        check_body(body, CHAIN_ID)
        assert (body.sender, body.key_id, body.nonce) == (NAMES[own], NAMES[own], 5)
        liar = COMMITTEE.members[LIAR]
        assert body.action == ReportEquivocation(liar.scheme, liar.public_key, proof())
        assert PROVIDER.verify(
            Scheme.KEYED_HASH,
            witness.public_key,
            transaction_id(encode(body)),
            witness.signature,
            CONTEXT_TRANSACTION,
        )


def test_nobody_reports_what_the_state_knows_or_without_a_proof():
    assert not Network().run(0, 4 * TURN_MS)
    network = Network(proof())
    network.accounts.rows[offence_account(NAMES[LIAR], 0)] = (0, 0, NAMES[0])
    assert not network.run(0, 4 * TURN_MS)
    network = Network(proof())
    network.accounts.rows[offence_account(NAMES[LIAR], 1)] = (0, 0, NAMES[0])
    assert network.run(0, TURN_MS)


def test_each_report_offers_more_than_the_last_within_bounds_and_the_balance():
    network = Network(proof())
    network.accounts.rows[NAMES[0]] = (5, 100 * GAS_REPORT, bytes(32))
    network.accounts.rows[NAMES[1]] = (5, 10**15, bytes(32))
    offers: dict[int, list[int]] = {}
    for _, own, transaction in network.run(0, 18 * TURN_MS):
        offers.setdefault(own, []).append(transaction.body.gas_price)
    assert offers == {
        0: [16, 64, 100, 100, 100, 100],
        1: [16, 64, 256, 1_024, GAS_PRICE_MAX, GAS_PRICE_MAX],
        3: [1] * 6,
    }


@pytest.mark.parametrize(
    "row",
    [(5, GAS_REPORT - 1, bytes(32)), (5, GAS_REPORT, NAMES[1])],
    ids=["poor", "another key"],
)
def test_who_cannot_report_leaves_it_to_the_next(row: tuple[int, int, bytes]):
    network = Network(proof())
    network.accounts.rows[NAMES[0]] = row
    assert [own for _, own, _ in network.run(0, 3 * TURN_MS)] == [1, 3]


def test_two_proofs_of_one_author_are_one_offence_and_two_authors_are_two():
    network = Network(proof(), proof(round_=2), proof(author=3))
    sent = network.run(0, 3 * TURN_MS)
    reported = [
        (own, transaction.body.action.equivocation.author)
        for _, own, transaction in sent
        if isinstance(transaction.body.action, ReportEquivocation)
    ]
    # Not both at once where it is one validator's turn for both.
    assert reported == [(0, 2), (0, 3), (1, 2), (1, 3), (2, 3), (3, 2)]
    assert {t.body.action.equivocation.round for _, _, t in sent} == {1}  # type: ignore[union-attr]
    times = [now_ms for now_ms, own, _ in sent if own == 0]
    assert times == [0, LOOK_MS]


def test_events_change_nothing():
    network = Network(proof())
    assert network.reporters[0].handle(PeerUp(1), 0) == []


def report(author: int = LIAR) -> ReportEquivocation:
    member = COMMITTEE.members[author]
    return ReportEquivocation(member.scheme, member.public_key, proof(author))


def later(*places: int) -> Committee:
    """The committee of epoch 1, in another order than the first."""
    return Committee([COMMITTEE.members[place] for place in places], 1, bytes(32))


def test_what_an_epoch_left_is_reported_in_the_next_by_all_but_the_offender():
    # The liar has left, and its old place is somebody else's.
    network = Network(past=(report(),), committee=later(3, 1, 0))
    sent = network.run(0, 3 * TURN_MS)
    assert [own for _, own, _ in sent] == [0, 1, 2]
    assert {t.body.sender for _, _, t in sent} == {NAMES[0], NAMES[1], NAMES[3]}
    assert {t.body.action for _, _, t in sent} == {report()}
    # It is still of the committee, and lets its turns pass.
    network = Network(past=(report(),), committee=later(2, 1, 0))
    assert {own for _, own, _ in network.run(0, 3 * TURN_MS)} == {1, 2}


def test_what_is_left_is_stored_until_it_is_punished():
    network = Network(past=(report(), report(3)), committee=later(0, 1))
    network.run(0, LOOK_MS)
    assert [store.load() for store in network.stores] == [(report(), report(3))] * 2
    network.accounts.rows[offence_account(NAMES[LIAR], 0)] = (0, 0, NAMES[0])
    network.run(LOOK_MS, 3 * TURN_MS)
    assert [store.load() for store in network.stores] == [(report(3),)] * 2


def test_a_reader_that_does_not_answer_costs_a_turn_and_no_more():
    network = Network(proof())

    def read(addresses: npt.NDArray[np.uint8]) -> AccountColumns:
        raise QnetError(Code.NOT_READY)

    answers = network.accounts.read
    network.accounts.read = read  # type: ignore[method-assign]
    assert not network.run(0, TURN_MS)
    network.accounts.read = answers  # type: ignore[method-assign]
    assert [own for _, own, _ in network.run(TURN_MS, 3 * TURN_MS)] == [1, 3]
