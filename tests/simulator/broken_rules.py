"""The rules of the protocol taken away one at a time, and who is to notice each.

`mutants` puts them to the test.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Final
from unittest.mock import patch

from qnet_actors.ledger import LedgerCore
from qnet_actors.ledger.actions import ValidatorActions
from qnet_actors.mempool.retention import Retention
from qnet_actors.network.effects import EffectQueue
from qnet_actors.network.node import MEMPOOL, Node, RoomKey
from qnet_actors.network.reporting import Reporter
from qnet_actors.rooms import Core, Effect, Persist, Storage
from qnet_actors.simulator.rooms import RealRooms
from qnet_actors.validators import ValidatorCore
from qnet_actors.validators.checks import BlockRules
from qnet_actors.validators.committer import Committer, Decision
from qnet_actors.validators.outbox import LedgerQueue
from qnet_actors.validators.pacemaker import Pacemaker
from qnet_actors.validators.patience import Patience
from qnet_actors.validators.synchronizer import Synchronizer
from qnet_actors.wire.codes import QnetError
from qnet_actors.wire.committee import Committee
from qnet_actors.wire.rules import approval_digest
from qnet_actors.wire.schemes import CONTEXT_DAG_BLOCK, dag_context

Change = Callable[[int, RoomKey, Core], Core]
_APPROVE: Final = ValidatorActions._approve


@dataclass(frozen=True, slots=True)
class Mutant:
    """A rule that is gone, and who is to notice: `invariants` of a run, or the test `test`."""

    name: str
    rule: str
    invariants: frozenset[str] = frozenset()
    test: str = ""
    change: Change | None = None
    rooms: type[RealRooms] = RealRooms
    patches: Callable[[], AbstractContextManager[Any]] = nullcontext


# Rules of the commit: each is wrong at one validator, or at all where that is enough.


def low_quorum(index: int, key: RoomKey, core: Core) -> Core:
    """The commit rule is content with f validators."""
    if isinstance(core, ValidatorCore):
        committer = core._ordering.committer
        committee = committer._committee
        low = Committee(committee.members, committee.epoch, committee.seed)
        object.__setattr__(low, "quorum", min(committee.stakes))
        object.__setattr__(committer, "_committee", low)
    return core


def _committer(index: int, core: Core) -> Committer | None:
    """That of validator 1, which alone is wrong."""
    if isinstance(core, ValidatorCore) and index == 1:
        return core._ordering.committer
    return None


def other_votes(index: int, key: RoomKey, core: Core) -> Core:
    """A block counts as a vote for whatever its last ancestor of the round is."""
    committer = _committer(index, core)
    if committer is not None:

        def vote(block: Any) -> bytes | None:
            below = block.ref.round - 1
            leader = committer.leader(below)
            found = [
                ref.digest
                for ref in block.header.ancestors
                if ref.author == leader and ref.round == below
            ]
            return found[-1] if found and block.ref.author != leader else None

        object.__setattr__(committer, "_vote", vote)
    return core


def easy_certificates(index: int, key: RoomKey, core: Core) -> Core:
    """One vote among the ancestors makes a certificate."""
    committer = _committer(index, core)
    if committer is not None:

        def certified(block: Any) -> bytes | None:
            below = block.ref.round - 1
            voters = [committer._dag.block(r.digest) for r in block.header.ancestors]
            votes = [committer._vote(v) for v in voters if v is not None and v.ref.round == below]
            return next((vote for vote in votes if vote is not None), None)

        object.__setattr__(committer, "_certified", certified)
    return core


def easy_skips(index: int, key: RoomKey, core: Core) -> Core:
    """One block without the leader skips it."""
    committer = _committer(index, core)
    if committer is not None:
        direct = committer._direct

        def skip(round_: int) -> Decision | None:
            if committer._votes_in(round_ + 1).stakes.get(None, 0):
                return Decision(round_, None)
            return direct(round_)

        object.__setattr__(committer, "_direct", skip)
    return core


# Rules of memory and disks.


class Forgetful(RealRooms):
    """After a crash the journals lack their last writes, though these were said to be durable."""

    def open(self, index: int) -> tuple[Node, Any]:
        journal: Any = self._stores[index].journal
        self._stores[index] = replace(self._stores[index], journal=journal.crash(lost_writes=8))
        return super().open(index)


def careless(index: int, key: RoomKey, core: Core) -> Core:
    """Signs without having asked anybody what it signed before."""
    if isinstance(core, ValidatorCore):
        guard: Any = core._guard
        guard.may_sign = lambda now_ms: True
        guard.forgot = lambda: None
    return core


class NoDisk:
    """Says that everything is durable and keeps nothing."""

    def write(self, writes: Sequence[Any]) -> None:
        pass

    def close(self) -> None:
        pass


class NoBatchDisk(RealRooms):
    """Batches are acknowledged and never written."""

    def open(self, index: int) -> tuple[Node, dict[RoomKey, Storage]]:
        node, storages = super().open(index)
        return node, {**storages, MEMPOOL: NoDisk()}


def poorer(index: int, key: RoomKey, core: Core) -> Core:
    """One validator credits somebody with something now and then."""
    if isinstance(core, LedgerCore) and index == 2:
        execute: Any = core._state
        read = execute.read

        def richer(addresses: Any) -> Any:
            columns = read(addresses)
            columns.balances[:1] += 1
            return columns

        execute.read = richer
    return core


def _hasty() -> AbstractContextManager[Any]:
    """What stands behind a write is carried out before it is durable."""

    def add(self: EffectQueue, effects: Iterable[Effect]) -> list[Effect]:
        ready: list[Effect] = []
        for effect in effects:
            if isinstance(effect, Persist):
                self._waiting.append(effect)
            else:
                ready.append(effect)
        if self._waiting and not self._writing:
            ready.append(self._gather())
        return ready

    return patch.object(EffectQueue, "add", add)


# Rules that whole runs seldom put to the test: named tests do.


def _blind_anchors() -> AbstractContextManager[Any]:
    """An anchor skips whatever is undecided below it, certified in its history or not."""

    def indirect(self: Committer, round_: int) -> Decision | None:
        return None if self._anchor(round_) is None else Decision(round_, None)

    return patch.object(Committer, "_indirect", indirect)


def _any_first_ancestor() -> AbstractContextManager[Any]:
    check = BlockRules._check_ancestors

    def lax(self: BlockRules, block: Any) -> None:
        try:
            check(self, block)
        except QnetError as error:
            if "own block" not in str(error):
                raise

    return patch.object(BlockRules, "_check_ancestors", lax)


class _Everything(OrderedDict[bytes, None]):
    def __contains__(self, key: object) -> bool:
        return True


def _all_held() -> AbstractContextManager[Any]:
    make = Synchronizer.__init__

    def init(self: Any, *arguments: Any) -> None:
        make(self, *arguments)
        self._held = _Everything()

    return patch.object(Synchronizer, "__init__", init)


def _jumping() -> AbstractContextManager[Any]:
    enter = Pacemaker.enter

    def jump(self: Pacemaker, quorum_round: int, _: bool, round_min: int, now_ms: int) -> bool:
        return enter(self, quorum_round, True, round_min, now_ms)

    return patch.object(Pacemaker, "enter", jump)


def _no_lag() -> AbstractContextManager[Any]:
    make = LedgerQueue.__init__

    def init(self: Any, *, lag: int, executed_index: int) -> None:
        make(self, lag + 10**9, executed_index)

    return patch.object(LedgerQueue, "__init__", init)


@contextmanager
def _chainless() -> Iterator[None]:
    """Blocks are signed, and proofs checked, with a context that names no chain."""
    # Its code, since others have imported the function itself.
    code = dag_context.__code__
    dag_context.__code__ = (lambda chain_id: CONTEXT_DAG_BLOCK).__code__
    try:
        yield
    finally:
        dag_context.__code__ = code


_FORKS: Final = frozenset({"commit_fork", "halt"})
MUTANTS: Final = (
    Mutant("quorum", "a quorum is more than two thirds of the stake", _FORKS, change=low_quorum),
    Mutant("vote", "a block votes for the first of a slot it names", _FORKS, change=other_votes),
    Mutant("certificate", "a quorum of votes certifies", _FORKS, change=easy_certificates),
    Mutant("skip", "a quorum without the leader skips it", _FORKS, change=easy_skips),
    Mutant(
        "amnesia",
        "whoever lost its journal asks before it signs",
        frozenset({"double_sign"}),
        change=careless,
        rooms=Forgetful,
    ),
    Mutant(
        "journal-before-send",
        "an own block is durable before it is sent",
        frozenset({"double_sign"}),
        change=careless,
        patches=_hasty,
    ),
    Mutant(
        "batch-before-ack",
        "what is acknowledged is on the disk",
        frozenset({"lost", "no_progress", "behind"}),
        rooms=NoBatchDisk,
    ),
    Mutant(
        "execution",
        "all execute alike",
        frozenset({"block_fork", "state_root", "supply"}),
        change=poorer,
    ),
    Mutant(
        "write-before-event",
        "nothing told stands before the write it rests on",
        test="tests/network/test_node.py::test_a_local_event_waits_for_the_write_before_it",
        patches=_hasty,
    ),
    Mutant(
        "anchor",
        "what an anchor's history certifies is committed",
        test="tests/validators/test_committer.py"
        "::test_a_certificate_in_the_history_of_the_anchor_commits_indirectly",
        patches=_blind_anchors,
    ),
    Mutant(
        "self-parent",
        "the first ancestor is the own block before",
        test="tests/validators/test_checks.py",
        patches=_any_first_ancestor,
    ),
    Mutant(
        "held-before-reference",
        "a block waits for the batches it names",
        test="tests/validators/test_synchronizer.py"
        "::test_batches_that_are_not_held_are_fetched_and_waited_for",
        patches=_all_held,
    ),
    Mutant(
        "round-jump",
        "no round is skipped",
        test="tests/validators/test_pacemaker.py::test_no_round_is_skipped_by_one_that_is_behind",
        patches=_jumping,
    ),
    Mutant(
        "patience",
        "who was late of late is not waited for",
        test="tests/validators/test_network.py::test_one_that_lags_does_not_slow_the_others",
        patches=lambda: patch.object(Patience, "waits_for", lambda self, leader, round_: True),
    ),
    Mutant(
        "stall",
        "while nothing is committed everybody is waited for",
        test="tests/validators/test_pacemaker.py"
        "::test_while_nothing_is_committed_everybody_is_waited_for",
        patches=lambda: patch.object(Patience, "_is_stalled", lambda self, round_: False),
    ),
    Mutant(
        "lag-bound",
        "a commit waits for the execution of the one a lag before",
        test="tests/validators/test_outbox.py"
        "::test_commits_wait_until_the_one_a_lag_before_is_executed",
        patches=_no_lag,
    ),
    Mutant(
        "takeover",
        "others execute what a dead author has batched",
        test="tests/simulator/test_takeover.py"
        "::test_what_a_dead_author_promised_is_executed_within_seconds",
        patches=lambda: patch.object(Retention, "passed_over", lambda self, now_ms, wait_ms: ()),
    ),
    Mutant(
        "possession",
        "a validator key signs for who registers it",
        test="tests/ledger/test_registry.py::test_nobody_registers_a_key_that_does_not_sign_for_it",
        patches=lambda: patch.object(
            ValidatorActions, "_is_proved", lambda self, owner, action: True
        ),
    ),
    Mutant(
        "evidence-chain",
        "what a key signed on another chain convicts nobody",
        test="tests/ledger/test_registry.py"
        "::test_what_a_key_signed_on_another_chain_convicts_nobody",
        patches=_chainless,
    ),
    Mutant(
        "reporting",
        "the validators report an equivocator themselves",
        test="tests/simulator/test_evidence.py"
        "::test_an_equivocator_is_punished_and_leaves_without_a_client",
        patches=lambda: patch.object(Reporter, "_is_own_turn", lambda self, author, turn: False),
    ),
    Mutant(
        "past-offences",
        "what an epoch left unpunished is reported in the next",
        test="tests/simulator/test_evidence.py"
        "::test_an_equivocator_is_punished_though_its_epoch_is_over",
        patches=lambda: patch("qnet_actors.network.consensus.past_offences", lambda *given: ()),
    ),
    Mutant(
        "old-offences",
        "nobody is punished for what is longer ago than unbonding takes",
        test="tests/ledger/test_approvals.py"
        "::test_nobody_is_punished_for_what_is_longer_ago_than_unbonding_takes",
        patches=lambda: patch(
            "qnet_actors.ledger.actions.is_punishable", lambda epoch, present, for_: True
        ),
    ),
    Mutant(
        "approval-quorum",
        "other rules need a quorum of stake",
        test="tests/ledger/test_approvals.py"
        "::test_rules_come_with_the_next_epoch_once_a_quorum_of_stake_approved_the_same",
        patches=lambda: patch("qnet_actors.ledger.actions.quorum_of", lambda total: total // 2),
    ),
    Mutant(
        "approval-epoch",
        "an approval counts in its epoch only",
        test="tests/ledger/test_approvals.py"
        "::test_an_approval_replaces_the_one_before_and_ends_with_its_epoch",
        patches=lambda: patch(
            "qnet_actors.ledger.actions.approval_digest",
            lambda epoch, rules: approval_digest(0, rules),
        ),
    ),
    Mutant(
        "approval-held-back",
        "an approval that was held back counts in no later epoch",
        test="tests/ledger/test_approvals.py"
        "::test_an_approval_counts_in_no_other_epoch_than_the_one_it_names",
        patches=lambda: patch.object(
            ValidatorActions,
            "_approve",
            lambda self, owner, number, rules: _APPROVE(
                self, owner, self.registry.epoch.number, rules
            ),
        ),
    ),
)
