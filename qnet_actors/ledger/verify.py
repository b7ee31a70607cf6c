"""Holds what a peer says it executed to a checkpoint certificate.

A certificate names a block hash; every header names its parent, its commits and the digests of what
it holds.  So one certificate proves all the blocks before it, and no transaction signature is
checked again: a quorum that signed has checked them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qnet_actors import light
from qnet_actors.ledger.blocks import (
    Identity,
    Tip,
    build_checkpoint,
    has_checkpoint,
    next_tip,
)
from qnet_actors.ledger.roots import receipts_root, transactions_root
from qnet_actors.state import write_set_columns
from qnet_actors.wire.blocks import (
    BLOCK_RECORD_CODEC,
    BLOCK_VERSION,
    BlockHeader,
    BlockRecord,
    Certificate,
)
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.committee import Committee
from qnet_actors.wire.dag import Commit
from qnet_actors.wire.schemes import Verifier
from qnet_actors.wire.transactions import transaction_id


@dataclass(frozen=True, slots=True)
class CheckedRecord:
    """A record that follows the one before in every respect that its own bytes can show."""

    record: BlockRecord
    encoded: bytes
    tip: Tip


def check_records(identity: Identity, tip: Tip, records: Sequence[bytes]) -> list[CheckedRecord]:
    """The records as blocks that follow `tip`.

    Raises `QnetError` where one does not decode or does not follow; that is the peer's fault.
    """
    checked: list[CheckedRecord] = []
    for data in records:
        record = BLOCK_RECORD_CODEC.decode(data)
        check_record(identity, tip, record)
        tip = next_tip(tip, record)
        checked.append(CheckedRecord(record, bytes(data), tip))
    return checked


def check_record(identity: Identity, tip: Tip, record: BlockRecord) -> None:
    """Raises `QnetError(DATA_CORRUPT)` unless `record` is whole and follows `tip`."""
    header = record.header
    _require(header.version == BLOCK_VERSION, "version")
    _require(header.chain_id == identity.chain_id, "chain id")
    _require(header.epoch == identity.epoch, "epoch")
    _require(header.height == tip.height + 1, "height")
    _require(header.parent == tip.block_hash, "parent")
    _check_commits(tip, header, record.commits)
    check_contents(record)
    made = has_checkpoint(tip, header, record.write_set)
    _require((record.checkpoint is not None) == made, "checkpoint")
    if record.checkpoint is not None:
        expected = build_checkpoint(identity, header, record.checkpoint.state_root)
        _require(record.checkpoint == expected, "checkpoint")


def check_contents(record: BlockRecord) -> None:
    """Raises `QnetError(DATA_CORRUPT)` unless `record` holds what its header names."""
    header = record.header
    counts = {len(record.bodies), len(record.receipts)}
    _require(counts == {header.transaction_count}, "transaction count")
    ids = [transaction_id(body) for body in record.bodies]
    _require(transactions_root(ids) == header.transactions_root, "transactions root")
    _require(receipts_root(record.receipts) == header.receipts_root, "receipts root")
    _require(record.write_set.digest() == header.write_set_digest, "write set digest")
    write_set_columns(record.write_set)


def _check_commits(tip: Tip, header: BlockHeader, commits: Sequence[Commit]) -> None:
    """A block without commits is a part of the commit after the tip, and stands at the tip."""
    index, digest, timestamp_ms = tip.commit_index, tip.commit_digest, tip.timestamp_ms
    for commit in commits:
        _require(commit.epoch == header.epoch, "commit epoch")
        _require(commit.index == index + 1 and commit.previous == digest, "commit chain")
        _require(commit.timestamp_ms >= timestamp_ms, "commit timestamp")
        index, digest, timestamp_ms = commit.index, commit.digest(), commit.timestamp_ms
    found = (header.commit_index, header.commit_digest, header.timestamp_ms)
    _require(found == (index, digest, timestamp_ms), "last commit")


def check_certificate(
    identity: Identity, committee: Committee, certificate: Certificate, verifier: Verifier
) -> None:
    """Raises `QnetError(BAD_CERTIFICATE)` unless a quorum of `committee` signed; CPU work."""
    light.check_certificate(identity.chain_id, committee, certificate, verifier)


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise QnetError(Code.DATA_CORRUPT, f"a block record's {what} does not fit")
