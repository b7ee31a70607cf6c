"""A ledger with many accounts, for whoever wants to join it: real blocks, made without a network.

Every account is paid by a multi-transfer.  A ledger checks no signature of a transaction, for the
mempool has, so zeros stand for them; the checkpoint is signed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from msgspec.structs import replace

from qnet_actors.crypto import BatchVerifier, KeyPair, Signer
from qnet_actors.crypto.providers import Provider
from qnet_actors.ledger import BlockLog, LedgerCore, SnapshotSettings, recover
from qnet_actors.network.development import development_genesis
from qnet_actors.network.node import LEDGER, MEMPOOL, VALIDATOR, Action, Forward, Node, Start, Write
from qnet_actors.rooms import (
    Bodies,
    BodiesWanted,
    CheckpointCertified,
    CheckpointMade,
    CommitReady,
    Room,
)
from qnet_actors.wire.batches import Batch, build_batch
from qnet_actors.wire.blocks import Certificate, CertificateVote, Checkpoint
from qnet_actors.wire.dag import GENESIS_COMMIT_DIGEST, BlockRef, Commit
from qnet_actors.wire.genesis import Genesis, GenesisAccount
from qnet_actors.wire.hashing import DAG_BLOCK, hash32
from qnet_actors.wire.limits import PAYEES_MAX, SUPPLY_MAX
from qnet_actors.wire.schemes import CONTEXT_CHECKPOINT, SCHEME_SIZES, Scheme
from qnet_actors.wire.transactions import (
    TRANSACTION_VERSION,
    Body,
    MultiTransfer,
    Payment,
    Transaction,
    Witness,
    intrinsic_gas,
)

TRANSACTIONS_PER_BATCH: Final = 96
"""Of 256 payees each: just under a megabyte of payload."""
AMOUNT: Final = 1_000
_FUNDER: Final = hash32(DAG_BLOCK, b"funder")
_STEP_MS: Final = 1_000
"""So every block is a checkpoint."""


@dataclass(frozen=True, slots=True)
class Grown:
    """What a joiner is to arrive at."""

    certificate: Certificate
    accounts: int

    @property
    def checkpoint(self) -> Checkpoint:
        return self.certificate.checkpoint


def join_genesis(keys: Sequence[KeyPair]) -> Genesis:
    """A development network in which one account holds everything."""
    genesis = development_genesis(keys, [])
    staked = sum(member.stake for member in genesis.members)
    return replace(genesis, accounts=(GenesisAccount(_FUNDER, SUPPLY_MAX - staked),))


def grow(
    log: BlockLog, genesis: Genesis, keys: Sequence[KeyPair], provider: Provider, accounts: int
) -> Grown:
    """Fills an empty log with blocks until `accounts` were paid, and a certified snapshot."""
    size = TRANSACTIONS_PER_BATCH * PAYEES_MAX
    starts = range(0, accounts, size)
    room = _Room(log, genesis, BatchVerifier(provider), every_bytes=2**62)
    for number, start in enumerate(starts):
        room.commit(_batch(genesis, number, start, min(accounts, start + size)))
    room.finish()
    # The last block makes a snapshot, whatever there was before.
    room = _Room(log, genesis, BatchVerifier(provider), every_bytes=1, after=room.last)
    room.commit(_batch(genesis, len(starts), accounts, accounts + 1))
    room.finish()
    checkpoint = room.checkpoint
    if checkpoint is None:
        raise AssertionError("the last block is no checkpoint")
    quorum = genesis.committee().quorum * len(keys) // genesis.committee().total + 1
    digest = checkpoint.digest()
    votes = tuple(
        CertificateVote(author, Signer(key, provider).sign(digest, CONTEXT_CHECKPOINT))
        for author, key in enumerate(keys[:quorum])
    )
    certificate = Certificate(checkpoint, votes)
    room.handle(CheckpointCertified(certificate))
    return Grown(certificate, accounts + 2)


def account_address(number: int) -> bytes:
    """The `number`-th account that is paid."""
    return hash32(DAG_BLOCK, b"account", number.to_bytes(8, "big"))


class _Room:
    """A ledger that does what it is given to the end; its mempool is at hand."""

    def __init__(
        self,
        log: BlockLog,
        genesis: Genesis,
        verifier: Any,
        *,
        every_bytes: int,
        after: tuple[int, bytes] = (0, GENESIS_COMMIT_DIGEST),
    ) -> None:
        """`after`: index and digest of the last commit that the log holds."""
        core = LedgerCore(
            genesis=genesis,
            committee=genesis.committee(),
            verifier=verifier,
            recovered=recover(log, genesis),
            log=log,
            snapshots=SnapshotSettings(every_bytes=every_bytes),
        )
        self._node = Node({LEDGER: core}, [VALIDATOR, MEMPOOL])
        self._log = log
        self._genesis = genesis
        self._index, self._previous = after
        self._batches: dict[bytes, Batch] = {}
        self.checkpoint: Checkpoint | None = None
        self._drain(self._node.start(0))

    @property
    def last(self) -> tuple[int, bytes]:
        return self._index, self._previous

    def commit(self, batch: Batch | None) -> None:
        """A commit with a batch, or without, a second after the last one."""
        self._index += 1
        ref = BlockRef(self._index, 0, hash32(DAG_BLOCK, self._index.to_bytes(8, "big")))
        timestamp_ms = self._genesis.timestamp_ms + _STEP_MS * self._index
        commit = Commit(0, self._index, self._previous, timestamp_ms, ref, (ref,))
        self._previous = commit.digest()
        refs = () if batch is None else ((0, batch.ref),)
        if batch is not None:
            self._batches[batch.digest] = batch
        self.handle(CommitReady(commit, refs))

    def finish(self) -> None:
        """Ends the block that a commit may have been left in."""
        self.commit(None)

    def handle(self, event: Any) -> None:
        self._drain(self._node.handle(Room.LEDGER, event, 0))

    def _drain(self, actions: Sequence[Action]) -> None:
        waiting = deque(actions)
        while waiting:
            match waiting.popleft():
                case Start() as start:
                    waiting.extend(self._node.ran(start, start.call(), 0))
                case Write(key=key, writes=writes):
                    self._log.write(writes)
                    waiting.extend(self._node.persisted(key, 0))
                case Forward(event=BodiesWanted(commit_index=index, digests=digests)):
                    batches = tuple(self._batches.pop(digest) for digest in digests)
                    bodies = Bodies(index, batches)
                    waiting.extend(self._node.handle(Room.LEDGER, bodies, 0))
                case Forward(event=CheckpointMade(checkpoint=checkpoint)):
                    self.checkpoint = checkpoint
                case _:
                    pass


def _batch(genesis: Genesis, number: int, start: int, end: int) -> Batch:
    nonces = range(number * TRANSACTIONS_PER_BATCH, (number + 1) * TRANSACTIONS_PER_BATCH)
    transactions = [
        _transaction(genesis, nonce, payments)
        for nonce, payments in zip(nonces, _payments(start, end), strict=False)
    ]
    return build_batch(
        transactions,
        chain_id=genesis.chain_id(),
        epoch=0,
        author=0,
        shard=0,
        sequence=number + 1,
    )


def _payments(start: int, end: int) -> Iterator[tuple[Payment, ...]]:
    for first in range(start, end, PAYEES_MAX):
        rows = range(first, min(end, first + PAYEES_MAX))
        yield tuple(Payment(account_address(row), AMOUNT) for row in rows)


def _transaction(genesis: Genesis, nonce: int, payments: tuple[Payment, ...]) -> Transaction:
    action = MultiTransfer(payments)
    body = Body(
        version=TRANSACTION_VERSION,
        chain_id=genesis.chain_id(),
        sender=_FUNDER,
        key_id=_FUNDER,
        nonce=nonce,
        valid_until=0,
        gas_limit=intrinsic_gas(0, action),
        gas_price=1,
        access=(),
        action=action,
    )
    signature = bytes(SCHEME_SIZES[Scheme.ML_DSA_65].signature)
    return Transaction(body, Witness(Scheme.ML_DSA_65, signature, b""))
