"""`scripts/kill-state` in small, and whether it would notice a loss."""

from __future__ import annotations

import msgspec

from qnet_actors.experiments import state_kill
from qnet_actors.experiments.state_kill import Acknowledged, run_kills

ACCOUNTS = 2_000


def test_nothing_acknowledged_is_lost(tmp_path):
    lines: list[str] = []
    result = run_kills(2, 7, tmp_path, lines.append, accounts=ACCOUNTS)
    assert result.good
    assert (result.kills, result.lost, result.torn) == (2, 0, 0)
    assert 0 < result.acknowledged <= result.blocks
    assert len(lines) == 2
    msgspec.json.encode(result)


def test_a_loss_and_damage_would_be_noticed(tmp_path, monkeypatch):
    run_kills(1, 3, tmp_path, lambda line: None, accounts=ACCOUNTS)
    foreign = Acknowledged(2, bytes(32), sealing=False, snapshotting=True)
    monkeypatch.setattr(state_kill, "_one_life", lambda *_: [foreign])
    result = run_kills(1, 3, tmp_path, lambda line: None, accounts=ACCOUNTS)
    assert (result.good, result.lost, result.during["snapshot"]) == (False, 1, 1)
    path = tmp_path / "blocks-00000001.duckdb"
    data = bytearray(path.read_bytes())
    data[: len(data) // 2] = bytes(len(data) // 2)
    path.write_bytes(data)
    for derived in (*tmp_path.glob("state-*"), tmp_path / "index.duckdb"):
        derived.unlink()
    result = run_kills(1, 3, tmp_path, lambda line: None, accounts=ACCOUNTS)
    assert (result.good, result.torn) == (False, 1)
    assert "resync" in result.faults[0]
