"""Where a validator stands."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ValidatorStatus:
    """For metrics and the simulator; counts are of this life."""

    round: int = 0
    commit_index: int = 0
    gc_round: int = 0
    commits_emitted: int = 0
    certified_height: int = 0
    dag_blocks: int = 0
    waiting_blocks: int = 0
    invalid_blocks: int = 0
    dropped_blocks: int = 0
    equivocations: int = 0
    timeouts: int = 0
    split_height: int = 0
    """A height at which no checkpoint can be certified any more; 0: none."""
    memory_lost: bool = False
    catching_up: bool = False
