"""A chain of executed blocks for tests of whatever keeps or checks them."""

from __future__ import annotations

from functools import cache

from qnet_actors.ledger.writes import BlockWrite
from qnet_actors.rooms import CheckpointMade
from qnet_actors.wire.blocks import Certificate
from qnet_actors.wire.genesis import Genesis
from tests.ledger.rig import Rig, certify, keys
from tests.ledger.world import GENESIS_MS, Commits, a_batch, a_genesis, a_transaction, address

STEP_MS = 350


def chain_genesis() -> Genesis:
    return a_genesis(
        balances={address(n): 10**12 for n in range(8)},
        public_keys=[pair.public_key for pair in keys()],
    )


def drive(rig: Rig, blocks: int, commits: Commits | None = None) -> Commits:
    """Blocks of two transactions each, three to a second; the chain goes on where it stood."""
    chain = commits or Commits()
    first = chain.index
    for i in range(first, first + blocks):
        nonces = (2 * (i // 8) + k for k in range(2))
        transactions = [a_transaction(rig.genesis, i % 8, nonce) for nonce in nonces]
        batch = a_batch(transactions, i % 4, i + 1)
        rig.commit(chain.next(GENESIS_MS + STEP_MS * (i + 1), [batch]), [batch])
    return chain


@cache
def blocks(count: int = 24) -> tuple[BlockWrite, ...]:
    """The first blocks of the chain."""
    return tuple(_driven(count).log._disk.blocks)


@cache
def certificates(count: int = 24) -> tuple[Certificate, ...]:
    """Certificates of the checkpoints among the first blocks."""
    made = [e.checkpoint for e in _driven(count).to_validator if isinstance(e, CheckpointMade)]
    return tuple(certify(chain_genesis(), checkpoint, [0, 1, 3]) for checkpoint in made)


@cache
def _driven(count: int) -> Rig:
    rig = Rig(chain_genesis())
    drive(rig, count)
    return rig
