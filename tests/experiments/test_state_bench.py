"""The measurements of `qnet bench state`, in small."""

from __future__ import annotations

import multiprocessing
import os
import threading

import msgspec
import pytest

from qnet_actors.experiments import state_bench, state_cases
from qnet_actors.experiments.flush_counter import FlushCounter
from qnet_actors.experiments.state_bench import StateOptions, run_state_bench
from qnet_actors.experiments.state_cases import BenchLedger, addresses_of, benchmark_genesis
from qnet_actors.wire.codes import QnetError


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(state_bench, "LARGE_KEYS", 1_000)
    monkeypatch.setattr(state_bench, "_PROOFS", 50)
    monkeypatch.setattr(state_bench, "_FLUSH_ACCOUNTS", 1_000)
    monkeypatch.setattr(state_cases, "FILL_KEYS", 1_000)


def test_the_whole_in_small(small, tmp_path):
    lines: list[str] = []
    options = StateOptions(accounts=4_000, keys=100, commits=30, large_commits=2, seals=0)
    result = run_state_bench(options, tmp_path, lines.append)
    assert result.operations_per_second > result.duckdb_operations_per_second > 0
    assert result.ratio_to_duckdb > 1 > result.ratio_to_dict > 0
    assert result.commit_ms.count == result.write_ms.count == 27
    assert result.root_ms.count == 3
    assert result.tree_us_per_key > 0
    assert result.proof_bytes.mean > 300
    assert result.restart.seconds >= result.restart.recover_seconds > 0
    assert result.restart.blocks_replayed == 32
    if result.flushes is not None:
        assert result.flushes.per_commit == 1.0
        assert result.flushes.commits == 600
    assert "proofs" in lines
    msgspec.json.encode(result)


def test_a_ledger_goes_on_where_it_was_left(small, tmp_path):
    genesis, addresses = benchmark_genesis(), addresses_of(2_000)
    ledger = BenchLedger(tmp_path, genesis)
    ledger.fill(addresses)
    height, root = ledger.height, ledger.root
    ledger.log.close()
    again = BenchLedger(tmp_path, genesis)
    assert (again.height, again.root) == (height, root)
    assert len(again.state) == 2_000
    again.commit(addresses[:10])
    again.log.close()


def test_a_process_that_fails_is_noticed():
    with pytest.raises(QnetError, match="failed"):
        state_bench._in_process(os._exit, 3)


def count(sending):
    """In a process of its own, for a filter stays."""
    try:
        counter = FlushCounter()
    except OSError:
        sending.send(None)
        return
    descriptor = os.open(".", os.O_RDONLY)
    for _ in range(3):
        os.fsync(descriptor)

    def other() -> None:
        os.fsync(descriptor)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    own = counter.by_thread[threading.get_native_id()]
    sending.send((own, counter.by_thread.total()))


def test_flushes_are_counted_by_thread():
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=count, args=(sending,))
    process.start()
    assert receiving.poll(60)
    counted = receiving.recv()
    process.join()
    if counted is None:
        pytest.skip("this kernel or container does not let calls be counted")
    assert counted == (3, 4)
