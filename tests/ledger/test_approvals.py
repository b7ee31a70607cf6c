"""Rules of the next epoch by approval of stake, in the specification and the fast paths alike."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnet_actors.crypto import Signer
from qnet_actors.ledger import MemoryLog, recover, rules_of
from qnet_actors.ledger.hand_offs import make_hand_off
from qnet_actors.ledger.names import approval_account
from qnet_actors.ledger.registry import Registry
from qnet_actors.ledger.writes import CertificateWrite
from qnet_actors.light import check_hand_off
from qnet_actors.network.present import present_of
from qnet_actors.rooms import (
    CatchUp,
    CheckpointCertified,
    CheckpointMade,
    CommitsExecuted,
    EpochEnds,
)
from qnet_actors.wire.blocks import Certificate, CertificateVote, Checkpoint
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.genesis import Genesis
from qnet_actors.wire.hashing import ZERO_DIGEST
from qnet_actors.wire.rules import EpochRules, approval_digest, first_rules, rules_account
from qnet_actors.wire.schemes import CONTEXT_CHECKPOINT
from qnet_actors.wire.transactions import (
    Approve,
    RegisterValidator,
    ReportEquivocation,
    Stake,
    Unstake,
    register_validator,
)
from tests.ledger.rig import PROVIDER, VERIFIER, Rig
from tests.ledger.test_registry import (
    BALANCE,
    PARAMETERS,
    STAKE,
    Chain,
    proof,
    validator_key,
)
from tests.ledger.world import GENESIS_MS, Commits, a_batch, a_genesis, a_transaction, address

OWNERS = (0, 1, 2, 3)
"""Of the genesis' validators, with a stake of 10 each: three of them are a quorum."""
STRANGER = 5


def network(**changes: int) -> Genesis:
    """The validators' keys are 20 to 23, so that the test accounts can register all others."""
    genesis = a_genesis(
        balances={address(n): BALANCE for n in range(6)},
        parameters=msgspec.structs.replace(PARAMETERS, **{"stake_min": 5, **changes}),
        public_keys=[validator_key(20 + n).public_key for n in OWNERS],
    )
    members = tuple(
        msgspec.structs.replace(member, stake=10, reward=address(n))
        for n, member in enumerate(genesis.members)
    )
    return msgspec.structs.replace(genesis, members=members)


GENESIS = network()
FIRST = first_rules(GENESIS.parameters)


def changed(version: int = 1, **changes: int) -> EpochRules:
    return EpochRules(version, msgspec.structs.replace(GENESIS.parameters, **changes))


def registration(number: int, stake: int, *, owner: int) -> RegisterValidator:
    signer = Signer(validator_key(number), PROVIDER)
    return register_validator(signer, GENESIS.chain_id(), address(owner), stake)


def proof_of(number: int, epoch: int) -> ReportEquivocation:
    key = validator_key(number)
    forged = proof(number, epoch=epoch, chain_id=GENESIS.chain_id())
    return ReportEquivocation(key.scheme, key.public_key, forged)


SLOWER = changed(round_delay_ms=80, block_interval_ms=250)
FASTER = changed(round_delay_ms=20)


def approve(chain: Chain, rules: EpochRules, *who: int, epoch: int | None = None) -> list[int]:
    approval = Approve(chain.epoch.number if epoch is None else epoch, rules)
    return chain.block(*((n, approval) for n in who))


def rules(chain: Chain) -> EpochRules:
    return rules_of(chain.state, GENESIS)


def test_rules_come_with_the_next_epoch_once_a_quorum_of_stake_approved_the_same():
    chain = Chain(GENESIS)
    assert approve(chain, SLOWER, 0, 1) == [Code.SUCCESS, Code.SUCCESS]
    assert approve(chain, FASTER, 2) == [Code.SUCCESS]
    chain.blocks(10)
    assert not chain.epoch.is_changed
    assert approve(chain, SLOWER, 3) == [Code.SUCCESS]
    assert chain.epoch.is_decided
    assert rules(chain) == FIRST
    chain.next_epoch()
    assert chain.epoch.is_ruled
    assert not chain.epoch.is_decided
    assert rules(chain) == SLOWER
    assert rules_of(chain.state, GENESIS, 0) == FIRST
    assert chain.committee.members == GENESIS.members
    # Without another change the epoch goes on for ever.
    chain.blocks(20)
    assert chain.epoch.number == 1


def test_rules_stay_over_the_epochs_until_others_are_approved():
    chain = Chain(GENESIS)
    approve(chain, SLOWER, 0, 1, 2)
    chain.next_epoch()
    for number in (2, 3):
        assert chain.block((0, Stake(1))) == [Code.SUCCESS]
        chain.next_epoch()
        assert chain.epoch.number == number
        assert rules(chain) == rules_of(chain.state, GENESIS, number - 1) == SLOWER
    assert approve(chain, FASTER, 0, 1, 2) == [Code.SUCCESS] * 3
    chain.next_epoch()
    assert rules(chain) == FASTER
    assert rules_of(chain.state, GENESIS, 3) == SLOWER
    with pytest.raises(ValueError, match="epoch 2"):
        rules_of(chain.state, GENESIS, 2)


def test_many_approvals_in_a_block_read_the_committee_once(monkeypatch: pytest.MonkeyPatch):
    chain = Chain(GENESIS)
    approve(chain, SLOWER, 0, 1, 2)
    chain.next_epoch()
    read: list[int] = []
    members = Registry.members

    def counted(registry: Registry, number: int) -> list[tuple[bytes, int, bytes]]:
        read.append(number)
        return members(registry, number)

    monkeypatch.setattr(Registry, "members", counted)
    statuses = approve(chain, FASTER, *[STRANGER] * 5, 0)
    assert statuses == [Code.NOT_OF_COMMITTEE] * 5 + [Code.SUCCESS]
    # Once for the specification, and once for each of the two fast paths.
    assert read == [1, 1, 1]


def test_an_approval_replaces_the_one_before_and_ends_with_its_epoch():
    chain = Chain(GENESIS)
    approve(chain, SLOWER, 0, 1)
    approve(chain, FASTER, 1)
    approve(chain, SLOWER, 2)
    assert not chain.epoch.is_decided
    assert chain.key_id(approval_account(address(1))) == approval_digest(0, FASTER)
    chain.block((0, Stake(1)))
    chain.next_epoch()
    # Two approved it in epoch 0, and that is over.
    approve(chain, SLOWER, 3)
    assert not chain.epoch.is_decided
    approve(chain, SLOWER, 0, 1)
    assert chain.epoch.is_decided


def test_an_approval_counts_in_no_other_epoch_than_the_one_it_names():
    chain = Chain(GENESIS)
    assert approve(chain, SLOWER, 0, 1, 2, epoch=1) == [Code.OTHER_EPOCH] * 3
    assert chain.key_id(approval_account(address(0))) == ZERO_DIGEST
    assert approve(chain, FASTER, 1) == [Code.SUCCESS]
    chain.block((0, Stake(1)))
    chain.next_epoch()
    assert approve(chain, FASTER, 0, 1) == [Code.SUCCESS] * 2
    # Somebody held these back until now: they neither count nor take the place of a newer one.
    assert approve(chain, SLOWER, 0, 1, 2, epoch=0) == [Code.OTHER_EPOCH] * 3
    assert not chain.epoch.is_decided
    assert chain.key_id(approval_account(address(1))) == approval_digest(1, FASTER)
    assert approve(chain, FASTER, 3) == [Code.SUCCESS]
    assert chain.epoch.is_decided


def test_a_quorum_may_change_its_mind_before_the_epoch_ends():
    chain = Chain(GENESIS)
    approve(chain, SLOWER, 0, 1, 2)
    approve(chain, FASTER, 3, 2)
    assert chain.epoch.is_decided
    approve(chain, FIRST, 0, 1, 2)
    chain.next_epoch()
    assert rules(chain) == FIRST


def test_the_stake_of_the_present_committee_counts_and_nobody_elses():
    chain = Chain(GENESIS)
    assert approve(chain, SLOWER, STRANGER) == [Code.NOT_OF_COMMITTEE]
    # A joiner with more stake than all others is of the next committee only; who leaves is of this.
    assert chain.block((4, registration(7, 1_000, owner=4)), (3, Unstake(10))) == [
        Code.SUCCESS,
        Code.SUCCESS,
    ]
    assert approve(chain, SLOWER, 4) == [Code.NOT_OF_COMMITTEE]
    assert chain.key_id(approval_account(address(4))) == ZERO_DIGEST
    assert approve(chain, SLOWER, 3, 0, 1) == [Code.SUCCESS] * 3
    chain.next_epoch()
    assert rules(chain) == SLOWER
    assert approve(chain, FASTER, 3) == [Code.NOT_OF_COMMITTEE]
    assert approve(chain, FASTER, 0, 1, 2) == [Code.SUCCESS] * 3
    assert not chain.epoch.is_decided
    assert approve(chain, FASTER, 4) == [Code.SUCCESS]
    assert chain.epoch.is_decided


@pytest.mark.parametrize(
    ("proposed", "status"),
    [
        (changed(gc_depth=65), Code.PARAMETERS_REFUSED),
        (changed(commit_lag=5), Code.PARAMETERS_REFUSED),
        (changed(power_durability=True), Code.PARAMETERS_REFUSED),
        (changed(epoch_commits_min=0), Code.PARAMETERS_REFUSED),
        (changed(epoch_commits_min=10_000_001), Code.PARAMETERS_REFUSED),
        (changed(unbonding_epochs=2), Code.PARAMETERS_REFUSED),
        (changed(block_interval_ms=0), Code.PARAMETERS_REFUSED),
        (changed(round_delay_ms=600_001), Code.PARAMETERS_REFUSED),
        (changed(stake_min=0), Code.PARAMETERS_REFUSED),
        (changed(block_size_bytes_max=1), Code.PARAMETERS_REFUSED),
        (changed(leader_timeout_ms=5_000), Code.PARAMETERS_REFUSED),
        (changed(version=0), Code.VERSION_REFUSED),
        (changed(version=3), Code.VERSION_REFUSED),
        (changed(version=2), Code.SUCCESS),
        (changed(epoch_commits_min=9), Code.SUCCESS),
    ],
)
def test_what_may_not_change_is_refused_and_leaves_nothing(proposed: EpochRules, status: Code):
    chain = Chain(GENESIS)
    assert approve(chain, proposed, 0) == [status]
    kept = chain.key_id(approval_account(address(0)))
    assert (kept == ZERO_DIGEST) == (status != Code.SUCCESS)


def test_a_version_is_followed_by_the_next_one_only():
    chain = Chain(GENESIS)
    approve(chain, changed(version=2), 0, 1, 2)
    chain.next_epoch()
    assert rules(chain).version == 2
    head = chain.last.write_set.addresses.find(rules_account(1, 0))
    assert head >= 0
    assert head % 32 == 0
    assert approve(chain, changed(version=1), 0) == [Code.VERSION_REFUSED]
    assert approve(chain, changed(version=3), 0) == [Code.SUCCESS]


def test_the_new_values_hold_from_the_new_epoch_on():
    chain = Chain(GENESIS)
    approve(chain, changed(stake_min=20, epoch_commits_min=12), 0, 1, 2)
    assert chain.block((0, Stake(10)), (1, Stake(10)), (2, Stake(9))) == [Code.SUCCESS] * 3
    assert chain.block((4, registration(7, 6, owner=4))) == [Code.SUCCESS]
    chain.next_epoch()
    # The next committee is made by its own rules.
    assert [member.reward for member in chain.committee.members] == [address(0), address(1)]
    assert chain.block((2, Unstake(1))) == [Code.STAKE_TOO_LOW]
    first = chain.epoch.first_commit
    assert chain.block((2, Unstake(19))) == [Code.SUCCESS]
    while not chain.epoch.last_commit:
        chain.block()
    assert chain.epoch.last_commit == first + 12 + GENESIS.parameters.commit_lag
    chain.next_epoch()
    assert chain.epoch.number == 2


def test_nobody_is_punished_for_what_is_longer_ago_than_unbonding_takes():
    chain = Chain(GENESIS)
    signed = proof_of(20, epoch=0)
    chain.block((0, Stake(1)))
    chain.next_epoch()
    assert chain.block((4, signed)) == [Code.SUCCESS]
    chain.block((0, Stake(1)))
    chain.next_epoch()
    assert chain.epoch.number == 2
    assert chain.block((4, proof_of(21, epoch=0))) == [Code.EVIDENCE_REFUSED]


class Validators:
    """The ledger of a validator, and all votes that it needs, over the genesis of this module."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.rig = Rig(GENESIS, self.log)
        self.commits = Commits()

    def approve(self, rules: EpochRules) -> None:
        """Until the epoch's last block is certified."""
        self.execute(rules)
        self.commits.epoch += 1
        last = next(e for e in reversed(self.rig.to_validator) if isinstance(e, CheckpointMade))
        certificate = certified(last.checkpoint)
        self.log.write([CertificateWrite(certificate)])
        self.rig.handle(CheckpointCertified(certificate))

    def execute(self, rules: EpochRules) -> None:
        """Until the epoch's last block is executed."""
        for step in range(12):
            at_ms = GENESIS_MS + 400 * (step + 1)
            transactions = [a_transaction(GENESIS, 4, step)]
            if not step:
                transactions += [a_transaction(GENESIS, n, 0, Approve(0, rules)) for n in range(3)]
            batch = a_batch(transactions, 0, step + 1)
            self.rig.commit(self.commits.next(at_ms, [batch]), [batch])
            if self.rig.core.epoch_ended:
                break
        assert self.rig.core.epoch_ended


def certified(checkpoint: Checkpoint) -> Certificate:
    signers = [Signer(validator_key(20 + n), PROVIDER) for n in OWNERS]
    votes = [signer.sign(checkpoint.digest(), CONTEXT_CHECKPOINT) for signer in signers]
    return Certificate(checkpoint, tuple(CertificateVote(n, vote) for n, vote in enumerate(votes)))


def test_the_next_epoch_goes_by_its_rules_also_after_a_restart():
    validators = Validators()
    validators.approve(SLOWER)
    assert validators.rig.halted is None
    hand_off = make_hand_off(validators.log, validators.rig.state, GENESIS)
    assert hand_off is not None
    following = check_hand_off(GENESIS.chain_id(), GENESIS.committee(), hand_off, VERIFIER)
    present = present_of(recover(validators.log, GENESIS), GENESIS)
    assert present.rules == SLOWER
    assert present.committee.digest == following.digest
    again = Rig(GENESIS, validators.log)
    tip_ms = again.tip.timestamp_ms
    for step in range(4):
        batch = a_batch([a_transaction(GENESIS, 5, step)], 0, validators.commits.index + 1)
        # 100 ms would have made a block of this with the parameters of the genesis.
        at_ms = tip_ms + 130 * (step + 1)
        again.commit(validators.commits.next(at_ms, [batch]), [batch])
    ends = [event.record.header.timestamp_ms - tip_ms for event in again.executed]
    assert ends == [260, 520]


def test_a_restart_before_the_last_certificate_goes_on_in_the_epoch_and_not_behind_its_end():
    validators = Validators()
    validators.execute(SLOWER)
    present = present_of(recover(validators.log, GENESIS), GENESIS)
    assert present.committee.epoch == 0
    assert present.rules == FIRST
    assert present.epoch_end == present.commit_index == validators.commits.index


def test_a_commit_behind_the_end_of_the_epoch_stops_the_ledger():
    validators = Validators()
    rig, commits = validators.rig, validators.commits
    batch = a_batch([a_transaction(GENESIS, n, 0, Approve(0, SLOWER)) for n in range(3)])
    rig.commit(commits.next(GENESIS_MS + 1_000, [batch]), [batch])
    while not (told := [e.index for e in rig.to_validator if isinstance(e, EpochEnds)]):
        rig.commit(commits.next(GENESIS_MS + 1_000 * (commits.index + 1)))
    rig.hold_runs = True
    while commits.index < told[0]:
        rig.commit(commits.next(GENESIS_MS + 60_000))
    assert rig.halted is None
    rig.commit(commits.next(GENESIS_MS + 60_000))
    assert rig.halted is not None
    assert rig.halted.startswith("wrong_epoch: ")


def test_no_block_is_made_behind_the_end_that_is_executed_and_not_certified():
    validators = Validators()
    validators.execute(SLOWER)
    rig, tip = validators.rig, validators.rig.tip
    rig.commit(validators.commits.next(tip.timestamp_ms + 1_000))
    assert rig.halted is not None
    assert rig.halted.startswith("wrong_epoch: ")
    assert rig.tip == tip


def test_who_takes_the_end_of_the_epoch_from_a_peer_tells_consensus_of_it():
    validators = Validators()
    validators.approve(SLOWER)
    rig = Rig(GENESIS)
    rig.handle(CatchUp((1,), validators.rig.tip.height))
    while rig.sent:
        message, _ = rig.sent.pop(0)
        validators.rig.receive(0, message)
        answer, _ = validators.rig.sent.pop()
        rig.receive(1, answer)
    assert rig.core.epoch_ended
    # Before it learns that all of it is executed: else it would hand over what comes after.
    kinds = [type(event) for event in rig.to_validator]
    assert kinds.index(EpochEnds) < kinds.index(CommitsExecuted)
    rig.commit(validators.commits.next(rig.tip.timestamp_ms + 1_000))
    assert rig.halted is not None
    assert rig.halted.startswith("wrong_epoch: ")


def test_who_does_not_know_the_version_stops_where_the_epoch_ends():
    validators = Validators()
    validators.approve(changed(version=2))
    assert validators.rig.halted is not None
    assert "protocol version 2" in validators.rig.halted
    assert "newer release" in validators.rig.halted
    recovered = recover(validators.log, GENESIS)
    with pytest.raises(QnetError, match="protocol version 2") as caught:
        present_of(recovered, GENESIS)
    assert caught.value.code == Code.UNSUPPORTED_VERSION
    # A light client goes no further either.
    hand_off = make_hand_off(validators.log, validators.rig.state, GENESIS)
    assert hand_off is not None
    with pytest.raises(QnetError, match="protocol version 2") as caught:
        check_hand_off(GENESIS.chain_id(), GENESIS.committee(), hand_off, VERIFIER)
    assert caught.value.code == Code.UNSUPPORTED_VERSION


people = st.integers(0, 5)
proposals = st.one_of(
    st.sampled_from([SLOWER, FASTER, FIRST]),
    st.builds(
        lambda version, **changes: changed(version, **changes),
        st.sampled_from([0, 1, 2, 2**32 - 1]),
        round_delay_ms=st.sampled_from([0, 50, 600_001]),
        stake_min=st.sampled_from([0, 5, 10, 2**63]),
        unbonding_epochs=st.sampled_from([0, 1, 2**32 - 1]),
        block_gas_max=st.sampled_from([0, 2**36, 2**64 - 1]),
    ),
)
actions = st.one_of(
    st.builds(Approve, st.integers(0, 2), proposals),
    st.builds(Stake, st.sampled_from([1, 10, STAKE])),
    st.builds(Unstake, st.sampled_from([0, 1, 10])),
)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.tuples(people, actions), max_size=5), min_size=1, max_size=14))
def test_all_paths_approve_alike_and_rules_change_with_epochs_only(blocks):
    chain = Chain(GENESIS)
    number, held = 0, FIRST
    for block in blocks:
        # Each path is held to the specification inside.
        chain.block(*block)
        supply = 6 * BALANCE + (40 if chain.epoch.is_open else 0)
        assert chain.supply() == supply
        now = rules(chain)
        assert now == held or chain.epoch.number == number + 1
        number, held = chain.epoch.number, now
        assert chain.committee.epoch == number
