"""From a journal to the state that a validator goes on from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import structs

from qnet_actors.validators.checks import BlockRules
from qnet_actors.validators.journal import Journalled
from qnet_actors.validators.journal_entries import (
    JOURNAL_VERSION,
    BlockEntry,
    Entry,
    EvidenceEntry,
    PendingCommit,
    RoundMinEntry,
    SnapshotEntry,
)
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.committee import Committee
from qnet_actors.wire.dag import (
    BlockRef,
    Commit,
    DagBlock,
    decode_dag_block,
    genesis_refs,
)
from qnet_actors.wire.evidence import Equivocation
from qnet_actors.wire.genesis import Genesis
from qnet_actors.wire.schemes import Verifier


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a `ValidatorCore` is constructed with."""

    is_new: bool
    """Nothing was ever written: the journal still needs its first snapshot."""
    own: BlockRef
    """The last own block; of round 0 where there is none."""
    round_min: int
    executed_index: int
    commits: tuple[Commit, ...]
    pending: tuple[PendingCommit, ...]
    blocks: tuple[DagBlock, ...]
    """Admitted blocks in order: those of the snapshot, then those since."""
    evidence: tuple[Equivocation, ...]
    torn_bytes: int


def first_snapshot(genesis: Genesis, committee: Committee, own: int) -> SnapshotEntry:
    """What the journal of a validator begins with that has never done anything."""
    return SnapshotEntry(
        version=JOURNAL_VERSION,
        chain_id=genesis.chain_id(),
        epoch=committee.epoch,
        author=own,
        own=genesis_refs(committee.seed, len(committee))[own],
        round_min=0,
        executed_index=0,
        commits=(),
        pending=(),
        evidence=(),
    )


def recover(
    journalled: Journalled,
    genesis: Genesis,
    committee: Committee,
    own: int,
    verifier: Verifier,
    last_commit: Commit | None = None,
) -> Recovered:
    """The state that the journal describes.  Blocks are checked again, signatures included.

    A journal of an earlier epoch has done its work: `last_commit`, the last of the epoch before
    this one, is all that the new one stands on.

    Raises `QnetError`: DATA_CORRUPT where the contents do not hold, WRONG_CHAIN, WRONG_EPOCH or
    CONFIGURATION_INVALID where the journal is another network's, epoch's or validator's.
    """
    snapshot, entries = journalled.snapshot, journalled.entries
    is_new = snapshot is None or snapshot.epoch < committee.epoch
    if snapshot is not None and snapshot.chain_id != genesis.chain_id():
        raise QnetError(Code.WRONG_CHAIN, "the journal is of another network")
    if snapshot is None or is_new:
        snapshot, entries = first_snapshot(genesis, committee, own), ()
        if last_commit is not None:
            snapshot = structs.replace(
                snapshot, commits=(last_commit,), executed_index=last_commit.index
            )
    if snapshot.epoch != committee.epoch:
        raise QnetError(Code.WRONG_EPOCH, f"the journal is of epoch {snapshot.epoch}")
    if snapshot.author != own:
        raise QnetError(
            Code.CONFIGURATION_INVALID, f"the journal is of validator {snapshot.author}, not {own}"
        )
    round_min = snapshot.round_min
    encoded: list[bytes] = []
    evidence = _evidence(snapshot, entries)
    for entry in entries:
        if isinstance(entry, BlockEntry):
            encoded.append(entry.block)
        elif isinstance(entry, RoundMinEntry):
            round_min = max(round_min, entry.round_min)
    rules = BlockRules(committee, verifier, genesis.chain_id())
    blocks = _checked(encoded, rules)
    if len(rules.proven(evidence)) != len(evidence):
        raise QnetError(Code.DATA_CORRUPT, "a journalled proof of an equivocation does not hold")
    return Recovered(
        is_new=is_new,
        own=max((block.ref for block in blocks if block.ref.author == own), default=snapshot.own),
        round_min=round_min,
        executed_index=snapshot.executed_index,
        commits=snapshot.commits,
        pending=snapshot.pending,
        blocks=tuple(blocks),
        evidence=tuple(evidence),
        torn_bytes=journalled.torn_bytes,
    )


def journalled_evidence(journalled: Journalled) -> tuple[int | None, list[Equivocation]]:
    """(epoch, proofs) that a journal holds, unchecked; None: it is new."""
    snapshot = journalled.snapshot
    if snapshot is None:
        return None, []
    return snapshot.epoch, _evidence(snapshot, journalled.entries)


def _evidence(snapshot: SnapshotEntry, entries: Sequence[Entry]) -> list[Equivocation]:
    later = [entry.equivocation for entry in entries if isinstance(entry, EvidenceEntry)]
    return [*snapshot.evidence, *later]


def _checked(encoded: list[bytes], rules: BlockRules) -> list[DagBlock]:
    blocks: list[DagBlock] = []
    try:
        for data in encoded:
            block = decode_dag_block(data)
            rules.check_form(block)
            blocks.append(block)
    except QnetError as error:
        raise QnetError(Code.DATA_CORRUPT, f"a journalled DAG block: {error}") from None
    if not all(rules.verify(blocks)):
        raise QnetError(Code.DATA_CORRUPT, "a journalled DAG block has a bad signature")
    return blocks
