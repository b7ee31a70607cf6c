"""Where a validator stands."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ValidatorStatus:
    """For metrics and the simulator; counts are of this life."""

    round: int
    commit_index: int
    gc_round: int
    commits_emitted: int
    certified_height: int
    dag_blocks: int
    waiting_blocks: int
    invalid_blocks: int
    dropped_blocks: int
    equivocations: int
    timeouts: int
    split_height: int
    """A height at which no checkpoint can be certified any more; 0: none."""
    memory_lost: bool
    catching_up: bool
