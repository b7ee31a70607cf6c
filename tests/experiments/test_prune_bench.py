"""The measurements of `qnet bench prune`, in small."""

from __future__ import annotations

from pathlib import Path

import msgspec

from qnet_actors.experiments import state_cases
from qnet_actors.experiments.prune_bench import PruneOptions, run_prune_bench


def test_each_retention_leaves_less_and_commits_go_on(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(state_cases, "FILL_KEYS", 500)
    options = PruneOptions(
        accounts=1_000,
        blocks=120,
        transfers=100,
        commits=20,
        kept_blocks=5,
        segment_size_bytes=400_000,
    )
    result = run_prune_bench(options, tmp_path, lambda line: None)

    assert result.archive.bytes > result.full.bytes > result.light.bytes > 0
    assert result.archive.blocks_pruned == 0
    for left in (result.full, result.light):
        assert left.blocks_pruned > 10
        assert left.commit_ms.count + left.commit_ms_pruning.count <= 20
    assert not list(tmp_path.glob("light*"))
    msgspec.json.encode(result)
