"""Sorted files of places, against a list."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnet_actors.ledger.runs import Run, write_run
from qnet_actors.ledger.writes import Place
from qnet_actors.wire.codes import Code, QnetError

prefixes = st.sampled_from([0, 1, 2, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1)


@settings(max_examples=60)
@given(st.lists(prefixes, max_size=40), prefixes, st.sampled_from([1, 3, 64]))
def test_finds_what_a_search_of_all_rows_does(tmp_path_factory, held, other, count):
    path = tmp_path_factory.mktemp("runs") / "one.run"
    rows = np.arange(len(held))
    write_run(
        path,
        np.array(held, dtype=np.uint64),
        rows.astype(np.uint64) + np.uint64(7),
        rows.astype(np.uint32),
        fsync=False,
    )
    run = Run(path)
    for prefix in (*held, other):
        expected = [Place(row + 7, row) for row, value in enumerate(held) if value == prefix]
        assert run.find(np.uint64(prefix), count) == expected[:count]


@pytest.mark.parametrize("data", [b"", b"qnetrun1", b"qnetrun1" + bytes(7), b"x" * 16])
def test_what_is_no_run_is_refused(tmp_path, data):
    path = tmp_path / "one.run"
    path.write_bytes(data)
    with pytest.raises(QnetError) as refused:
        Run(path)
    assert refused.value.code is Code.DATA_CORRUPT


def test_nothing_else_is_left_behind(tmp_path):
    write_run(
        tmp_path / "one.run",
        np.zeros(0, dtype=np.uint64),
        np.zeros(0, dtype=np.uint64),
        np.zeros(0, dtype=np.uint32),
        fsync=True,
    )
    assert [path.name for path in tmp_path.iterdir()] == ["one.run"]
    assert Run(tmp_path / "one.run").find(np.uint64(0), 8) == []
