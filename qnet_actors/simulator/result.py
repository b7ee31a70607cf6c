"""What a run came to."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    PASS = "pass"
    DIVERGED = "diverged"
    """An invariant of safety broke."""
    NO_PROGRESS = "no_progress"
    """After the faults the network, or a promise to a client, did not come forward in time."""
    INVALID = "invalid"
    """The run shows nothing: too short, or an enabled fault did not fire."""


@dataclass(frozen=True, slots=True)
class SimResult:
    """One run; the same seed and settings give the same result, but for `wall_seconds`."""

    seed: int
    verdict: Verdict
    invariant: str
    """The name of what broke; empty for a pass."""
    reason: str
    validators: int
    virtual_seconds: float
    rounds: int
    commits: int
    height: int
    submitted: int
    executed: int
    messages: int
    bytes_sent: int
    episodes: int
    """How many faults were planned."""
    faults_fired: dict[str, int]
    attacks: dict[str, int]
    """What the lying validator did, by kind."""
    paths_taken: dict[str, int]
    """How often the rarer ways inside honest validators were taken, by event."""
    shards: int
    scheme: str
    trace_digest: str
    wall_seconds: float
    lines: list[str] = field(default_factory=list, repr=False)
    """The timeline, where one was asked for."""

    def to_json(self) -> dict[str, Any]:
        values = asdict(self)
        del values["lines"]
        return values
