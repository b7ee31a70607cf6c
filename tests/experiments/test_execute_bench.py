"""The measurements of `qnet bench execute`, in small, and that they compare."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from qnet_actors.experiments import execute_bench
from qnet_actors.experiments.execute_bench import ExecuteOptions, pairs_of, run_execute_bench
from qnet_actors.ledger import execute_reference
from qnet_actors.wire.codes import QnetError

SMALL = ExecuteOptions(accounts=50, blocks=2, batches=2, rows=40)


def test_every_shape_is_executed_and_equals_the_reference():
    result = run_execute_bench(SMALL, lambda line: None)
    assert result.transfers == 160
    for shape in (result.uniform, result.zipf, result.hot):
        assert shape.operations_per_second > 0
        assert shape.reference_per_second > 0
    # Fees go to two accounts more.
    assert result.hot.accounts_changed == 52
    assert result.zipf.accounts_changed < result.uniform.accounts_changed
    msgspec.json.encode(result)


def test_shapes_are_what_they_are_called():
    assert set(pairs_of("hot", 100, 500)[1].tolist()) == {0}
    uniform = np.bincount(pairs_of("uniform", 100, 5_000)[1])
    zipf = np.bincount(pairs_of("zipf", 100, 5_000)[1], minlength=100)
    assert uniform.max() < 100
    assert zipf[0] > 700 > 5 * zipf[10]
    assert zipf[0] > 30 * zipf[-10:].mean()


def test_a_reference_that_differs_is_noticed(monkeypatch):
    monkeypatch.setattr(
        execute_bench,
        "execute_reference",
        lambda height, parts, state: execute_reference(height, parts[:1], state),
    )
    with pytest.raises(QnetError, match="comes to something else"):
        run_execute_bench(SMALL, lambda line: None)
