"""Joining from a snapshot: what is certified is taken, liars cost a check, a kill costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from qnet_actors.ledger import BlockLog, DuckLog, LogOptions, MemoryLog, SnapshotSettings, recover
from qnet_actors.ledger.joining import PART_TIMEOUT_MS_MAX, PARTS_AT_ONCE_MAX
from qnet_actors.ledger.serving import SERVED_BYTES_PER_SECOND, read_part
from qnet_actors.rooms import (
    BlockExecuted,
    CatchUp,
    CaughtUp,
    CheckpointCertified,
    CommitsExecuted,
    Joined,
    JoinProgress,
    Room,
    ToRoom,
)
from qnet_actors.wire.blocks import BLOCK_RECORD_CODEC, Certificate
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.messages import (
    LedgerBlocks,
    LedgerRequest,
    Message,
    SnapshotPart,
    SnapshotRequest,
)
from qnet_actors.wire.snapshots import SNAPSHOT_MANIFEST_CODEC, SnapshotManifest
from tests.ledger.chain import blocks, certificates, chain_genesis, drive
from tests.ledger.rig import Rig, certify

GENESIS = chain_genesis()
SETTINGS = SnapshotSettings(every_bytes=1, ahead_blocks_min=6)
# Of a joiner: it makes none by itself.
JOINER = SnapshotSettings(ahead_blocks_min=6)
SECTION_ACCOUNTS = 2
OPTIONS = LogOptions(
    fsync=False, memory_limit_mb=128, segment_size_bytes=4_000, section_accounts_max=2
)


def newest() -> Certificate:
    return certificates()[-1]


def source(count: int = 24, certified: tuple[Certificate, ...] = certificates()) -> MemoryLog:
    """A validator's log with snapshots of several sections, all certified."""
    rig = Rig(GENESIS, MemoryLog(section_accounts_max=SECTION_ACCOUNTS), snapshots=SETTINGS)
    drive(rig, count)
    for certificate in certified:
        if certificate.checkpoint.height <= count:
            rig.handle(CheckpointCertified(certificate))
    return rig.log


def wake(rig: Rig) -> None:
    """Lets the time pass until the core wants to be woken."""
    wake_ms = rig.core.wake_ms()
    assert wake_ms is not None
    rig.at(wake_ms)


def joiner(log: BlockLog | None = None) -> Rig:
    rig = Rig(GENESIS, log, snapshots=JOINER)  # type: ignore[arg-type]
    rig.handle(CatchUp((1, 2, 3), newest().checkpoint.height))
    return rig


Lie = Callable[[Message], Message]


def answer(rig: Rig, log: MemoryLog, peer: int, message: Message) -> Message:
    server = Rig(GENESIS, log)
    server.receive(9, message)
    reply, _ = server.sent.pop()
    assert isinstance(reply, LedgerBlocks | SnapshotPart)
    return reply


def serve(
    rig: Rig,
    log: MemoryLog,
    *,
    lies: dict[int, Lie] | None = None,
    requests_max: int = 10**6,
) -> list[tuple[int, Message]]:
    """Answers what the rig asks, until it asks no more; returns who was asked for what."""
    asked: list[tuple[int, Message]] = []
    while rig.sent and len(asked) < requests_max:
        message, peers = rig.sent.pop(0)
        assert peers is not None
        (peer,) = peers
        asked.append((peer, message))
        reply = answer(rig, log, peer, message)
        lie = (lies or {}).get(peer)
        rig.receive(peer, reply if lie is None else lie(reply))
    return asked


def assert_joined(rig: Rig, certificate: Certificate) -> None:
    checkpoint = certificate.checkpoint
    assert rig.halted is None
    assert rig.tip.height == checkpoint.height
    assert rig.tip.block_hash == checkpoint.block_hash
    assert rig.core._state.root() == checkpoint.state_root
    assert rig.core.final_height == checkpoint.height
    assert rig.log.first_height() == rig.log.last_height() == checkpoint.height
    assert rig.log.newest_certificate() == certificate
    assert rig.log.joining() is None
    caught_up = rig.to_validator[-1]
    assert isinstance(caught_up, CaughtUp)
    assert caught_up.certificate == certificate
    assert caught_up.commits[-1].digest() == checkpoint.commit_digest
    assert not rig.core.catching_up
    (joined,) = [e for e in rig.to_gateway if isinstance(e, Joined)]
    assert joined.block_hash == checkpoint.block_hash


@pytest.fixture(params=["memory", "disk"])
def make_log(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A log, and the log of its next life."""
    if request.param == "memory":
        kept = [MemoryLog()]

        def memory() -> BlockLog:
            kept[0] = kept[0].crash()
            return kept[0]

        yield memory
        return
    opened: list[DuckLog] = []

    def disk() -> BlockLog:
        if opened:
            opened.pop().close()
        opened.append(DuckLog(tmp_path / "ledger", GENESIS.chain_id(), OPTIONS))
        return opened[0]

    yield disk
    opened[0].close()


def test_an_empty_validator_joins_from_several_peers_and_goes_on(make_log):
    rig = joiner(make_log())
    asked = serve(rig, source())
    assert_joined(rig, newest())
    parts = [(peer, m.part) for peer, m in asked if isinstance(m, SnapshotRequest)]
    assert parts[0] == (1, 0)
    count = len(parts) - 1
    assert count >= 4
    assert sorted(part for _, part in parts[1:]) == list(range(1, count + 1))
    assert {peer for peer, _ in parts} == {1, 2, 3}
    assert CommitsExecuted(rig.tip.commit_index) in rig.to_validator
    progress = [e for e in rig.to_gateway if isinstance(e, JoinProgress)]
    assert [p.parts for p in progress] == list(range(count + 1))
    assert {(p.height, p.parts_total) for p in progress} == {(rig.tip.height, count)}
    # Nothing that was executed before is here, and nothing was told of it.
    assert [e for e in rig.to_gateway if isinstance(e, BlockExecuted)] == []
    assert rig.log.records(rig.tip.height - 1, 1, 10**9) == []
    # Blocks are executed on it, and the next life starts from it.
    whole = Rig(GENESIS)
    chain = drive(whole, rig.tip.height)
    rig.batches.update(whole.batches)
    longer = Rig(GENESIS)
    drive(longer, 30)
    drive(rig, 30 - rig.tip.height, chain)
    assert rig.tip == longer.tip
    again = Rig(GENESIS, make_log())
    assert again.tip == longer.tip
    assert again.log.first_height() == newest().checkpoint.height
    assert again.log.height_of(newest().checkpoint.block_hash) == newest().checkpoint.height


def test_few_blocks_are_taken_one_after_the_other():
    rig = Rig(GENESIS, snapshots=JOINER)
    rig.handle(CatchUp((1, 2), 5))
    asked = serve(rig, source(5))
    assert all(isinstance(message, LedgerRequest) for _, message in asked)
    assert rig.log.first_height() == 1


def test_where_nobody_has_a_snapshot_blocks_are_taken():
    plain = Rig(GENESIS)
    drive(plain, 24)
    for certificate in certificates():
        plain.handle(CheckpointCertified(certificate))
    rig = joiner()
    serve(rig, plain.log)
    assert (rig.log.first_height(), rig.tip.height) == (1, newest().checkpoint.height)
    assert isinstance(rig.to_validator[-1], CaughtUp)


def test_a_validator_whose_blocks_nobody_has_joins_although_it_is_not_far_behind():
    first = joiner()
    serve(first, source())
    rig = Rig(GENESIS, snapshots=SnapshotSettings())
    rig.handle(CatchUp((1, 2), newest().checkpoint.height))
    serve(rig, first.log)
    assert_joined(rig, newest())


def test_an_uncertified_snapshot_is_not_served():
    older = certificates()[-3]
    rig = joiner()
    serve(rig, source(24, certificates()[:-2]))
    assert rig.log.first_height() == 1 or rig.tip.height == older.checkpoint.height
    request = SnapshotRequest(newest().checkpoint.height, 0)
    assert read_part(source(24, certificates()[:-1]), request).data == b""


@pytest.mark.parametrize("before", range(1, 9))
def test_a_joiner_that_dies_goes_on_with_what_it_has(make_log, before):
    rig = joiner(make_log())
    log = source()
    asked = serve(rig, log, requests_max=before)
    kept = rig.log.joining()
    parts = kept.parts if kept is not None else frozenset()
    assert len(parts) == max(0, before - 1) or rig.tip.height
    rig = Rig(GENESIS, make_log(), snapshots=JOINER)
    if not rig.tip.height:
        rig.handle(CatchUp((1, 2, 3), newest().checkpoint.height))
        again = serve(rig, log)
        fetched = {m.part for _, m in again if isinstance(m, SnapshotRequest)}
        assert not fetched & parts
        assert bool(kept) != (0 in fetched)
        assert_joined(rig, newest())
    assert len(asked) == before
    assert rig.core._state.root() == newest().checkpoint.state_root


def test_what_is_kept_of_a_snapshot_that_is_gone_is_given_up(make_log):
    rig = joiner(make_log())
    serve(rig, source(18), requests_max=3)
    assert rig.log.joining() is not None
    rig = joiner(make_log())
    serve(rig, source())
    assert_joined(rig, newest())


def manifest_lies() -> dict[str, Lie]:
    def changed(change: Callable[[SnapshotManifest], SnapshotManifest]) -> Lie:
        def lie(message: Message) -> Message:
            if not isinstance(message, SnapshotPart) or message.part:
                return message
            manifest = change(SNAPSHOT_MANIFEST_CODEC.decode(message.data))
            return replace(message, data=encode(manifest))

        return lie

    def record(**changes: Any) -> Lie:
        def change(manifest: SnapshotManifest) -> SnapshotManifest:
            decoded = BLOCK_RECORD_CODEC.decode(manifest.record)
            return replace(manifest, record=encode(replace(decoded, **changes)))

        return changed(change)

    def root(manifest: SnapshotManifest) -> SnapshotManifest:
        """Signed by nobody."""
        checkpoint = replace(manifest.certificate.checkpoint, state_root=bytes(32))
        return replace(manifest, certificate=replace(manifest.certificate, checkpoint=checkpoint))

    def two_signatures(manifest: SnapshotManifest) -> SnapshotManifest:
        votes = manifest.certificate.votes[:2]
        return replace(manifest, certificate=replace(manifest.certificate, votes=votes))

    def section(manifest: SnapshotManifest) -> SnapshotManifest:
        first, *rest = manifest.sections
        return replace(manifest, sections=(replace(first, hash=b"\x01" * 32), *rest))

    def junk(message: Message) -> Message:
        return replace(message, data=b"junk") if isinstance(message, SnapshotPart) else message

    def other_commit(manifest: SnapshotManifest) -> SnapshotManifest:
        *rest, last = manifest.commits
        return replace(manifest, commits=(*rest, replace(last, timestamp_ms=last.timestamp_ms + 1)))

    return {
        "junk": junk,
        "root": changed(root),
        "two signatures": changed(two_signatures),
        "section": changed(section),
        "fewer sections": changed(lambda m: replace(m, sections=m.sections[:-1])),
        "no commits": changed(lambda m: replace(m, commits=())),
        "other commits": changed(other_commit),
        "gap in commits": changed(lambda m: replace(m, commits=m.commits[:-2] + m.commits[-1:])),
        "other record": record(receipts=()),
        "no checkpoint": record(checkpoint=None),
    }


@pytest.mark.parametrize("name", sorted(manifest_lies()))
def test_a_lie_in_the_manifest_costs_the_liar_its_turn(name):
    rig = joiner()
    asked = serve(rig, source(), lies={1: manifest_lies()[name]})
    assert asked[:2] == [(1, SnapshotRequest(0, 0)), (2, SnapshotRequest(0, 0))]
    assert 1 not in {peer for peer, m in asked[1:] if isinstance(m, SnapshotRequest)}
    assert_joined(rig, newest())


def test_too_few_commits_are_no_manifest():
    """Without those above gc_round a joiner would linearise otherwise than the rest."""
    parameters = replace(GENESIS.parameters, gc_depth=8)
    genesis = replace(GENESIS, parameters=parameters)
    rig = Rig(genesis, MemoryLog(section_accounts_max=2), snapshots=SETTINGS)
    drive(rig, 24)
    checkpoint = rig.core._checkpoint
    assert checkpoint is not None
    rig.handle(CheckpointCertified(certify(genesis, checkpoint, [0, 1, 2])))
    data = read_part(rig.log, SnapshotRequest(0, 0)).data
    manifest = SNAPSHOT_MANIFEST_CODEC.decode(data)
    needed = [c for c in manifest.commits if c.leader.round > manifest.commits[-1].leader.round - 8]
    for kept, good in ((len(needed), True), (len(needed) - 1, False)):
        cut = replace(manifest, commits=manifest.commits[-kept:])
        other = Rig(genesis, snapshots=JOINER)
        other.handle(CatchUp((1,), checkpoint.height))
        other.sent.clear()
        other.receive(1, SnapshotPart(checkpoint.height, 0, encode(cut)))
        assert (other.log.joining() is not None) == good


def test_a_lie_in_a_section_costs_the_liar_its_turn():
    def lie(message: Message) -> Message:
        if isinstance(message, SnapshotPart) and message.part:
            data = bytearray(message.data)
            data[40] ^= 1
            return replace(message, data=bytes(data))
        return message

    rig = joiner()
    asked = serve(rig, source(), lies={2: lie})
    lied = [m for peer, m in asked if peer == 2 and isinstance(m, SnapshotRequest)]
    assert len(lied) == 1
    assert [m for _, m in asked].count(lied[0]) == 2
    assert_joined(rig, newest())


@pytest.mark.parametrize("liars", [(1,), (1, 2)])
def test_whoever_gives_a_manifest_and_no_parts_is_asked_last(liars):
    """The liar always has a newer checkpoint, which nobody else serves."""
    true, newer = source(18), source()
    rig = joiner()
    steps = 0
    while rig.tip.height == 0:
        steps += 1
        assert steps < 200
        if not rig.sent:
            wake(rig)
            continue
        message, peers = rig.sent.pop(0)
        assert peers is not None
        if peers[0] not in liars:
            rig.receive(peers[0], answer(rig, true, peers[0], message))
        elif message == SnapshotRequest(0, 0):
            rig.receive(peers[0], answer(rig, newer, peers[0], message))
    assert rig.log.first_height() > 1
    assert rig.tip.height == true.snapshot_heights()[0]
    assert rig.now_ms <= 2 * len(liars) * PART_TIMEOUT_MS_MAX


def test_other_sections_of_a_true_root_cost_one_run():
    """Honest parts do not hold under such a manifest, so honest peers look like liars."""
    other = Rig(GENESIS, MemoryLog(section_accounts_max=100), snapshots=SETTINGS)
    drive(other, 24)
    for certificate in certificates():
        other.handle(CheckpointCertified(certificate))
    rig = joiner()
    log = source()
    while rig.sent:
        message, peers = rig.sent.pop(0)
        assert peers is not None
        given = other.log if message == SnapshotRequest(0, 0) and peers == (1,) else log
        if peers != (1,) or given is other.log:
            rig.receive(peers[0], answer(rig, given, peers[0], message))
        if not rig.sent and not rig.tip.height:
            wake(rig)
    height = newest().checkpoint.height
    assert (rig.log.first_height(), rig.tip.height) == (height, height)


def test_after_enough_runs_blocks_are_taken():
    """Every peer gives a manifest, and nobody a part."""
    log = source()
    rig = joiner()
    for _ in range(300):
        if rig.tip.height:
            break
        if not rig.sent:
            wake(rig)
            continue
        message, peers = rig.sent.pop(0)
        assert peers is not None
        if not isinstance(message, SnapshotRequest) or message.part == 0:
            rig.receive(peers[0], answer(rig, log, peers[0], message))
    assert rig.log.first_height() == 1
    assert rig.tip.height == newest().checkpoint.height


def test_a_slow_link_is_given_time_and_what_came_is_kept():
    """All parts under way share a link that carries one in 7 s."""
    log = source()
    rig = joiner()
    asked: list[int] = []
    free_ms = 0
    coming: list[tuple[int, int, Message]] = []
    while not rig.tip.height:
        assert rig.now_ms < 600_000
        while rig.sent:
            message, peers = rig.sent.pop(0)
            assert peers is not None
            if isinstance(message, SnapshotRequest) and message.part:
                asked.append(message.part)
                free_ms = max(free_ms, rig.now_ms) + 7_000
                coming.append((free_ms, peers[0], message))
            else:
                rig.receive(peers[0], answer(rig, log, peers[0], message))
        wake_ms = rig.core.wake_ms()
        due = [wake_ms, *(at for at, _, _ in coming[:1])]
        rig.at(max(rig.now_ms, min(at for at in due if at is not None)))
        if coming and coming[0][0] <= rig.now_ms:
            _, peer, message = coming.pop(0)
            rig.receive(peer, answer(rig, log, peer, message))
    joined = [e for e in rig.to_gateway if isinstance(e, JoinProgress)]
    assert [p.parts for p in joined] == sorted(p.parts for p in joined)
    assert rig.tip.height == newest().checkpoint.height
    assert rig.log.first_height() == newest().checkpoint.height


def test_silence_passes_the_turn_on_and_late_answers_are_ignored():
    rig = joiner()
    log = source()
    message, _ = rig.sent.pop()
    late = answer(rig, log, 1, message)
    wake(rig)
    assert rig.sent == [(SnapshotRequest(0, 0), (2,))]
    rig.receive(1, late)
    assert rig.log.joining() is None
    serve(rig, log)
    assert_joined(rig, newest())


def test_parts_that_nobody_asked_for_are_ignored():
    rig = joiner()
    log = source()
    height = newest().checkpoint.height
    rig.receive(2, read_part(log, SnapshotRequest(0, 0)))
    rig.receive(1, read_part(log, SnapshotRequest(height, 1)))
    assert rig.log.joining() is None
    idle = Rig(GENESIS)
    idle.receive(1, read_part(log, SnapshotRequest(0, 0)))
    assert idle.log.joining() is None


def test_no_more_parts_are_under_way_than_memory_is_meant_for():
    rig = Rig(GENESIS, snapshots=JOINER)
    log = source()
    rig.handle(CatchUp(tuple(range(1, 12)), newest().checkpoint.height))
    serve(rig, log, requests_max=1)
    assert len(rig.sent) == PARTS_AT_ONCE_MAX
    rig.hold_writes = True
    for message, peers in list(rig.sent):
        rig.sent.clear()
        assert peers is not None
        rig.receive(peers[0], answer(rig, log, peers[0], message))
        assert rig.sent == []
    rig.write_all()
    assert rig.sent


def test_serving_is_bounded_in_bytes_a_second(monkeypatch):
    log = source()
    rig = Rig(GENESIS, log)
    rig.at(5_000)
    size = len(read_part(log, SnapshotRequest(0, 0)).data)
    monkeypatch.setattr("qnet_actors.ledger.serving.SERVED_BYTES_PER_SECOND", 2 * size)
    assert size < SERVED_BYTES_PER_SECOND
    for peer in range(4):
        rig.receive(peer, SnapshotRequest(0, 0))
    assert [peers for _, peers in rig.sent] == [(0,), (1,)]
    assert rig.core.wake_ms() == 6_000
    rig.at(6_000)
    assert [peers for _, peers in rig.sent] == [(0,), (1,), (2,), (3,)]
    assert rig.core.wake_ms() is None


def test_a_log_that_lost_its_snapshot_asks_for_a_resync(make_log, tmp_path):
    rig = joiner(make_log())
    serve(rig, source())
    log = rig.log
    if isinstance(log, MemoryLog):
        log._disk.snapshots.clear()
    else:
        assert isinstance(log, DuckLog)
        for path in (tmp_path / "ledger").glob("state-*"):
            path.unlink()
    with pytest.raises(QnetError, match="resync") as caught:
        recover(make_log(), GENESIS)
    assert caught.value.code is Code.DATA_CORRUPT


def test_a_kill_between_the_renamings_of_a_join_loses_nothing(tmp_path, monkeypatch):
    """The new segment is there, and the snapshot still bears the name of a fetched one."""
    log = DuckLog(tmp_path, GENESIS.chain_id(), OPTIONS)
    rig = joiner(log)
    monkeypatch.setattr(log._snapshots, "settle_joins", lambda height: None)
    serve(rig, source())
    assert list(tmp_path.glob("join-*"))
    log.close()
    again = DuckLog(tmp_path, GENESIS.chain_id(), OPTIONS)
    assert not list(tmp_path.glob("join-*"))
    assert recover(again, GENESIS).tip.block_hash == newest().checkpoint.block_hash
    again.close()


def test_a_join_that_blocks_have_passed_is_no_snapshot(tmp_path):
    """What is here of it in part must not push out a good one."""
    log = DuckLog(tmp_path, GENESIS.chain_id(), OPTIONS)
    rig = joiner(log)
    serve(rig, source(18), requests_max=3)
    joining = log.joining()
    assert joining is not None
    assert joining.parts
    passed = joining.manifest.certificate.checkpoint.height
    log.write(blocks())
    log.close()
    again = DuckLog(tmp_path, GENESIS.chain_id(), OPTIONS)
    assert passed <= again.last_height()
    assert again.snapshot_heights() == []
    assert list(tmp_path.glob("join-*")) == []
    again.close()


def test_a_join_is_given_up_where_consensus_comes_along_by_itself(make_log):
    rig = joiner(make_log())
    serve(rig, source(), requests_max=3)
    assert rig.log.joining() is not None
    drive(rig, newest().checkpoint.height)
    assert rig.tip.height == newest().checkpoint.height
    assert rig.log.joining() is None
    assert rig.log.snapshot_heights() == []
    assert [e for e in rig.to_gateway if isinstance(e, JoinProgress)][-1].height == 0


def test_what_is_fetched_is_not_written_while_it_is_read(tmp_path, monkeypatch):
    log = DuckLog(tmp_path, GENESIS.chain_id(), OPTIONS)
    serve(joiner(log), source(), requests_max=3)
    snapshots = log._snapshots
    rows, free = snapshots._rows, []

    def read(*arguments: Any) -> Any:
        with ThreadPoolExecutor(1) as writer:
            lock = writer.submit(snapshots._joins.acquire, blocking=False)
            free.append(lock.result())
        return rows(*arguments)

    monkeypatch.setattr(snapshots, "_rows", read)
    joining = log.joining()
    assert joining is not None
    assert joining.part(1)
    assert free == [False, False]
    log.close()


def test_commits_of_consensus_that_the_snapshot_holds_are_dropped():
    rig = joiner()
    rig.hold_bodies = True
    whole = Rig(GENESIS)
    drive(whole, 3)
    rig.batches.update(whole.batches)
    drive(rig, 3)
    serve(rig, source())
    assert_joined(rig, newest())


def test_the_mempool_hears_of_it():
    rig = joiner()
    heard: list[Any] = []
    carry_out = rig._carry_out_one

    def listen(effect: Any) -> None:
        if isinstance(effect, ToRoom) and effect.room == Room.MEMPOOL:
            heard.append(effect.event)
        carry_out(effect)

    rig._carry_out_one = listen  # type: ignore[method-assign]
    serve(rig, source())
    (joined,) = [event for event in heard if isinstance(event, Joined)]
    assert joined.record == blocks()[newest().checkpoint.height - 1].record
