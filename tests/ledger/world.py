"""Small networks, transactions, batches and commits for tests; no signature here is checked."""

from __future__ import annotations

from collections.abc import Sequence

from qnet_actors.wire.batches import Batch, BatchRef, build_batch
from qnet_actors.wire.codec import encode
from qnet_actors.wire.committee import Member
from qnet_actors.wire.dag import GENESIS_COMMIT_DIGEST, BlockRef, Commit
from qnet_actors.wire.genesis import Genesis, GenesisAccount, Parameters
from qnet_actors.wire.hashing import DAG_BLOCK, hash32
from qnet_actors.wire.schemes import Scheme
from qnet_actors.wire.transactions import (
    Access,
    Action,
    Body,
    Transaction,
    Transfer,
    Witness,
    intrinsic_gas,
)

GENESIS_MS = 1_700_000_000_000


def address(n: int) -> bytes:
    """The address of test account `n`; also the key id of its first key."""
    return (n + 1).to_bytes(2, "big") * 16


def reward(author: int) -> bytes:
    return b"\xee" * 31 + bytes((author,))


def a_genesis(
    *,
    balances: dict[bytes, int] | None = None,
    validators: int = 4,
    parameters: Parameters | None = None,
    public_keys: Sequence[bytes] | None = None,
) -> Genesis:
    keys = public_keys or [bytes((i + 1,)) * 32 for i in range(validators)]
    return Genesis(
        version=1,
        name="test",
        development=True,
        timestamp_ms=GENESIS_MS,
        schemes=(Scheme.KEYED_HASH,),
        parameters=parameters or Parameters(),
        members=tuple(Member(Scheme.KEYED_HASH, key, 1, reward(i)) for i, key in enumerate(keys)),
        accounts=tuple(GenesisAccount(a, b) for a, b in (balances or {}).items()),
    )


def a_transaction(
    genesis: Genesis,
    sender: int,
    nonce: int,
    action: Action | None = None,
    *,
    key_id: bytes | None = None,
    gas_price: int = 1,
    valid_until: int = 0,
    access: tuple[Access, ...] = (),
    chain_id: bytes | None = None,
) -> Transaction:
    act = action or Transfer(address(sender + 1), 1)
    body = Body(
        version=1,
        chain_id=chain_id or genesis.chain_id(),
        sender=address(sender),
        key_id=key_id or address(sender),
        nonce=nonce,
        valid_until=valid_until,
        gas_limit=intrinsic_gas(len(access), act),
        gas_price=gas_price,
        access=access,
        action=act,
    )
    return Transaction(body, Witness(Scheme.KEYED_HASH, bytes(32), b""))


def a_batch(transactions: Sequence[Transaction], author: int = 0, sequence: int = 1) -> Batch:
    return build_batch(
        transactions,
        chain_id=transactions[0].body.chain_id,
        epoch=0,
        author=author,
        shard=0,
        sequence=sequence,
    )


class Commits:
    """A chain of commits, one a call, with made-up DAG blocks; rounds begin anew with an epoch."""

    def __init__(self) -> None:
        self.epoch = 0
        self.index = 0
        self.round = 0
        self._epoch_of_round = 0
        self.previous = GENESIS_COMMIT_DIGEST

    def next(self, timestamp_ms: int, batches: Sequence[Batch] = ()) -> Commit:
        self.index += 1
        self.round = self.round + 1 if self.epoch == self._epoch_of_round else 1
        self._epoch_of_round = self.epoch
        seed = encode((self.index, timestamp_ms, [batch.digest for batch in batches]))
        leader = BlockRef(self.round, self.index % 4, hash32(DAG_BLOCK, seed))
        commit = Commit(self.epoch, self.index, self.previous, timestamp_ms, leader, (leader,))
        self.previous = commit.digest()
        return commit


def refs(batches: Sequence[Batch]) -> tuple[tuple[int, BatchRef], ...]:
    """(author, ref) of batches, as `CommitReady` names them."""
    return tuple((batch.header.author, batch.ref) for batch in batches)
