"""Cutting commits into blocks, and putting a block together once it is executed.

Where blocks are cut follows from the commits alone: their timestamps, their number and the bytes of
their batches.  No clock has a part in it, and no block ends inside a commit that a later commit
could still change, so every validator cuts alike, whenever it starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from qnet_actors.ledger.execute import Execute, OpenBatch, execute, payments_of
from qnet_actors.ledger.outcome import LedgerState, Outcome
from qnet_actors.ledger.reference import Terms
from qnet_actors.ledger.registry import ends_epoch
from qnet_actors.ledger.roots import receipts_root, transactions_root
from qnet_actors.ledger.writes import BlockWrite
from qnet_actors.wire.blocks import BLOCK_VERSION, BlockHeader, BlockRecord, Checkpoint, WriteSet
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.committee import Committee
from qnet_actors.wire.dag import GENESIS_COMMIT_DIGEST, Commit
from qnet_actors.wire.genesis import Genesis, Parameters
from qnet_actors.wire.limits import BLOCK_TRANSACTIONS_MAX
from qnet_actors.wire.transactions import RegistryAction

_SECOND_MS: Final = 1_000
# What a transaction adds to a record besides its body: a receipt, two length prefixes, its sender.
_ROW_BYTES: Final = 48 + 80
_WRITE_BYTES: Final = 80
# An action on the validators writes a key in pieces of 32 bytes, and a few accounts besides.
_REGISTRY_WRITES: Final = 100
# It also takes as long as so many transfers: two signatures to check, a key to write.
_REGISTRY_ROWS: Final = 32


@dataclass(frozen=True, slots=True)
class Tip:
    """The last block, as far as the next one depends on it."""

    height: int
    block_hash: bytes
    timestamp_ms: int
    commit_index: int
    commit_digest: bytes
    parts: int = 0
    """How many blocks up to it hold only a part of the commit after `commit_index`."""


def genesis_tip(genesis: Genesis) -> Tip:
    """The tip before the first block."""
    return Tip(0, genesis.chain_id(), genesis.timestamp_ms, 0, GENESIS_COMMIT_DIGEST)


def next_tip(tip: Tip, record: BlockRecord) -> Tip:
    """The tip after the block that follows `tip`."""
    header = record.header
    return Tip(
        header.height,
        header.hash(),
        header.timestamp_ms,
        header.commit_index,
        header.commit_digest,
        parts=0 if record.commits else tip.parts + 1,
    )


def is_checkpoint(previous_ms: int, timestamp_ms: int) -> bool:
    """Whether a block is a checkpoint: the first of its second, by commit timestamps."""
    return timestamp_ms // _SECOND_MS > previous_ms // _SECOND_MS


def has_checkpoint(tip: Tip, header: BlockHeader, written: WriteSet) -> bool:
    """Whether the block after `tip` carries a checkpoint: it is one, or the last of its epoch."""
    is_last = ends_epoch(header.epoch, written)
    return is_last or is_checkpoint(tip.timestamp_ms, header.timestamp_ms)


class Weight(NamedTuple):
    """What limits a block; bounds that follow from the batches' bytes, before execution."""

    transactions: int
    """An action on the validators counts as 32."""
    size_bytes: int
    """At most what the block's record takes, the write set included."""
    gas: int

    def plus(self, other: Weight) -> Weight:
        return Weight(
            self.transactions + other.transactions,
            self.size_bytes + other.size_bytes,
            self.gas + other.gas,
        )


NO_WEIGHT: Final = Weight(0, 0, 0)


def weight_of(batch: OpenBatch) -> Weight:
    """The weight of a batch; gas is the intrinsic gas, which is what native actions use."""
    expanded = batch.expanded
    payees = batch.count - len(expanded.payloads)
    rows = batch.count
    for payload in expanded.payloads.values():
        payees += len(payments_of(payload.action))
        if isinstance(payload.action, RegistryAction):
            payees += _REGISTRY_WRITES
            rows += _REGISTRY_ROWS - 1
    size = int(expanded.body_offsets[-1]) + _ROW_BYTES * batch.count
    return Weight(rows, size + _WRITE_BYTES * (payees + 1), int(expanded.gas.sum()))


@dataclass(frozen=True, slots=True)
class OpenCommit:
    """A commit whose batches are at hand."""

    commit: Commit
    digest: bytes
    size_bytes: int
    batches: tuple[OpenBatch, ...]
    weights: tuple[Weight, ...]
    """One a batch."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A block that is cut and not executed yet."""

    commits: tuple[Commit, ...]
    """Empty where the block holds only a part of a commit, and not the last part."""
    commit_index: int
    commit_digest: bytes
    timestamp_ms: int
    epoch: int
    batches: tuple[OpenBatch, ...]


class Cutter:
    """Collects commits and cuts blocks from them.

    A block ends with the first commit

    - that brings transactions, or follows commits that did, and whose timestamp is
      `block_interval_ms` or more after the last block's;
    - that enters a new second, where no commit since the last block brought any transactions;
    - that makes the commits since the last block half of `commit_lag`: consensus waits for
      execution after that many more;
    - before one with which the block would pass a limit of size, transactions or gas.

    The last commit of an epoch, `epoch_end`, ends a block whatever else holds.

    A commit that passes a limit by itself is cut between batches into several blocks.  All but the
    last name no commit and bear the timestamp of the block before, so they are no checkpoints.  A
    tip among them says how many there are, and the cutting goes on behind those.
    """

    def __init__(self, parameters: Parameters, tip: Tip) -> None:
        self._parameters = parameters
        self._commits_max = max(1, parameters.commit_lag // 2)
        self._tip = tip
        self._parts_done = tip.parts
        self._pending: list[OpenCommit] = []
        self._weight = NO_WEIGHT
        self.epoch_end = 0
        """The last commit of the epoch; 0: not known yet."""

    @property
    def pending(self) -> int:
        """How many commits wait for the end of their block."""
        return len(self._pending)

    def add(self, commit: OpenCommit) -> list[Draft]:
        """Takes the next commit; returns the blocks that end before or with it.

        Raises `QnetError(DATA_CORRUPT)` where the tip's parts are not of this commit.
        """
        weight = _total(commit.weights, commit.size_bytes)
        drafts = []
        if self._pending and not self._fits(self._weight.plus(weight)):
            drafts.append(self._cut())
        if not self._fits(weight) and len(commit.batches) > 1:
            return [*drafts, *self._split(commit)]
        self._check_parts(0)
        self._pending.append(commit)
        self._weight = self._weight.plus(weight)
        if commit.commit.index == self.epoch_end or self._is_due(commit.commit.timestamp_ms):
            drafts.append(self._cut())
        return drafts

    def _fits(self, weight: Weight) -> bool:
        return (
            weight.transactions <= BLOCK_TRANSACTIONS_MAX
            and weight.size_bytes <= self._parameters.block_size_bytes_max
            and weight.gas <= self._parameters.block_gas_max
        )

    def _is_due(self, timestamp_ms: int) -> bool:
        if len(self._pending) >= self._commits_max:
            return True
        last_ms = self._tip.timestamp_ms
        if self._weight.transactions:
            return timestamp_ms - last_ms >= self._parameters.block_interval_ms
        return is_checkpoint(last_ms, timestamp_ms)

    def _cut(self) -> Draft:
        pending, self._pending = self._pending, []
        self._weight = NO_WEIGHT
        last = pending[-1]
        draft = Draft(
            commits=tuple(commit.commit for commit in pending),
            commit_index=last.commit.index,
            commit_digest=last.digest,
            timestamp_ms=last.commit.timestamp_ms,
            epoch=last.commit.epoch,
            batches=tuple(batch for commit in pending for batch in commit.batches),
        )
        # Height and hash are known after execution only, and cutting does not ask for them.
        self._tip = replace(
            self._tip,
            timestamp_ms=draft.timestamp_ms,
            commit_index=draft.commit_index,
            commit_digest=draft.commit_digest,
        )
        return draft

    def _split(self, commit: OpenCommit) -> list[Draft]:
        """One commit as several blocks, of as many whole batches each as fit, at least one."""
        parts: list[list[OpenBatch]] = [[]]
        weight = start = Weight(0, commit.size_bytes, 0)
        for batch, one in zip(commit.batches, commit.weights, strict=True):
            weight = weight.plus(one)
            if parts[-1] and not self._fits(weight):
                parts.append([])
                weight = start.plus(one)
            parts[-1].append(batch)
        drafts = [
            Draft(
                commits=(),
                commit_index=self._tip.commit_index,
                commit_digest=self._tip.commit_digest,
                timestamp_ms=self._tip.timestamp_ms,
                epoch=commit.commit.epoch,
                batches=tuple(part),
            )
            for part in parts[:-1]
        ]
        done = self._check_parts(len(drafts))
        self._pending = [replace(commit, batches=tuple(parts[-1]))]
        return [*drafts[done:], self._cut()]

    def _check_parts(self, parts: int) -> int:
        """How many of a commit's first parts were executed before the start."""
        done, self._parts_done = self._parts_done, 0
        if done > parts:
            raise QnetError(Code.DATA_CORRUPT, f"{done} parts of a commit that has {parts}")
        return done


@dataclass(frozen=True, slots=True)
class Identity:
    """What every block and checkpoint of an epoch repeats."""

    chain_id: bytes
    committee: bytes
    """The committee's digest."""
    epoch: int = 0


def identity_of(genesis: Genesis, committee: Committee) -> Identity:
    return Identity(genesis.chain_id(), committee.digest, committee.epoch)


def build_header(identity: Identity, tip: Tip, draft: Draft, outcome: Outcome) -> BlockHeader:
    """The header of the block after `tip`."""
    return BlockHeader(
        version=BLOCK_VERSION,
        chain_id=identity.chain_id,
        epoch=draft.epoch,
        height=tip.height + 1,
        parent=tip.block_hash,
        commit_index=draft.commit_index,
        commit_digest=draft.commit_digest,
        timestamp_ms=draft.timestamp_ms,
        transactions_root=transactions_root(outcome.ids),
        receipts_root=receipts_root(outcome.receipts),
        write_set_digest=outcome.write_set.digest(),
        transaction_count=len(outcome.ids),
        failed_count=outcome.failed_count,
        gas_used=outcome.gas_used,
    )


def build_record(
    header: BlockHeader, draft: Draft, outcome: Outcome, checkpoint: Checkpoint | None
) -> BlockRecord:
    """The record of an executed block."""
    return BlockRecord(
        header=header,
        commits=draft.commits,
        bodies=tuple(outcome.bodies),
        receipts=tuple(outcome.receipts),
        write_set=outcome.write_set,
        checkpoint=checkpoint,
    )


def build_checkpoint(identity: Identity, header: BlockHeader, state_root: bytes) -> Checkpoint:
    """What validators vote for where `header` is a checkpoint's."""
    return Checkpoint(
        chain_id=identity.chain_id,
        height=header.height,
        block_hash=header.hash(),
        state_root=state_root,
        commit_index=header.commit_index,
        commit_digest=header.commit_digest,
        committee=identity.committee,
        epoch=header.epoch,
        version=BLOCK_VERSION,
    )


def _total(weights: Sequence[Weight], size_bytes: int) -> Weight:
    total = Weight(0, size_bytes, 0)
    for weight in weights:
        total = total.plus(weight)
    return total


@dataclass(frozen=True, slots=True)
class BuiltBlock:
    """An executed block, ready to be made durable."""

    write: BlockWrite
    batches: tuple[bytes, ...]
    excluded: tuple[bytes, ...]


def make_block(
    identity: Identity,
    committee: Committee,
    tip: Tip,
    draft: Draft,
    state: LedgerState,
    run: Execute = execute,
    terms: Terms | None = None,
) -> tuple[BuiltBlock, Tip]:
    """Executes a draft on `state`, which then stands at the new height; CPU work.

    `terms` without the commit, which is the draft's last one.
    """
    rewards = [committee.members[batch.author].reward for batch in draft.batches]
    if terms is not None:
        terms = replace(terms, commit=draft.commits[-1] if draft.commits else None)
    outcome = run(tip.height + 1, draft.batches, rewards, state, terms)
    header = build_header(identity, tip, draft, outcome)
    state.apply(header.height, outcome.write_set)
    checkpoint = None
    if has_checkpoint(tip, header, outcome.write_set):
        checkpoint = build_checkpoint(identity, header, state.root())
    record = build_record(header, draft, outcome, checkpoint)
    block = BuiltBlock(
        BlockWrite(record, header.hash(), encode(record)),
        batches=tuple(batch.digest for batch in draft.batches),
        excluded=tuple(outcome.excluded),
    )
    return block, next_tip(tip, record)
