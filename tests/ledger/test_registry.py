"""Validators in the state: registering, stake, punishment, the end of an epoch, both executors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnet_actors.crypto import KeyPair, Signer, development_key
from qnet_actors.ledger.actions import REPORTER_DIVISOR, SLASH_DIVISOR
from qnet_actors.ledger.blocks import weight_of
from qnet_actors.ledger.execute import execute, open_batch
from qnet_actors.ledger.executor import Executor
from qnet_actors.ledger.groups import GroupExecution
from qnet_actors.ledger.names import BURNT, unbonding_account, validator_account
from qnet_actors.ledger.outcome import Outcome
from qnet_actors.ledger.reference import Terms, execute_reference
from qnet_actors.ledger.registry import Epoch, committee_of, ends_epoch, read_epoch
from qnet_actors.rooms import AccountColumns
from qnet_actors.state import State, genesis_write_set
from qnet_actors.wire.blocks import RECEIPT_CODEC
from qnet_actors.wire.codes import Code
from qnet_actors.wire.committee import Committee, committee_account
from qnet_actors.wire.dag import Commit, DagBlock, DagHeader, header_digest
from qnet_actors.wire.evidence import Equivocation, equivocation_of
from qnet_actors.wire.genesis import Genesis, Parameters
from qnet_actors.wire.hashing import EPOCH_SEED, hash32
from qnet_actors.wire.limits import VALIDATORS_MAX
from qnet_actors.wire.schemes import Scheme, dag_context, key_id
from qnet_actors.wire.transactions import (
    Action,
    RegisterValidator,
    ReportEquivocation,
    Stake,
    Transaction,
    Transfer,
    Unstake,
    register_validator,
    registration_digest,
)
from tests.ledger.rig import PROVIDER, VERIFIER
from tests.ledger.world import Commits, a_batch, a_genesis, a_transaction, address, reward

BALANCE = 10**9
STAKE = 100_000
FIRST_STAKE = 1_000
PARAMETERS = Parameters(commit_lag=4, epoch_commits_min=3, unbonding_epochs=1, stake_min=10)


def validator_key(number: int) -> KeyPair:
    return development_key("validator", number, Scheme.KEYED_HASH, PROVIDER)


def network() -> Genesis:
    genesis = a_genesis(
        balances={address(n): BALANCE for n in range(6)},
        parameters=PARAMETERS,
        public_keys=[validator_key(i).public_key for i in range(4)],
    )
    members = tuple(msgspec.structs.replace(m, stake=FIRST_STAKE) for m in genesis.members)
    return msgspec.structs.replace(genesis, members=members)


GENESIS = network()


def proof(
    number: int, round_: int = 5, epoch: int = 0, chain_id: bytes | None = None
) -> Equivocation:
    """An equivocation signed with a validator key."""
    signer = Signer(validator_key(number), PROVIDER)

    def block(timestamp_ms: int) -> DagBlock:
        header = DagHeader(1, epoch, round_, 0, timestamp_ms, (), (), ())
        context = dag_context(chain_id or GENESIS.chain_id())
        return DagBlock(header, signer.sign(header_digest(header), context))

    return equivocation_of(block(1), block(2))


def report(number: int, **where: Any) -> ReportEquivocation:
    key = validator_key(number)
    return ReportEquivocation(key.scheme, key.public_key, proof(number, **where))


def register(number: int, stake: int = STAKE, *, owner: int = 0) -> RegisterValidator:
    signer = Signer(validator_key(number), PROVIDER)
    return register_validator(signer, GENESIS.chain_id(), address(owner), stake)


class Chain:
    """A state that blocks are executed on, by the specification and by the fast paths alike."""

    def __init__(self, genesis: Genesis = GENESIS) -> None:
        self.genesis = genesis
        self.state = State()
        self.state.load(0, genesis_write_set(genesis))
        self.commits = Commits()
        self.height = 0
        self.nonces: dict[int, int] = {}
        self.last: Outcome
        self.commit: Commit

    def block(self, *actions: tuple[int, Action]) -> list[int]:
        """A block with one commit; returns the statuses."""
        self.commit = self.commits.next(self.height + 1)
        self.height += 1
        transactions: list[Transaction] = []
        for sender, action in actions:
            nonce = self.nonces.get(sender, 0)
            transactions.append(a_transaction(self.genesis, sender, nonce, action))
            self.nonces[sender] = nonce + 1
        self.last = run(self.state, self.height, transactions, self.commit, self.genesis)
        assert not self.last.excluded
        self.state.apply(self.height, self.last.write_set)
        return [RECEIPT_CODEC.decode(receipt).status for receipt in self.last.receipts]

    def blocks(self, count: int) -> None:
        for _ in range(count):
            self.block()

    def balance(self, who: bytes) -> int:
        return int(self.state.read(np.frombuffer(who, np.uint8).reshape(1, 32)).balances[0])

    def key_id(self, who: bytes) -> bytes:
        return bytes(self.state.read(np.frombuffer(who, np.uint8).reshape(1, 32)).key_ids[0])

    def supply(self) -> int:
        return int(np.frombuffer(self.state.snapshot().balances, "<u8").sum())

    @property
    def epoch(self) -> Epoch:
        return read_epoch(self.state)

    @property
    def committee(self) -> Committee:
        return committee_of(self.state, self.genesis)

    def next_epoch(self) -> None:
        number = self.epoch.number
        for _ in range(20):
            self.block()
            if self.epoch.number > number:
                assert ends_epoch(number, self.last.write_set)
                assert self.key_id(committee_account(number + 1)) == self.committee.digest
                return
        raise AssertionError("the epoch does not end")


def run(
    state: State,
    height: int,
    transactions: Sequence[Transaction],
    commit: Commit,
    genesis: Genesis = GENESIS,
) -> Outcome:
    """Executes a block on each path and holds them to one another."""
    batches = [a_batch(transactions)] if transactions else []
    rewards = [reward(0) for _ in batches]
    bodies = [(reward(0), [t.body for t in transactions])] if transactions else []
    terms = Terms(genesis, VERIFIER, commit)
    slow = execute_reference(height, bodies, state, terms)
    opened = [open_batch(batch) for batch in batches]
    assert execute(height, opened, rewards, state, terms) == slow
    groups = GroupExecution([Executor(), Executor()], rows_min=1)
    assert groups(height, opened, rewards, state, terms) == slow
    return slow


def test_without_an_action_the_genesis_speaks_and_nothing_is_written():
    chain = Chain()
    chain.blocks(10)
    assert chain.epoch == Epoch()
    assert chain.committee.members == GENESIS.members
    assert len(chain.state.snapshot().addresses) == 32 * 6


def test_a_new_validator_is_of_the_next_committee():
    chain = Chain()
    assert chain.block((0, register(7))) == [Code.SUCCESS]
    assert chain.committee.members == GENESIS.members
    assert chain.epoch.is_changed
    chain.blocks(1)
    assert not chain.epoch.last_commit
    chain.block()
    assert chain.epoch.last_commit == 3 + PARAMETERS.commit_lag
    chain.blocks(3)
    assert chain.epoch.number == 0
    chain.block()
    assert ends_epoch(0, chain.last.write_set)
    assert not ends_epoch(1, chain.last.write_set)
    assert chain.epoch == Epoch(1, 7, 0, True, False)
    committee = chain.committee
    assert committee.epoch == 1
    assert [m.public_key for m in committee.members[:4]] == [m.public_key for m in GENESIS.members]
    new = committee.members[4]
    assert (new.public_key, new.stake, new.reward) == (
        validator_key(7).public_key,
        STAKE,
        address(0),
    )
    number = (1).to_bytes(8, "big")
    digest = chain.commit.digest()
    assert committee.seed == hash32(EPOCH_SEED, GENESIS.chain_id(), number, digest)
    assert chain.key_id(committee_account(1)) == committee.digest
    chain.blocks(20)
    assert chain.epoch.number == 1


def test_stake_moves_and_the_supply_stays():
    chain = Chain()
    chain.block((0, register(7)))
    supply = chain.supply()
    assert supply == 6 * BALANCE + 4 * FIRST_STAKE
    assert chain.block((0, Stake(5_000)), (1, Stake(1))) == [Code.SUCCESS, Code.NOT_A_VALIDATOR]
    assert chain.balance(validator_account(address(0))) == STAKE + 5_000
    assert chain.block((0, Unstake(105_000 - 9))) == [Code.STAKE_TOO_LOW]
    assert chain.block((0, Unstake(105_001))) == [Code.STAKE_TOO_LOW]
    assert chain.block((0, Unstake(55_000))) == [Code.SUCCESS]
    assert chain.balance(unbonding_account(address(0))) == 55_000
    chain.next_epoch()
    assert chain.committee.members[4].stake == 50_000
    assert chain.block((0, Unstake(50_000))) == [Code.SUCCESS]
    chain.next_epoch()
    assert len(chain.committee) == 4
    assert chain.block((0, Unstake(0))) == [Code.SUCCESS]
    assert chain.balance(unbonding_account(address(0))) == 105_000, "not before two more epochs"
    chain.block((1, register(8, owner=1)))
    chain.next_epoch()
    before = chain.balance(address(0))
    assert chain.block((0, Unstake(0))) == [Code.SUCCESS]
    assert chain.balance(address(0)) == before + 105_000 - 20_000
    assert chain.block((0, Unstake(0))) == [Code.NOT_A_VALIDATOR]
    assert chain.supply() == supply


def test_a_validator_changes_its_key_and_the_old_one_still_convicts_it():
    chain = Chain()
    chain.block((0, register(7)))
    chain.next_epoch()
    assert chain.block((0, register(8, 0))) == [Code.SUCCESS]
    assert chain.committee.members[4].public_key == validator_key(7).public_key
    chain.next_epoch()
    assert chain.committee.members[4].public_key == validator_key(8).public_key
    assert len(chain.committee) == 5
    assert chain.block((1, register(7, owner=1))) == [Code.VALIDATOR_KEY_IN_USE]
    assert chain.block((1, report(7, epoch=1))) == [Code.SUCCESS]
    assert chain.balance(validator_account(address(0))) == 0


@pytest.mark.parametrize(
    ("action", "status"),
    [
        (register(3), Code.VALIDATOR_KEY_IN_USE),
        (RegisterValidator(Scheme.ED25519, bytes(32), STAKE, bytes(64)), Code.VALIDATOR_KEY_IN_USE),
        (register(7, 9), Code.STAKE_TOO_LOW),
        (register(7, 2 * BALANCE), Code.INSUFFICIENT_BALANCE),
        (Stake(1), Code.NOT_A_VALIDATOR),
        (Unstake(1), Code.STAKE_TOO_LOW),
        (Unstake(0), Code.NOT_A_VALIDATOR),
        (report(9), Code.EVIDENCE_REFUSED),
        (report(3, epoch=1), Code.EVIDENCE_REFUSED),
    ],
)
def test_what_fails_costs_its_fee_and_leaves_nothing(action: Action, status: Code):
    chain = Chain()
    assert chain.block((0, action)) == [status]
    assert chain.epoch == Epoch()
    written = chain.last.write_set.addresses
    assert sorted((written[:32], written[32:])) == sorted((address(0), reward(0)))


def test_an_equivocator_is_punished_once_for_an_epoch_and_leaves():
    chain = Chain()
    chain.block((0, register(7)))
    chain.block((0, Unstake(10_000)))
    chain.next_epoch()
    before = chain.balance(address(1))
    supply = chain.supply()
    assert chain.block((1, report(7, epoch=1))) == [Code.SUCCESS]
    taken = (STAKE - 10_000) // SLASH_DIVISOR + 10_000 // SLASH_DIVISOR
    gained = taken // REPORTER_DIVISOR
    assert chain.balance(address(1)) == before - 60_000 + gained
    assert chain.balance(BURNT) == taken - gained
    assert chain.balance(unbonding_account(address(0))) == STAKE - taken
    assert chain.supply() == supply
    assert chain.block((2, report(7, epoch=1, round_=9))) == [Code.ALREADY_PUNISHED]
    chain.next_epoch()
    assert validator_key(7).public_key not in [m.public_key for m in chain.committee.members]


@pytest.mark.parametrize(
    "action",
    [
        register(7, owner=1),
        msgspec.structs.replace(register(7), proof=bytes(32)),
        msgspec.structs.replace(register(7), proof=register(8).proof),
        register_validator(Signer(validator_key(7), PROVIDER), b"other" * 6 + b"ab", address(0), 1),
        RegisterValidator(
            Scheme.KEYED_HASH,
            validator_key(7).public_key,
            STAKE,
            Signer(validator_key(7), PROVIDER).sign(
                registration_digest(
                    GENESIS.chain_id(),
                    address(0),
                    Scheme.KEYED_HASH,
                    validator_key(7).public_key,
                ),
                dag_context(GENESIS.chain_id()),
            ),
        ),
    ],
    ids=["another account", "noise", "another key", "another chain", "another context"],
)
def test_nobody_registers_a_key_that_does_not_sign_for_it(action: RegisterValidator):
    chain = Chain()
    action = msgspec.structs.replace(action, stake=STAKE)
    assert chain.block((0, action)) == [Code.KEY_NOT_PROVED]
    assert chain.epoch == Epoch()
    assert chain.balance(validator_account(address(0))) == 0
    assert chain.block((0, register(7))) == [Code.SUCCESS]
    other_stake = msgspec.structs.replace(register(7), stake=1)
    assert chain.block((0, other_stake)) == [Code.SUCCESS]


def test_a_forged_proof_convicts_nobody():
    chain = Chain()
    key = validator_key(3)
    forged = ReportEquivocation(key.scheme, key.public_key, proof(2))
    assert chain.block((0, forged)) == [Code.EVIDENCE_REFUSED]


def test_what_a_key_signed_on_another_chain_convicts_nobody():
    chain = Chain()
    key = validator_key(3)
    renamed = msgspec.structs.replace(GENESIS, name="another")
    for chain_id in (renamed.chain_id(), bytes(32)):
        foreign = ReportEquivocation(key.scheme, key.public_key, proof(3, chain_id=chain_id))
        assert chain.block((0, foreign)) == [Code.EVIDENCE_REFUSED]
    assert chain.block((0, report(3))) == [Code.SUCCESS]


def test_the_last_validators_cannot_leave_nobody():
    chain = Chain()
    actions = [(5, report(i)) for i in range(4)]
    assert chain.block(*actions) == [Code.SUCCESS] * 4
    chain.next_epoch()
    assert [m.public_key for m in chain.committee.members] == [
        m.public_key for m in GENESIS.members
    ]


def test_the_registry_has_so_many_places_and_no_more():
    chain = Chain()
    chain.block(*((0, Transfer(address(n), 10**6)) for n in range(10, 10 + VALIDATORS_MAX)))
    room = VALIDATORS_MAX - 4
    joining = [(10 + n, register(100 + n, owner=10 + n)) for n in range(room + 1)]
    statuses = chain.block(*joining)
    assert statuses == [Code.SUCCESS] * room + [Code.REGISTRY_FULL]
    leaves, joins = (10, Unstake(STAKE)), (10 + room, register(100 + room, owner=10 + room))
    assert chain.block(leaves, joins) == [Code.SUCCESS] * 2
    chain.next_epoch()
    assert len(chain.committee) == VALIDATORS_MAX


def test_nobody_sends_from_an_account_of_the_registry():
    chain = Chain()
    chain.block((0, register(7)))
    validator = validator_account(address(0))
    thief = a_transaction(GENESIS, 0, 0, Transfer(address(5), 1), key_id=key_id(255, b""))
    for nonce in (0, 2**64 - 1):
        for name in (key_id(Scheme.KEYED_HASH, validator_key(7).public_key), validator):
            body = msgspec.structs.replace(thief.body, sender=validator, key_id=name, nonce=nonce)
            stolen = Transaction(body, thief.witness)
            outcome = run(chain.state, chain.height + 1, [stolen], chain.commits.next(99))
            assert len(outcome.excluded) == 1


@pytest.mark.parametrize("action", [register(7), Stake(1), Unstake(0), report(3)])
def test_where_no_epoch_ends_no_money_goes_where_nobody_gets_it_back(action: Action):
    fixed = msgspec.structs.replace(PARAMETERS, epoch_commits_min=0)
    genesis = msgspec.structs.replace(GENESIS, parameters=fixed)
    chain = Chain()
    transactions = [a_transaction(genesis, 0, 0, action)]
    outcome = run(chain.state, 1, transactions, chain.commits.next(99), genesis)
    (receipt,) = (RECEIPT_CODEC.decode(data) for data in outcome.receipts)
    assert receipt.status == Code.COMMITTEE_FIXED
    assert {outcome.write_set.addresses[:32], outcome.write_set.addresses[32:]} == {
        address(0),
        reward(0),
    }


class CountingReader:
    """Counts the calls, each of which may cross to another process."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.calls = 0

    def read(self, addresses: np.ndarray) -> AccountColumns:
        self.calls += 1
        return self.state.read(addresses)


@pytest.mark.parametrize("opened", [False, True])
def test_actions_on_validators_leave_the_rest_of_their_block_to_the_fast_path(opened):
    chain = Chain()
    chain.block(*((0, Transfer(address(n), 10**6)) for n in range(10, 110)))
    if opened:
        chain.block((0, register(7)))
    wanted: list[tuple[int, Action]] = [(n, Transfer(address(n + 500), 1)) for n in range(10, 60)]
    wanted += [(n, Unstake(0)) for n in range(60, 110)]
    wanted += [
        (1, register(8, owner=1)),
        (2, report(3)),
        (3, Stake(1)),
        (4, Transfer(address(5), 1)),
    ]
    transactions = [a_transaction(GENESIS, sender, 0, action) for sender, action in wanted]
    batch = open_batch(a_batch(transactions))
    terms = Terms(GENESIS, VERIFIER, chain.commits.next(99))
    for path in (execute, GroupExecution([Executor(), Executor()], rows_min=1)):
        reader = CountingReader(chain.state)
        fast = path(chain.height + 1, [batch], [reward(0)], reader, terms)
        assert len(fast.receipts) == len(wanted)
        assert reader.calls < 20
    run(chain.state, chain.height + 1, transactions, chain.commits.next(99))


def test_an_action_on_validators_fills_a_block_faster_than_a_transfer():
    actions: list[Action] = [Unstake(0), Transfer(address(5), 1)]
    weights = [
        weight_of(open_batch(a_batch([a_transaction(GENESIS, 0, 0, action)]))).transactions
        for action in actions
    ]
    assert weights == [32, 1]


people = st.integers(0, 5)
amounts = st.sampled_from([0, 1, 9, 10, 500, STAKE, BALANCE, 2**63])
actions = st.one_of(
    st.builds(register, st.integers(2, 9), amounts, owner=people),
    st.builds(Stake, amounts),
    st.builds(Unstake, amounts),
    st.builds(lambda n, e: report(n, epoch=e), st.integers(2, 9), st.integers(0, 2)),
    st.builds(Transfer, st.builds(address, people), amounts),
    st.builds(Transfer, st.builds(lambda n: validator_account(address(n)), people), amounts),
)


def registrations(who: int) -> st.SearchStrategy[tuple[int, Action]]:
    action = st.builds(register, st.integers(2, 9), amounts, owner=st.just(who))
    return st.tuples(st.just(who), action)


sent = st.one_of(st.tuples(people, actions), people.flatmap(registrations))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(sent, max_size=4), min_size=1, max_size=12))
def test_all_paths_do_the_same_and_no_unit_is_made_or_lost(blocks):
    chain = Chain()
    for block in blocks:
        affordable = [(who, what) for who, what in block if chain.balance(address(who)) > 500_000]
        chain.block(*affordable)
        stakes = 4 * FIRST_STAKE if chain.epoch.is_open else 0
        assert chain.supply() == 6 * BALANCE + stakes
        committee = chain.committee
        assert committee.epoch == chain.epoch.number
        assert len(committee) >= 1
