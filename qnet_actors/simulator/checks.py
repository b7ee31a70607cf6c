"""What must hold in every run, checked at every step from outside the cores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from qnet_actors.network.node import RoomKey
from qnet_actors.rooms import (
    BatchesDropped,
    BlockExecuted,
    CaughtUp,
    CheckpointCertified,
    CheckpointMade,
    CommitReady,
    CommitsExecuted,
    Core,
    Effect,
    FetchBatches,
    Joined,
    Room,
    StatusChanged,
    SubmitResult,
)
from qnet_actors.simulator.accounts import Accounts
from qnet_actors.wire.blocks import BlockRecord
from qnet_actors.wire.codes import QnetError
from qnet_actors.wire.dag import BlockRef, decode_dag_block
from qnet_actors.wire.genesis import Genesis
from qnet_actors.wire.messages import DagBlocks, Message
from qnet_actors.wire.transactions import Body, transaction_id

STATUS_BATCHED: Final = "batched"


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken invariant, by name."""

    invariant: str
    reason: str
    validator: int
    at_ms: int


@dataclass(slots=True)
class Progress:
    """How far a validator is."""

    commit: int = 0
    height: int = 0
    executed_commit: int = 0
    final_height: int = 0
    round: int = 0
    life: int = 0
    next_commit: int | None = None
    """The index that the next commit of this life must have; None: any that is not ahead."""


@dataclass(slots=True)
class Expected:
    """What the first honest validator to get there put out; all others must put out the same."""

    commits: dict[int, bytes] = field(default_factory=dict)
    blocks: dict[int, bytes] = field(default_factory=dict)
    checkpoints: dict[int, bytes] = field(default_factory=dict)
    executed: dict[bytes, int] = field(default_factory=dict)
    """Transaction id -> height."""


class Tap:
    """A core that shows each of its events before it handles it."""

    __slots__ = ("_core", "_look", "tick", "wake_ms")

    def __init__(self, core: Core, look: Callable[[Any], None]) -> None:
        self._core = core
        self._look = look
        self.tick = core.tick
        self.wake_ms = core.wake_ms

    def handle(self, event: Any, now_ms: int) -> Sequence[Effect]:
        self._look(event)
        return self._core.handle(event, now_ms)


class Checks:
    """Holds all honest validators to one history and to their own word.

    Invariants by name: commit_fork, commit_order, block_fork, block_order, parent, state_root,
    certificate, double_sign, executed_twice, nonce_order, supply, forgotten, lost, evidence,
    no_progress, halt, exception, spinning, codec.  The first violation ends the run.
    """

    def __init__(
        self,
        genesis: Genesis,
        now_ms: Callable[[], int],
        note: Callable[[int, str], None],
        on_violation: Callable[[], None],
        byzantine: frozenset[int] = frozenset(),
        joiners: int = 0,
    ) -> None:
        """`joiners`: validators that are not of the genesis."""
        count = len(genesis.members) + joiners
        self.violation: Violation | None = None
        self.byzantine: Final = byzantine
        self.honest: Final = [i for i in range(count) if i not in byzantine]
        self.progress: Final = [Progress() for _ in range(count)]
        self.expected: Final = Expected()
        self.accounts: Final = Accounts(genesis)
        self.batched: Final[dict[bytes, dict[int, int]]] = {}
        """Ids that gateways were told are batched: by which validators, in which of their lives.

        Settled ones are gone."""
        self.refused: Final[dict[str, int]] = {}
        """Refusals of submissions by code, and final statuses by label."""
        self.paths: Final[Counter[str]] = Counter()
        """How often the rarer ways were taken: events between rooms, by name."""
        self.round = 0
        """The highest round of any block sent."""
        self._chain_id = genesis.chain_id()
        self._now_ms = now_ms
        self._note = note
        self._on_violation = on_violation
        self.authors: Final = list(range(count))
        """Validator -> its index in the committee of its epoch, where it is of it."""
        self._signed: list[dict[tuple[int, int], bytes]] = [{} for _ in range(count)]
        self._parsed: dict[bytes, tuple[int, BlockRef] | None] = {}

    def watch(self, index: int, key: RoomKey, core: Core) -> Core:
        """`core`, with its events checked; the byzantine are left alone."""
        if index in self.byzantine:
            return core
        looks = {
            Room.LEDGER: self._to_ledger,
            Room.VALIDATOR: self._to_validator,
            Room.MEMPOOL: self._to_mempool,
        }
        look = looks.get(key.room)
        return core if look is None else Tap(core, lambda event: look(index, event))

    def fail(self, index: int, invariant: str, reason: str) -> None:
        if self.violation is None and index not in self.byzantine:
            self.violation = Violation(invariant, reason, index, self._now_ms())
            self._note(index, f"VIOLATION {invariant}: {reason}")
            self._on_violation()

    def restarted(self, index: int, height: int, untold: Iterable[BlockRecord]) -> None:
        """A new life: it may repeat what it did, and must know what it said.

        `height` is that of its block log, and `untold` are the blocks in it above those that the
        gateway heard of before the crash.
        """
        progress = self.progress[index]
        progress.next_commit = None
        progress.life += 1
        if index in self.byzantine:
            return
        if height < progress.height:
            self.fail(index, "forgotten", f"told of block {progress.height}, has {height}")
        for record in untold:
            if record.header.height > progress.height + 1:
                self._joined(index, Joined(record, record.header.hash()))
            self._executed(index, BlockExecuted(record, record.header.hash(), (), ()))

    def set_aside(self, index: int) -> None:
        """The ledger of a validator is gone; what it said of its blocks is forgotten rightly."""
        progress = self.progress[index]
        progress.height = progress.executed_commit = progress.commit = 0

    def sending(self, index: int, message: Message) -> None:
        """No honest validator shows two blocks of its own for one round, in all its lives."""
        if index in self.byzantine or not isinstance(message, DagBlocks):
            return
        for data in message.blocks:
            parsed = self._parse(data)
            if parsed is None:
                self.fail(index, "codec", "a DAG block that does not decode was sent")
                continue
            epoch, ref = parsed
            if ref.author == self.authors[index]:
                known = self._signed[index].setdefault((epoch, ref.round), ref.digest)
                if known != ref.digest:
                    self.fail(index, "double_sign", f"two blocks in round {ref.round}")
                self.round = max(self.round, ref.round)
                self.progress[index].round = max(self.progress[index].round, ref.round)

    def delivered(self, index: int, event: Any) -> None:
        """What the gateway of a validator is told."""
        if index in self.byzantine:
            return
        match event:
            case BlockExecuted():
                self._executed(index, event)
            case Joined():
                self._joined(index, event)
            case CheckpointCertified(certificate=certificate):
                checkpoint = certificate.checkpoint
                self._same(
                    index,
                    "certificate",
                    self.expected.checkpoints,
                    checkpoint.height,
                    checkpoint.digest(),
                )
                progress = self.progress[index]
                progress.final_height = max(progress.final_height, checkpoint.height)
            case StatusChanged(status=status, ids=ids):
                self._status(index, status, ids)
            case SubmitResult(results=results):
                for code, _, _ in results:
                    self.refused[str(code)] = self.refused.get(str(code), 0) + 1

    def settle_by_chain(self, body_of: Callable[[bytes], Body | None]) -> None:
        """Settles promises of former lives where the chain says that they cannot be kept.

        Who died meanwhile cannot tell a spent nonce from an execution without asking the ledger,
        which is what a client does too.
        """
        height = len(self.expected.blocks)
        for id_, tellers in list(self.batched.items()):
            body = body_of(id_)
            if body is None:
                continue
            spent = body.nonce < self.accounts.get(body.sender).nonce
            if spent or 0 < body.valid_until < height:
                for index, life in list(tellers.items()):
                    if life < self.progress[index].life:
                        self._settled(id_, index)

    def _to_ledger(self, index: int, event: Any) -> None:
        if not isinstance(event, CommitReady):
            return
        commit = event.commit
        progress = self.progress[index]
        if progress.next_commit is not None and commit.index != progress.next_commit:
            self.fail(index, "commit_order", f"{commit.index} after {progress.next_commit - 1}")
        if commit.index > max(progress.commit, progress.executed_commit) + 1:
            self.fail(index, "commit_order", f"{commit.index} after {progress.commit}")
        progress.next_commit = commit.index + 1
        progress.commit = max(progress.commit, commit.index)
        # A lone validator sends its blocks to nobody.
        self.round = max(self.round, commit.leader.round)
        self._same(index, "commit_fork", self.expected.commits, commit.index, commit.digest())
        before = self.expected.commits.get(commit.index - 1)
        if before is not None and before != commit.previous:
            self.fail(index, "commit_fork", f"commit {commit.index} has another parent")

    def _to_mempool(self, index: int, event: Any) -> None:
        if isinstance(event, BatchesDropped | FetchBatches):
            self.paths[type(event).__name__] += 1

    def _to_validator(self, index: int, event: Any) -> None:
        if isinstance(event, CaughtUp):
            self.paths["CaughtUp"] += 1
        elif isinstance(event, CommitsExecuted):
            # Consensus hears of it before the gateway does.
            _caught_up(self.progress[index], event.index)
        elif isinstance(event, CheckpointMade):
            made = event.checkpoint
            self._same(index, "state_root", self.expected.checkpoints, made.height, made.digest())

    def _executed(self, index: int, event: BlockExecuted) -> None:
        header = event.record.header
        progress = self.progress[index]
        if header.height > progress.height + 1:
            self.fail(index, "block_order", f"{header.height} after {progress.height}")
        progress.height = max(progress.height, header.height)
        progress.executed_commit = max(progress.executed_commit, header.commit_index)
        if event.record.commits:
            _caught_up(progress, event.record.commits[-1].index)
        first = header.height not in self.expected.blocks
        self._same(index, "block_fork", self.expected.blocks, header.height, event.block_hash)
        if first:
            self._first_execution(index, event)

    def _joined(self, index: int, event: Joined) -> None:
        """The state of another validator was taken over, at a block that others have executed."""
        header, progress = event.record.header, self.progress[index]
        self.paths["Joined"] += 1
        if header.height not in self.expected.blocks:
            self.fail(index, "block_order", f"joined at {header.height}, which nobody executed")
            return
        if header.height <= progress.height:
            self.fail(index, "block_order", f"joined at {header.height} after {progress.height}")
        self._same(index, "block_fork", self.expected.blocks, header.height, event.block_hash)
        progress.height = header.height
        progress.executed_commit = header.commit_index
        _caught_up(progress, header.commit_index)

    def _first_execution(self, index: int, event: BlockExecuted) -> None:
        header = event.record.header
        parent = self.expected.blocks.get(header.height - 1, self._chain_id)
        if header.parent != parent or header.hash() != event.block_hash:
            self.fail(index, "parent", f"block {header.height} does not follow its parent")
        for commit in event.record.commits:
            self._same(index, "commit_fork", self.expected.commits, commit.index, commit.digest())
        for body in event.record.bodies:
            id_ = transaction_id(body)
            if id_ in self.expected.executed:
                at = self.expected.executed[id_]
                self.fail(index, "executed_twice", f"at heights {at} and {header.height}")
            self.expected.executed[id_] = header.height
            self.batched.pop(id_, None)
        wrong = self.accounts.apply(event.record)
        if wrong is not None:
            self.fail(index, *wrong)

    def _status(self, index: int, status: str, ids: Sequence[bytes]) -> None:
        for id_ in ids:
            if status == STATUS_BATCHED:
                if id_ not in self.expected.executed:
                    self.batched.setdefault(id_, {})[index] = self.progress[index].life
            else:
                # A final status is the word of one validator, about what that one had promised.
                self._settled(id_, index)
        if status != STATUS_BATCHED:
            self.refused[status] = self.refused.get(status, 0) + len(ids)

    def _settled(self, id_: bytes, index: int) -> None:
        tellers = self.batched.get(id_, {})
        tellers.pop(index, None)
        if not tellers:
            self.batched.pop(id_, None)

    def _same(
        self, index: int, invariant: str, seen: dict[int, bytes], key: int, digest: bytes
    ) -> None:
        if seen.setdefault(key, digest) != digest:
            self.fail(index, invariant, f"another at {key} than the others have")

    def _parse(self, data: bytes) -> tuple[int, BlockRef] | None:
        """Epoch and ref of a DAG block; remembered, since one block is sent many times."""
        known = self._parsed.get(data)
        if known is None:
            try:
                block = decode_dag_block(data)
                known = (block.header.epoch, block.ref)
            except QnetError:
                return None
            self._parsed[data] = known
        return known


def _caught_up(progress: Progress, commit_index: int) -> None:
    """What was executed up to a commit came from a peer if consensus is not there in this life.

    It goes on behind it.  That a former life came further is no matter.
    """
    progress.commit = max(progress.commit, commit_index)
    if progress.next_commit is not None and commit_index >= progress.next_commit:
        progress.next_commit = None
