"""Snapshots made a few commits after the edge of an epoch, where rounds have begun anew."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
from msgspec.structs import replace

from qnet_actors.ledger import MemoryLog, SnapshotSettings, recover
from qnet_actors.ledger.recovery import is_chain
from qnet_actors.ledger.serving import read_part
from qnet_actors.ledger.writes import CertificateWrite
from qnet_actors.rooms import CatchUp, CaughtUp
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.dag import Commit
from qnet_actors.wire.messages import LedgerBlocks, LedgerRequest, SnapshotPart, SnapshotRequest
from qnet_actors.wire.snapshots import SNAPSHOT_MANIFEST_CODEC, SnapshotManifest
from tests.ledger.epochs import GENESIS, drive_epochs, told
from tests.ledger.rig import Rig

SNAPSHOTS = SnapshotSettings(every_bytes=1, ahead_blocks_min=2)
JOINER = SnapshotSettings(ahead_blocks_min=2)
EPOCH = len(told().hand_offs)
Change = Callable[[SnapshotManifest], SnapshotManifest]


@cache
def source() -> MemoryLog:
    log = MemoryLog(section_accounts_max=2)
    drive_epochs(log, SNAPSHOTS)
    return log


def manifest() -> SnapshotManifest:
    return SNAPSHOT_MANIFEST_CODEC.decode(read_part(source(), SnapshotRequest(0, 0)).data)


def joined(change: Change = lambda manifest: manifest) -> Rig:
    """A validator whose log ends with the epoch before, after it was offered the snapshot."""
    edge = told().hand_offs[-1]
    log = MemoryLog()
    log.write(source()._disk.blocks[: edge.header.height])
    log.write([CertificateWrite(edge.certificate)])
    rig = Rig(GENESIS, log, snapshots=JOINER)
    assert rig.committee.epoch == EPOCH
    rig.handle(CatchUp((1,), manifest().certificate.checkpoint.height))
    while rig.sent:
        message, peers = rig.sent.pop(0)
        assert peers == (1,)
        if isinstance(message, LedgerRequest):
            # Of blocks it has none that would follow.
            rig.receive(1, LedgerBlocks((), None))
        elif message.part:
            rig.receive(1, read_part(source(), message))
        else:
            height = manifest().certificate.checkpoint.height
            rig.receive(1, SnapshotPart(height, 0, encode(change(manifest()))))
    return rig


def linked(commits: list[Commit]) -> tuple[Commit, ...]:
    """The same, each naming the one before it."""
    chain = commits[:1]
    for commit in commits[1:]:
        chain.append(replace(commit, previous=chain[-1].digest()))
    return tuple(chain)


def test_the_snapshot_reaches_over_the_edge():
    commits = manifest().commits
    assert commits[0].epoch == EPOCH - 1
    assert {commit.epoch for commit in commits[1:]} == {EPOCH}
    assert commits[0].leader.round > commits[1].leader.round == 1
    # Less than the depth, so that no round says whether they are enough.
    assert len(commits) < GENESIS.parameters.gc_depth


def test_a_joiner_takes_it_and_starts_anew_from_it():
    rig = joined()
    certificate = manifest().certificate
    assert rig.halted is None
    assert rig.log.first_height() == rig.tip.height == certificate.checkpoint.height
    caught_up = next(e for e in reversed(rig.to_validator) if isinstance(e, CaughtUp))
    assert caught_up.commits == manifest().commits
    again = recover(rig.log.crash(), GENESIS)
    assert again.tip == rig.tip
    assert again.commits == manifest().commits
    assert again.state.root() == certificate.checkpoint.state_root


@pytest.mark.parametrize(
    "change",
    [
        # What an epoch begins with is wanting: consensus would linearise it once more.
        lambda m: replace(m, commits=m.commits[1:]),
        lambda m: replace(m, commits=m.commits[:1] + m.commits[2:]),
        lambda m: replace(m, commits=(m.commits[1], m.commits[0], *m.commits[2:])),
        lambda m: replace(m, commits=(replace(m.commits[0], epoch=EPOCH), *m.commits[1:])),
        lambda m: replace(m, commits=(replace(m.commits[1], epoch=EPOCH - 1), *m.commits[2:])),
    ],
)
def test_a_joiner_refuses_commits_that_are_too_few_or_in_another_order(change):
    rig = joined(change)
    assert rig.log.joining() is None
    assert rig.tip.height == told().hand_offs[-1].header.height


def test_a_start_refuses_another_order():
    log = joined().log
    (kept,) = log._disk.snapshots
    first, second, *rest = kept.commits
    object.__setattr__(kept, "commits", (second, first, *rest))
    with pytest.raises(QnetError, match="resync") as caught:
        recover(log.crash(), GENESIS)
    assert caught.value.code is Code.DATA_CORRUPT


@pytest.mark.parametrize(
    ("places", "follows"),
    [
        ([(0, 7), (0, 9), (1, 1), (1, 2)], True),
        ([(0, 7), (2, 7)], True),
        ([(0, 7), (0, 7)], False),
        ([(1, 9), (1, 8)], False),
        ([(1, 1), (0, 7)], False),
        ([(0, 1), (1, 1), (0, 2)], False),
    ],
)
def test_epochs_and_the_rounds_of_each_go_upward(places, follows):
    given = manifest().commits
    commits = linked(
        [
            replace(
                commit, epoch=epoch, leader=replace(commit.leader, round=round_), timestamp_ms=1
            )
            for commit, (epoch, round_) in zip(given, places, strict=False)
        ]
    )
    checkpoint = replace(
        manifest().certificate.checkpoint,
        commit_index=commits[-1].index,
        commit_digest=commits[-1].digest(),
    )
    assert is_chain(commits, checkpoint) == follows
