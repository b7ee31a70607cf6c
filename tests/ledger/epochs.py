"""A chain over several epochs, whose committees differ, for tests of who follows it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from qnet_actors.crypto import KeyPair, Signer, development_key
from qnet_actors.ledger import MemoryLog, SnapshotSettings
from qnet_actors.ledger.hand_offs import make_hand_off
from qnet_actors.ledger.writes import CertificateWrite
from qnet_actors.light import HandOff, ProvedAccount
from qnet_actors.rooms import CheckpointMade
from qnet_actors.wire.blocks import Certificate, CertificateVote, Checkpoint
from qnet_actors.wire.committee import Committee
from qnet_actors.wire.genesis import Genesis, Parameters
from qnet_actors.wire.schemes import CONTEXT_CHECKPOINT, Scheme
from qnet_actors.wire.transactions import Action, Unstake, register_validator
from tests.ledger.rig import PROVIDER, Rig
from tests.ledger.world import GENESIS_MS, Commits, a_batch, a_genesis, a_transaction, address

STAKE = 100
STEP_MS = 400
PARAMETERS = Parameters(commit_lag=2, epoch_commits_min=3, unbonding_epochs=1, stake_min=1)


def validator_key(number: int) -> KeyPair:
    return development_key("validator", number, Scheme.KEYED_HASH, PROVIDER)


GENESIS: Genesis = a_genesis(
    balances={address(n): 10**9 for n in range(8)},
    parameters=PARAMETERS,
    public_keys=[validator_key(n).public_key for n in range(4)],
)


def signed_by(committee: Committee, checkpoint: Checkpoint) -> Certificate:
    """A certificate with the signatures of the whole committee."""
    keys = {key.public_key: key for key in map(validator_key, range(8))}
    votes = [
        CertificateVote(
            author,
            Signer(keys[member.public_key], PROVIDER).sign(checkpoint.digest(), CONTEXT_CHECKPOINT),
        )
        for author, member in enumerate(committee.members)
    ]
    return Certificate(checkpoint, tuple(votes))


@dataclass(frozen=True)
class Told:
    """What a chain of epochs leaves for those who follow it."""

    committees: tuple[Committee, ...]
    hand_offs: tuple[HandOff, ...]
    proved: tuple[ProvedAccount, ...]
    """An account under the last checkpoint but one of each epoch, that of `address(1)`."""
    certificates: tuple[tuple[Certificate, ...], ...]
    """Of each epoch."""


def actions() -> list[tuple[int, Action]]:
    """What ends each epoch: two validators come, one goes, another comes."""
    chain_id = GENESIS.chain_id()

    def register(number: int, owner: int) -> Action:
        key = Signer(validator_key(number), PROVIDER)
        return register_validator(key, chain_id, address(owner), STAKE)

    return [(4, register(4, 4)), (5, register(5, 5)), (4, Unstake(STAKE)), (6, register(6, 6))]


def drive_epochs(log: Any, snapshots: SnapshotSettings | None = None) -> Told:
    """Writes the chain to an empty log of either kind; its last epoch has not ended."""
    chain = Commits()
    committees: list[Committee] = []
    hand_offs: list[HandOff] = []
    proved: list[ProvedAccount] = []
    certificates: list[tuple[Certificate, ...]] = []
    nonces = dict.fromkeys(range(8), 0)
    for epoch, (sender, action) in enumerate([*actions(), (1, None)]):
        rig = Rig(GENESIS, log, snapshots=snapshots)
        committees.append(rig.committee)
        chain.epoch = epoch
        made: list[Certificate] = []
        for step in range(12):
            transactions = [a_transaction(GENESIS, 0, nonces[0])]
            nonces[0] += 1
            if step == 1:
                transactions.append(a_transaction(GENESIS, sender, nonces[sender], action))
                nonces[sender] += 1
            batch = a_batch(transactions, 0, chain.index + 1)
            told = len(rig.to_validator)
            rig.commit(chain.next(GENESIS_MS + STEP_MS * (chain.index + 1), [batch]), [batch])
            for event in rig.to_validator[told:]:
                if isinstance(event, CheckpointMade):
                    made.append(signed_by(rig.committee, event.checkpoint))
                    log.write([CertificateWrite(made[-1])])
                    if not rig.core.epoch_ended:
                        last = event.checkpoint
                        root, account, proof = rig.state.prove(address(1), last.height)
                        assert root == last.state_root
                        shown = ProvedAccount(made[-1], account, proof)
            if rig.core.epoch_ended:
                break
        proved.append(shown)
        certificates.append(tuple(made))
        if rig.core.epoch_ended:
            hand_off = make_hand_off(log, rig.state, GENESIS)
            assert hand_off is not None
            hand_offs.append(hand_off)
    return Told(tuple(committees), tuple(hand_offs), tuple(proved), tuple(certificates))


@cache
def told() -> Told:
    return drive_epochs(MemoryLog())
