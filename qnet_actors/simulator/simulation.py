"""One run: a whole network from one seed, faults for a while, then peace, then an account."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Any, Final, Protocol

from qnet_actors.crypto import Provider
from qnet_actors.ledger import SnapshotSettings
from qnet_actors.network.node import VALIDATOR, Node, RoomKey
from qnet_actors.rooms import Core, Room, Storage, Submit
from qnet_actors.simulator.actions import Actions
from qnet_actors.simulator.adversary import Adversary
from qnet_actors.simulator.approving import Approving, there_and_back
from qnet_actors.simulator.checks import Checks
from qnet_actors.simulator.clients import Workload
from qnet_actors.simulator.faults import (
    OF_LINKS,
    Episode,
    Fault,
    faults_last_ms_min,
    plan_faults,
)
from qnet_actors.simulator.genesis import EPOCH_MS, draw_genesis
from qnet_actors.simulator.host import Host
from qnet_actors.simulator.links import Links
from qnet_actors.simulator.regions import longest_ms, matrix_ms
from qnet_actors.simulator.result import SimResult, Verdict
from qnet_actors.simulator.scheduler import Scheduler, Stuck
from qnet_actors.simulator.signing import Signing, SimSigner
from qnet_actors.simulator.trace import Trace
from qnet_actors.simulator.turnover import Turnover
from qnet_actors.validators import ValidatorCore
from qnet_actors.wire.blocks import BlockRecord
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.committee import Committee
from qnet_actors.wire.genesis import Genesis
from qnet_actors.wire.messages import Message
from qnet_actors.wire.rules import EpochRules
from qnet_actors.wire.schemes import Scheme

ML_DSA_EVERY: Final = 50
"""Every so many seeds the run signs with ML-DSA-65."""
STEP_MS: Final = 250
SHARDS: Final = (1, 1, 1, 3)
FILL_MS: Final = 2_000
RESYNC_MS: Final = 100
SILENT_MS: Final = 100
CRASH_EFFECTS_MAX: Final = 40
TURNOVER_MS: Final = 2_000
# Invariants of liveness; every other one is of safety.
_LIVENESS: Final = frozenset({"no_progress", "lost", "spinning", "behind", "unshown"})


@dataclass(frozen=True, slots=True)
class SimConfig:
    """How a run is made.  The defaults are those of a run that counts."""

    validators: int = 4
    faults: frozenset[Fault] = frozenset(Fault)
    accounts: int = 16
    fault_start_ms: int = 1_000
    fault_end_ms: int = 13_000
    calm_ms: int = 5_000
    """Of load without faults."""
    progress_ms: int = 10_000
    """Within this, after the faults, every validator executes something new and certified."""
    settle_ms: int = 15_000
    """Within this, after the load, every promise is kept and all stand at one height."""
    virtual_ms_min: int = 20_000
    virtual_ms_max: int = 90_000
    rounds_min: int = 300
    scheme: Scheme | None = None
    """None: the keyed hash, and ML-DSA-65 for every 50th seed."""
    late_start_ms: int = 0
    """When the last validator starts for the first time, with an empty disk; 0: as the others."""
    resync_ms: int = 0
    """When the last validator is stopped and its ledger set aside, as `qnet validator resync` does;
    0: never."""
    keep_lines: bool = False
    joiners: int = 0
    """Validators that register while the network runs, and leave again."""
    epochs: bool = False
    """Whether epochs end where there are no joiners, too: equivocators are punished."""
    approves: bool = False
    """Whether the validators approve other rules while the network runs, and then the first."""
    episodes: tuple[int, ...] | None = None
    """Of the planned faults only these, by their place in the plan; None: all."""
    submitted_max: int | None = None
    """The clients stop after so many transactions; None: after their time."""
    regions: str = ""
    """Which matrix of delays the links have (see `regions`); empty: none, all are alike."""

    def __post_init__(self) -> None:
        """Raises `QnetError(INVALID_PARAMETER)` for times in which no faults can be planned."""
        if not 0 <= self.fault_start_ms <= self.fault_end_ms:
            raise QnetError(Code.INVALID_PARAMETER, "faults end before they start")
        least_ms = faults_last_ms_min(self.faults)
        if self.faults and self.fault_end_ms - self.fault_start_ms < least_ms:
            raise QnetError(
                Code.INVALID_PARAMETER, f"these faults take {least_ms} ms or more, or are none"
            )

    @property
    def epochs_end(self) -> bool:
        return self.epochs or self.approves or self.joiners > 0

    def calm_for(self, calm_ms: int) -> SimConfig:
        """As long after the faults and no longer; such a run counts however short it is."""
        end_ms = self.fault_end_ms + calm_ms
        return replace(self, calm_ms=calm_ms, virtual_ms_min=end_ms, rounds_min=0)


class Rooms(Protocol):
    """The rooms of all validators with storages that outlive their lives."""

    def open(self, index: int) -> tuple[Node, Mapping[RoomKey, Storage]]:
        """The node of a validator, from what its storages hold."""

    def height(self, index: int) -> int:
        """Of the last durable block."""

    def names_of(self, index: int) -> tuple[int, ...]:
        """All validators: the committee of the validator's epoch in its order, then the rest."""

    def committee_of(self, index: int) -> Committee:
        """The committee of the epoch that the validator is in."""

    def rules_of(self, index: int) -> EpochRules:
        """The rules of the epoch that the validator is in."""

    def records(self, index: int, first_height: int) -> list[BlockRecord]:
        """The durable blocks from a height on."""

    def set_ledger_aside(self, index: int) -> None:
        """Takes its ledger from a validator that is stopped."""


RoomsFactory = Callable[[Genesis, list[SimSigner], Provider, int, SnapshotSettings], Rooms]
"""(genesis, signers of the validators, crypto, mempool shards a validator, snapshots)"""
Wrap = Callable[[int, RoomKey, Core], Core]


class Simulation:
    """A run of `seed`.  `rooms` makes the cores; `wrap` may put something around each of them."""

    def __init__(
        self,
        seed: int,
        config: SimConfig,
        rooms: RoomsFactory,
        wrap: Wrap | None = None,
    ) -> None:
        self.seed: Final = seed
        self.config: Final = config
        self.scheduler: Final = Scheduler()
        self.rng: Final = Random(seed)
        self.trace: Final = Trace(self.scheduler, keep_lines=config.keep_lines)
        self.fired: Final[Counter[Fault]] = Counter()
        self.scheme: Final = config.scheme or _scheme_of(seed)
        signing = Signing(self.scheme)
        members = signing.signers("validator", config.validators)
        clients = signing.signers("account", config.accounts)
        joiners = signing.signers("joiner", config.joiners)
        owners = signing.signers("owner", config.joiners)
        # Who approves pays for it, and a validator has nothing but its fees.
        rich = owners + members if config.approves else owners
        matrix = matrix_ms(config.regions, config.validators + config.joiners)
        self.genesis: Final = draw_genesis(
            self.rng, members, clients, rich, longest_ms(matrix), config.epochs_end
        )
        self.faults: Final = self._armed()
        liars: list[int] = []
        if Fault.BYZANTINE in self.faults:
            liars.append(self.rng.randrange(config.validators))
        self.checks: Final = Checks(
            self.genesis,
            lambda: self.scheduler.now_ms,
            self.trace.note,
            self.scheduler.stop,
            frozenset(liars),
            config.joiners,
        )
        self.attacks: Final[Counter[str]] = Counter()
        self.links: Final = Links(
            self.scheduler, self.rng, self.trace, self.fired, (1, self.rng.randrange(4, 24)), matrix
        )
        self.shards: Final = self.rng.choice(SHARDS)
        self.consensus: Final[dict[int, ValidatorCore]] = {}
        """The consensus room of each validator's present life."""
        self._planned = 0
        self._kinds: frozenset[Fault] = frozenset()
        """Of the faults that were not left out; each of them must fire."""
        self._rooms = rooms(
            self.genesis, members + joiners, signing.provider, self.shards, _snapshots(seed)
        )
        self._wrap = wrap
        self.hosts: Final = [
            Host(
                index,
                self.scheduler,
                self.rng,
                self.trace,
                self.links,
                self._open,
                self,
                EPOCH_MS,
                self._rooms.names_of if config.epochs_end else None,
            )
            for index in range(config.validators + config.joiners)
        ]
        self.links.attach(list(self.hosts))
        for host in self.hosts if config.epochs_end else ():
            host.pass_on = partial(self._pass_on, host)
        self.adversaries: Final[list[Adversary]] = []
        for liar in liars:
            adversary = Adversary(
                liar,
                config.validators,
                members[liar],
                self.genesis.chain_id(),
                self.links,
                self.rng,
                self.attacks,
            )
            self.hosts[liar].outgoing = adversary.outgoing
            self.adversaries.append(adversary)
        self.workload: Final = Workload(
            self.scheduler,
            self.rng,
            self.hosts,
            self.checks.accounts,
            signing,
            clients,
            self.genesis.chain_id(),
            self.shards,
            (30, self.rng.randrange(120, 360)),
            lambda: len(self.checks.expected.blocks),
            config.submitted_max,
        )

        actions = Actions(self.hosts, self.checks.accounts, self.genesis)
        self.turnover: Final = Turnover(self.scheduler, actions, joiners, owners)
        self.approving: Final = Approving(
            self.scheduler,
            actions,
            members,
            self.checks.accounts,
            there_and_back(self.genesis) if config.approves else (),
            lambda: {
                (self._rooms.committee_of(host.index).epoch, self._rooms.rules_of(host.index))
                for host in self.hosts
                if host.alive
            },
        )

    def run(self) -> SimResult:
        """The whole run.  Never raises for what happens inside it."""
        started = time.perf_counter()
        for host in self.hosts:
            start_ms = self.rng.randrange(300)
            if host is self.hosts[-1]:
                start_ms = max(start_ms, self.config.late_start_ms)
            self.scheduler.at(start_ms, host.start)
        self.scheduler.at(300, self.workload.start)
        if self.config.resync_ms:
            self.scheduler.at(self.config.resync_ms, self._resync)
        self.scheduler.at(TURNOVER_MS, self.turnover.begin, self._committees)
        self.scheduler.at(TURNOVER_MS, self.approving.begin)
        try:
            self._with_faults()
            self._in_peace()
            self._settle()
        except Stuck as stuck:
            self.checks.fail(-1, "spinning", str(stuck))
        return self._result(time.perf_counter() - started)

    # What the hosts report (`host.Observer`).

    def started(self, index: int, node: Node) -> None:
        rooms, told = self._rooms, self.checks.progress[index].height
        self.checks.restarted(index, rooms.height(index), rooms.records(index, told + 1))

    def sending(self, index: int, message: Message) -> None:
        self.checks.sending(index, message)

    def delivered(self, index: int, event: Any) -> None:
        self.trace.note(index, f"tells {_summary(event)}")
        self.checks.delivered(index, event)

    def failed(self, index: int, invariant: str, reason: str) -> None:
        self.checks.fail(index, invariant, reason)

    def _open(self, index: int) -> tuple[Node, Mapping[RoomKey, Storage]]:
        node, storages = self._rooms.open(index)
        if self.config.epochs_end:
            self.checks.authors[index] = self._rooms.names_of(index).index(index)
        consensus = node.rooms[VALIDATOR]
        if isinstance(consensus, ValidatorCore):
            self.consensus[index] = consensus
        for key, core in node.rooms.items():
            wrapped = core if self._wrap is None else self._wrap(index, key, core)
            node.rooms[key] = self.checks.watch(index, key, wrapped)
        return node, storages

    def _pass_on(self, host: Host, submit: Submit, shard: int) -> None:
        """A gateway sends what waits at a validator that has left to one that is there."""
        chosen = next((h for h in (host, *self.hosts) if h.takes_part), None)
        if chosen is not None:
            chosen.handle(Room.MEMPOOL, submit, shard)

    def committee_of(self, index: int) -> Committee:
        """The committee of the epoch that a validator is in."""
        return self._rooms.committee_of(index)

    def _committees(self) -> list[Committee]:
        """The committee that each of the living is in."""
        return [self._rooms.committee_of(host.index) for host in self.hosts if host.alive]

    def _armed(self) -> frozenset[Fault]:
        """The faults of this run: those enabled, with lies in half of the runs only.

        Too few validators stand no liar, and a lone one has no links.
        """
        validators, faults = self.config.validators, self.config.faults
        if validators < 4 or self.rng.random() < 0.5:
            faults = faults - {Fault.BYZANTINE}
        return faults if validators > 1 else faults - OF_LINKS

    def _with_faults(self) -> None:
        config = self.config
        if self.faults:
            episodes = plan_faults(
                self.rng,
                self.faults,
                range(config.validators),
                config.fault_start_ms,
                config.fault_end_ms,
            )
            self._planned = len(episodes)
            if config.episodes is not None:
                kept = frozenset(config.episodes)
                episodes = [episode for place, episode in enumerate(episodes) if place in kept]
            self._kinds = frozenset(episode.fault for episode in episodes)
            for episode in episodes:
                self.scheduler.at(episode.start_ms, self._begin, episode)
            self._run_until(config.fault_end_ms)
            self.links.calm()
            for adversary in self.adversaries:
                adversary.rest()
            for host in self.hosts:
                host.spare()
        self._note("faults are over")

    def _in_peace(self) -> None:
        """Load without faults until the run is long enough; everyone must come forward in time."""
        config, checks = self.config, self.checks
        begun_ms = self.scheduler.now_ms
        honest = [checks.progress[index] for index in checks.honest]
        goal = max(progress.height for progress in honest) + 1
        progressed = False
        while not self._over():
            now_ms = self.scheduler.now_ms
            lowest = min(honest, key=lambda progress: progress.final_height)
            progressed = progressed or lowest.final_height >= goal
            if not progressed and now_ms - begun_ms >= config.progress_ms:
                index = checks.progress.index(lowest)
                checks.fail(
                    index,
                    "no_progress",
                    f"final at {lowest.final_height}, executed {lowest.height},"
                    f" not {goal}, {config.progress_ms} ms after the faults",
                )
                return
            long_enough = now_ms >= max(config.virtual_ms_min - STEP_MS, begun_ms + config.calm_ms)
            enough = long_enough and checks.round >= config.rounds_min
            unshown = self._unshown()
            if progressed and enough and not unshown:
                return
            if now_ms >= config.virtual_ms_max:
                if unshown:
                    checks.fail(-1, "unshown", f"by {now_ms} ms {', '.join(unshown)}")
                return
            self._run_until(now_ms + STEP_MS)

    def _unshown(self) -> list[str]:
        """What this run is to show and has not shown yet."""
        unshown = []
        if not self.turnover.done:
            unshown.append("not all joiners have come and gone")
        if not self.approving.done:
            unshown.append("not all go by the rules that were to be approved")
        return unshown

    def _settle(self) -> None:
        """Without load: all stand at one height, and no promise stays open."""
        self.workload.stop()
        self._note("load is over")
        checks = self.checks
        end_ms = self.scheduler.now_ms + self.config.settle_ms
        fill_ms = self.scheduler.now_ms + FILL_MS
        quiet = 0
        while not self._over():
            members = [
                i for i in checks.honest if self.hosts[i].takes_part or not self.hosts[i].alive
            ]
            heights = {checks.progress[index].height for index in members}
            for innocent in frozenset().union(*self._proved()) - checks.byzantine:
                checks.fail(innocent, "evidence", "there is evidence against this honest validator")
            # A promise made by now may have been made this very moment: look twice.
            settled = len(heights) == 1 and not checks.batched and len(self._proved()) < 2
            quiet = quiet + 1 if settled else 0
            if quiet > 2:
                return
            # What settles at the very end is looked at twice, too.
            if self.scheduler.now_ms >= end_ms and not settled:
                self._unsettled()
                return
            self._run_until(self.scheduler.now_ms + STEP_MS)
            checks.settle_by_chain(self.workload.bodies.get)
            if self.scheduler.now_ms >= fill_ms:
                fill_ms += FILL_MS
                self.workload.fill_gaps(checks.batched)

    def _proved(self) -> set[frozenset[int]]:
        """Whom the honest validators hold proofs against: one set where all hold the same."""
        return {
            frozenset(proof.author for proof in self.consensus[index].evidence.equivocations())
            for index in self.checks.honest
            if index in self.consensus
        }

    def _unsettled(self) -> None:
        checks = self.checks
        proved = self._proved()
        if len(proved) > 1:
            checks.fail(checks.honest[0], "evidence", f"not all hold the same: {list(proved)}")
        elif checks.batched:
            id_, tellers = next(iter(checks.batched.items()))
            checks.fail(
                min(tellers),
                "lost",
                f"{len(checks.batched)} batched transactions have no outcome, {id_.hex()[:16]}"
                " among them",
            )
        else:
            heights = {index: checks.progress[index].height for index in checks.honest}
            last = min(heights, key=lambda index: heights[index])
            checks.fail(last, "behind", f"heights stay at {list(heights.values())}")

    def _run_until(self, end_ms: int) -> None:
        self.scheduler.run_until(end_ms)

    def _over(self) -> bool:
        return self.checks.violation is not None

    def _note(self, what: str) -> None:
        self.trace.note(-1, what)

    def _begin(self, episode: Episode) -> None:
        fault, targets = episode.fault, episode.targets
        self._note(f"{fault} {list(targets)} {episode.level:.3g} until {episode.end_ms}")
        last_ms = episode.end_ms - self.scheduler.now_ms
        match fault:
            case Fault.CRASH:
                effects = self.rng.randrange(1, CRASH_EFFECTS_MAX)
                self.hosts[targets[0]].crash_soon(effects, episode.end_ms)
            case Fault.BYZANTINE:
                self._lie_anew()
            case Fault.POWER:
                for host in self.hosts:
                    if host.alive:
                        self.fired[fault] += 1
                    host.crash(last_ms + self.rng.randrange(300))
            case Fault.PARTITION:
                others = [i for i in range(len(self.hosts)) if i not in targets]
                self._cut(fault, [(a, b) for a in targets for b in others], last_ms)
            case Fault.RESET:
                if len(targets) == 2:
                    self._cut(fault, [(targets[0], targets[1])], last_ms)
            case Fault.SLOW_DISK:
                host = self.hosts[targets[0]]
                host.timing.extra_write_ms += int(episode.level)
                self.fired[fault] += 1
                self.scheduler.after(last_ms, self._faster, host, int(episode.level))
            case Fault.SKEW:
                self.hosts[targets[0]].skew_ms += int(episode.level)
                self.fired[fault] += 1
            case _:
                self.links.worsen(fault, episode.level)
                self.scheduler.after(last_ms, self._ease, fault, episode.level)

    def _resync(self) -> None:
        host = self.hosts[-1]
        host.crash(None)
        self._note(f"the ledger of {host.index} is set aside")
        self._rooms.set_ledger_aside(host.index)
        self.checks.set_aside(host.index)
        self.scheduler.after(RESYNC_MS, host.start)

    def _cut(self, fault: Fault, pairs: list[tuple[int, int]], last_ms: int) -> None:
        for a, b in pairs:
            self.links.cut(a, b)
            self.scheduler.after(last_ms, self.links.heal, a, b)
        if pairs:
            self.fired[fault] += 1

    def _lie_anew(self) -> None:
        if self.scheduler.now_ms < self.config.fault_end_ms:
            for adversary in self.adversaries:
                adversary.choose()
                self._note(f"validator {adversary.index}: {', '.join(adversary.active)}")
            self.scheduler.after(self.rng.randrange(500, 2_500), self._lie_anew)

    def _ease(self, fault: Fault, level: float) -> None:
        """Takes a fault of messages back, once it has hit one: for a while there may be none."""
        if self.fired[fault] or self.scheduler.now_ms >= self.config.fault_end_ms:
            self.links.ease(fault, level)
        else:
            self.scheduler.after(SILENT_MS, self._ease, fault, level)

    def _faster(self, host: Host, level_ms: int) -> None:
        host.timing.extra_write_ms -= level_ms

    def _result(self, wall_seconds: float) -> SimResult:
        checks, config = self.checks, self.config
        power = self.fired[Fault.POWER]
        self.fired[Fault.CRASH] = sum(host.crashes for host in self.hosts) - power
        self.fired[Fault.BYZANTINE] = sum(self.attacks.values())
        verdict, invariant, reason = Verdict.PASS, "", ""
        silent = sorted(fault for fault in self._kinds if not self.fired[fault])
        violation = checks.violation
        if violation is not None:
            liveness = violation.invariant in _LIVENESS
            verdict = Verdict.NO_PROGRESS if liveness else Verdict.DIVERGED
            invariant = violation.invariant
            reason = (
                f"{invariant} at validator {violation.validator}, {violation.at_ms} ms:"
                f" {violation.reason}"
            )
        elif silent:
            verdict, invariant = Verdict.INVALID, "silent_fault"
            reason = f"these did not fire: {', '.join(silent)}"
        elif checks.round < config.rounds_min or self.scheduler.now_ms < config.virtual_ms_min:
            verdict, invariant = Verdict.INVALID, "too_short"
            reason = f"{checks.round} rounds in {self.scheduler.now_ms} ms"
        return SimResult(
            seed=self.seed,
            verdict=verdict,
            invariant=invariant,
            reason=reason,
            validators=config.validators,
            virtual_seconds=self.scheduler.now_ms / 1000,
            rounds=checks.round,
            commits=len(checks.expected.commits),
            height=len(checks.expected.blocks),
            submitted=self.workload.submitted,
            executed=len(checks.expected.executed),
            messages=self.links.sent,
            bytes_sent=self.links.sent_bytes,
            episodes=self._planned,
            faults_fired={fault.value: self.fired[fault] for fault in Fault if self.fired[fault]},
            attacks=dict(sorted(self.attacks.items())),
            paths_taken=dict(sorted(checks.paths.items())),
            shards=self.shards,
            scheme=self.scheme.name,
            trace_digest=self.trace.digest(),
            wall_seconds=round(wall_seconds, 3),
            lines=self.trace.lines,
        )


def _scheme_of(seed: int) -> Scheme:
    return Scheme.ML_DSA_65 if seed % ML_DSA_EVERY == 0 else Scheme.KEYED_HASH


def _snapshots(seed: int) -> SnapshotSettings:
    """Every other run joins from snapshots where it would else catch up by blocks."""
    return SnapshotSettings(every_bytes=6_000, ahead_blocks_min=6 if seed % 2 else 2_048)


def _summary(event: Any) -> str:
    name = type(event).__name__
    record = getattr(event, "record", None)
    if record is not None:
        header = record.header
        return f"{name} height {header.height} with {header.transaction_count} transactions"
    certificate = getattr(event, "certificate", None)
    if certificate is not None:
        return f"{name} height {certificate.checkpoint.height}"
    status = getattr(event, "status", None)
    return f"{name} {status} x{len(event.ids)}" if status is not None else name
