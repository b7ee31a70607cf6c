"""A snapshot on its way to a ledger that is far behind: what is asked for, checked and kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from qnet_actors.ledger.catchup import Refused, Rules
from qnet_actors.ledger.joining import (
    JoinRun,
    Manifest,
    PartKept,
    check_manifest,
    check_part,
    reopen,
)
from qnet_actors.ledger.writes import BlockReader, JoinWrite, SectionWrite
from qnet_actors.rooms import Effect, JoinProgress, Persist, Room, Run, ToPeers, ToRoom
from qnet_actors.wire.messages import SnapshotPart

_NOT_JOINING: Final = ToRoom(Room.GATEWAY, JoinProgress(0, 0, 0))


class Joiner:
    """Fetches one snapshot at a time; that it is installed once it is complete is the ledger's.

    `tick` is the ledger's as well: it goes on after what was checked or kept.
    """

    def __init__(
        self,
        rules: Rules,
        log: BlockReader,
        gc_depth: int,
        tick: Callable[[int], Sequence[Effect]],
    ) -> None:
        self._rules: Final = rules
        self._log: Final = log
        self._gc_depth: Final = gc_depth
        self._tick: Final = tick
        self._run: JoinRun | None = None

    @property
    def active(self) -> bool:
        """Whether a snapshot is on its way, or being installed."""
        return self._run is not None

    @property
    def complete(self) -> Manifest | None:
        """The snapshot, once all of it is durable."""
        run = self._run
        return run.manifest if run is not None and run.complete else None

    def wake_ms(self) -> int | None:
        return None if self._run is None else self._run.wake_ms()

    def start(self, peers: Sequence[int], height_min: int) -> Sequence[Effect]:
        """Looks for what is on disk of a snapshot, then asks `peers` for one from `height_min`."""
        run = self._run = JoinRun(peers, height_min)
        call = partial(reopen, self._rules, self._log, self._gc_depth, height_min)
        return (Run(call, partial(self._reopened, run)),)

    def go_on(self, height: int, peers: Sequence[int] | None, now_ms: int) -> Sequence[Effect]:
        """Asks for what is next; `height` is the ledger's, and `peers` may be tried again."""
        run = self._run
        if run is None:
            return ()
        if run.manifest is not None and run.manifest.height <= height:
            # Consensus has come along by itself.
            self._run = None
            return (Persist((JoinWrite(None),)), _NOT_JOINING)
        run.expire(now_ms)
        if run.failed:
            # The peers have gone on to other snapshots, were slow, or some of them lied.
            self._run = None if peers is None else run.again(peers)
            return (_NOT_JOINING,) if self._run is None else self.go_on(height, peers, now_ms)
        if run.complete:
            return ()
        return [ToPeers(request, (peer,)) for peer, request in run.ask(now_ms)]

    def installed(self) -> None:
        """The ledger goes on from the snapshot."""
        self._run = None

    def part_came(self, peer: int, message: SnapshotPart, now_ms: int) -> Sequence[Effect]:
        run = self._run
        if run is None or not run.take(peer, message):
            return self._tick(now_ms)
        call: Callable[[], Any]
        if run.manifest is None:
            call = partial(
                check_manifest, self._rules, message.data, self._gc_depth, run.height_min
            )
            return (Run(call, partial(self._manifest_checked, run, peer)),)
        call = partial(check_part, run.manifest, message.part, message.data)
        return (Run(call, partial(self._part_checked, run, peer, message)),)

    def part_kept(self, height: int, part: int, now_ms: int) -> Sequence[Effect]:
        """A part is durable."""
        run = self._run
        if run is None or run.manifest is None or run.manifest.height != height:
            return ()
        run.kept(part)
        return [_progress(run, run.manifest), *self._tick(now_ms)]

    def _reopened(
        self, run: JoinRun, found: tuple[Manifest, frozenset[int]] | None, now_ms: int
    ) -> Sequence[Effect]:
        if found is None:
            run.found(None)
        else:
            run.found(*found)
        return self._tick(now_ms)

    def _manifest_checked(
        self, run: JoinRun, peer: int, result: Manifest | Refused, now_ms: int
    ) -> Sequence[Effect]:
        if run is not self._run:
            return ()
        if isinstance(result, Refused):
            run.found(None)
            run.refuse(peer)
            return self._tick(now_ms)
        if run.resumes(result):
            return [_progress(run, result), *self._tick(now_ms)]
        run.found(result)
        kept = Persist((JoinWrite(result.wire),))
        return [kept, _progress(run, result), *self._tick(now_ms)]

    def _part_checked(
        self,
        run: JoinRun,
        peer: int,
        message: SnapshotPart,
        refused: Refused | None,
        now_ms: int,
    ) -> Sequence[Effect]:
        if run is not self._run:
            return ()
        if refused is not None:
            run.checked(message.part)
            run.refuse(peer)
            return self._tick(now_ms)
        kept = Persist((SectionWrite(message.part, message.data),))
        return [kept, ToRoom(Room.LEDGER, PartKept(message.height, message.part))]


def _progress(run: JoinRun, manifest: Manifest) -> Effect:
    progress = JoinProgress(manifest.height, run.parts_kept, run.parts_total)
    return ToRoom(Room.GATEWAY, progress)
