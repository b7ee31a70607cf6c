"""Fetching executed blocks from peers, up to a certified checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from msgspec import structs

from qnet_actors.ledger.blocks import Identity, Tip
from qnet_actors.ledger.outcome import LedgerState
from qnet_actors.ledger.plan import SnapshotPlan
from qnet_actors.ledger.verify import CheckedRecord, check_certificate, check_records
from qnet_actors.ledger.writes import BlockWrite, SnapshotWrite
from qnet_actors.wire.blocks import Certificate
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.committee import Committee
from qnet_actors.wire.limits import MESSAGE_LEDGER_BLOCKS_MAX
from qnet_actors.wire.messages import LedgerBlocks, LedgerRequest
from qnet_actors.wire.schemes import Verifier

ANSWER_TIMEOUT_MS: Final = 2_000
PAUSE_MS: Final = 500
PAUSE_MS_MAX: Final = 8_000
PROGRESS_TIMEOUT_MS: Final = 30_000
"""A peer whose blocks no certificate covers by then loses its turn."""
HELD_BYTES_MAX: Final = 64 * 1024 * 1024
"""Of blocks fetched from one peer and not yet covered by a certificate."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What records and certificates are held to."""

    identity: Identity
    committee: Committee
    verifier: Verifier


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a peer's answer came to: checked records, and how many of them are certified."""

    records: tuple[CheckedRecord, ...]
    certified: int
    certificate: Certificate | None


@dataclass(frozen=True, slots=True)
class Refused:
    """The peer's answer breaks a rule."""

    reason: str


def check_answer(
    rules: Rules, base: Tip, held: tuple[CheckedRecord, ...], answer: LedgerBlocks
) -> Fetched | Refused:
    """Checks an answer that continues `held`, whose first record follows `base`; CPU work."""
    try:
        end = held[-1].tip if held else base
        records = (*held, *check_records(rules.identity, end, answer.records))
        certified = 0
        certificate = answer.certificate
        if certificate is not None:
            certified = _certified(rules, base, records, certificate)
        return Fetched(records, certified, certificate if certified else None)
    except QnetError as error:
        return Refused(error.detail)


def _certified(
    rules: Rules, base: Tip, records: Sequence[CheckedRecord], certificate: Certificate
) -> int:
    """How many of the records the certificate proves; 0: it is of none of these heights."""
    count = certificate.checkpoint.height - base.height
    if not 1 <= count <= len(records):
        return 0
    check_certificate(rules.identity, rules.committee, certificate, rules.verifier)
    if records[count - 1].record.checkpoint != certificate.checkpoint:
        raise QnetError(Code.DATA_CORRUPT, "the certificate is of another block")
    return count


def apply_records(
    state: LedgerState,
    records: Sequence[CheckedRecord],
    certificate: Certificate,
    plan: SnapshotPlan,
) -> list[BlockWrite | SnapshotWrite]:
    """Applies certified records to the state; returns what to make durable.

    The state roots of the checkpoints on the way are computed, not believed.  Raises
    `QnetError(DIVERGED)` where the last differs from the certified one: then the state below was
    wrong, and the node stops.
    """
    writes: list[BlockWrite | SnapshotWrite] = []
    root = b""
    for checked in records:
        record, encoded = checked.record, checked.encoded
        state.apply(record.header.height, record.write_set)
        if record.checkpoint is not None:
            root = state.root()
            if record.checkpoint.state_root != root:
                checkpoint = structs.replace(record.checkpoint, state_root=root)
                record = structs.replace(record, checkpoint=checkpoint)
                encoded = encode(record)
        writes.append(BlockWrite(record, checked.tip.block_hash, encoded))
        snapshot = plan.executed(record, len(encoded), state)
        if snapshot is not None:
            writes.append(snapshot)
    if root != certificate.checkpoint.state_root:
        raise QnetError(
            Code.DIVERGED,
            f"after the certified block {certificate.checkpoint.height} the state root is "
            f"{root.hex()}, certified is {certificate.checkpoint.state_root.hex()}",
        )
    return writes


class CatchUpRun:
    """Which peer is asked for what, and until when it may take.

    One peer at a time.  What it sent is dropped when another is asked, so that nobody suffers for
    what a liar sent before.  While the run is `blocking` the tip must not move.
    """

    def __init__(self, peers: Sequence[int], now_ms: int) -> None:
        if not peers:
            raise ValueError("nobody to catch up from")
        self.held: tuple[CheckedRecord, ...] = ()
        """Checked, following the tip, not certified yet."""
        self.applied = 0
        """Blocks taken over in this run, or snapshots."""
        self.may_join = True
        """Whether a snapshot was not asked for yet in this run."""
        self._peers = list(dict.fromkeys(peers))
        self._turn = 0
        self._fruitless = 0
        self._asked: int | None = None
        self._busy = False
        self._due_ms = now_ms
        self._since_ms = now_ms
        self._pause_ms = PAUSE_MS

    @property
    def peers(self) -> tuple[int, ...]:
        """Whom it may ask, and whom it asks next first."""
        turn = self._turn % len(self._peers)
        return (*self._peers[turn:], *self._peers[:turn])

    @property
    def blocking(self) -> bool:
        """Whether an answer is waited for, dealt with, or kept."""
        return self._busy or self._asked is not None or bool(self.held)

    @property
    def exhausted(self) -> bool:
        """Whether every peer was asked in vain since the last success."""
        return self._fruitless >= len(self._peers)

    def wake_ms(self) -> int | None:
        return None if self._busy else self._due_ms

    def offer(self, peers: Sequence[int]) -> None:
        """More peers to ask."""
        self._peers = list(dict.fromkeys([*self._peers, *peers]))

    def is_late(self, now_ms: int) -> bool:
        """Whether the peer did not answer in time, or takes too long to come to a certificate."""
        if self._busy or (self._asked is None and not self.held):
            return False
        late = self._asked is not None and now_ms >= self._due_ms
        return late or now_ms - self._since_ms >= PROGRESS_TIMEOUT_MS

    def ask(self, first_height: int, now_ms: int) -> tuple[int, LedgerRequest] | None:
        """Whom to ask now, and for what; None: nobody yet.

        `first_height`: of the first block that is wanted, if none is held.
        """
        if self._busy or self._asked is not None or now_ms < self._due_ms:
            return None
        if self.exhausted:
            self._fruitless = 0
        if not self.held:
            self._since_ms = now_ms
        self._asked = self._peers[self._turn % len(self._peers)]
        self._due_ms = now_ms + ANSWER_TIMEOUT_MS
        first = self.held[-1].tip.height + 1 if self.held else first_height
        return self._asked, LedgerRequest(first, MESSAGE_LEDGER_BLOCKS_MAX)

    def take(self, peer: int) -> bool:
        """Whether `peer` is the one that is waited for; then its answer is being dealt with."""
        if peer != self._asked or self._busy:
            return False
        self._asked = None
        self._busy = True
        return True

    def failed(self, now_ms: int) -> None:
        """The peer lied, was silent or has nothing: the next is asked, at last after a pause."""
        self._busy = False
        self._asked = None
        self.held = ()
        self._turn += 1
        self._fruitless += 1
        self._due_ms = now_ms
        if self.exhausted:
            self._due_ms = now_ms + self._pause_ms
            self._pause_ms = min(2 * self._pause_ms, PAUSE_MS_MAX)

    def keep(self, records: tuple[CheckedRecord, ...], now_ms: int) -> bool:
        """Nothing is certified yet: the peer is asked for what follows; False: it is too much."""
        if sum(len(checked.encoded) for checked in records) > HELD_BYTES_MAX:
            return False
        self._busy = False
        self.held = records
        self._due_ms = now_ms
        return True

    def took(self, rest: tuple[CheckedRecord, ...], count: int, now_ms: int) -> None:
        """`count` blocks were applied; the same peer is asked for what follows `rest`."""
        self._busy = False
        self.held = rest
        self.applied += count
        self._fruitless = 0
        self._pause_ms = PAUSE_MS
        self._since_ms = self._due_ms = now_ms
