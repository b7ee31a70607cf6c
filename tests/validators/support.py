"""Committees, blocks and keys for tests of consensus; the simulator's keyed-hash scheme signs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from qnet_actors.crypto import Signer, development_key, simulator_provider
from qnet_actors.wire.batches import BatchRef
from qnet_actors.wire.committee import Committee, Member
from qnet_actors.wire.dag import (
    DAG_VERSION,
    BlockRef,
    CheckpointVote,
    DagBlock,
    DagHeader,
    genesis_refs,
)
from qnet_actors.wire.genesis import GENESIS_VERSION, Genesis, Parameters
from qnet_actors.wire.hashing import BATCH, hash32
from qnet_actors.wire.schemes import Scheme, dag_context

START_MS: Final = 1_700_000_000_000
PROVIDER: Final = simulator_provider()


class KeyedHashVerifier:
    """What `BatchVerifier` answers, without its pauses for other threads."""

    def verify(
        self,
        public_keys: Sequence[bytes],
        messages: Sequence[bytes],
        signatures: Sequence[bytes],
        context: bytes,
        scheme: Scheme = Scheme.ML_DSA_65,
    ) -> npt.NDArray[np.bool_]:
        verdicts = PROVIDER.verify_many(scheme, public_keys, messages, signatures, context)
        return np.array(verdicts, dtype=np.bool_)


VERIFIER: Final = KeyedHashVerifier()


@lru_cache(maxsize=64)
def signer(index: int) -> Signer:
    return Signer(development_key("validator", index, Scheme.KEYED_HASH, PROVIDER), PROVIDER)


def make_genesis(stakes: Sequence[int] = (1, 1, 1, 1), **parameters: Any) -> Genesis:
    members = tuple(
        Member(Scheme.KEYED_HASH, signer(i).public_key, stake, bytes([i + 1]) * 32)
        for i, stake in enumerate(stakes)
    )
    return Genesis(
        version=GENESIS_VERSION,
        name="test",
        development=True,
        timestamp_ms=START_MS,
        schemes=(Scheme.KEYED_HASH,),
        parameters=Parameters(**parameters),
        members=members,
        accounts=(),
    )


def batch_ref(number: int, shard: int = 0) -> BatchRef:
    return BatchRef(shard, number, hash32(BATCH, bytes([shard]), number.to_bytes(8, "big")))


def sign(header: DagHeader, chain_id: bytes | None = None) -> DagBlock:
    """Without a chain id for the network of `make_genesis()`."""
    digest = DagBlock(header, b"").digest
    context = dag_context(make_genesis().chain_id() if chain_id is None else chain_id)
    return DagBlock(header, signer(header.author).sign(digest, context))


def make_block(
    round_: int,
    author: int,
    ancestors: Sequence[BlockRef],
    *,
    timestamp_ms: int | None = None,
    batches: Sequence[BatchRef] = (),
    votes: Sequence[CheckpointVote] = (),
    epoch: int = 0,
    version: int = DAG_VERSION,
    chain_id: bytes | None = None,
) -> DagBlock:
    """A signed block; its own previous block is moved to the front of the ancestors."""
    first = [ref for ref in ancestors if ref.author == author]
    rest = [ref for ref in ancestors if ref.author != author]
    return sign(
        DagHeader(
            version=version,
            epoch=epoch,
            round=round_,
            author=author,
            timestamp_ms=START_MS + 100 * round_ if timestamp_ms is None else timestamp_ms,
            ancestors=(*first, *rest),
            batches=tuple(batches),
            votes=tuple(votes),
        ),
        chain_id,
    )


def genesis_blocks(genesis: Genesis) -> tuple[BlockRef, ...]:
    committee = genesis.committee()
    return genesis_refs(committee.seed, len(committee))


class RoundRobin(Committee):
    """A committee whose leaders come in turn: validator 0 leads round 1."""

    def leader(self, round_: int) -> int:
        return (round_ - 1) % len(self)


def round_robin(stakes: Sequence[int] = (1, 1, 1, 1)) -> RoundRobin:
    committee = make_genesis(stakes).committee()
    return RoundRobin(committee.members, committee.epoch, committee.seed)
