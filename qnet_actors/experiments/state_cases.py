"""What `qnet bench state` measures: a ledger's own path from keys to a durable block, and others.

The path is the ledger's: `make_block` reads and changes the state, computes the root where the
block is a checkpoint, and encodes the record; `DuckLog` makes it durable.  In the place of
executing transactions, every key that a block reads gets a new nonce and balance.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final, NamedTuple

import duckdb
import numpy as np
import numpy.typing as npt

from qnet_actors.crypto import development_key, provider
from qnet_actors.ledger import (
    Draft,
    DuckLog,
    LogOptions,
    Outcome,
    SnapshotPlan,
    SnapshotSettings,
    SnapshotWrite,
    identity_of,
    make_block,
    recover,
)
from qnet_actors.network.development import VALIDATOR, development_genesis
from qnet_actors.state import split_rows
from qnet_actors.wire.blocks import WriteSet
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.dag import BlockRef, Commit
from qnet_actors.wire.genesis import Genesis
from qnet_actors.wire.hashing import ZERO_DIGEST

FILL_KEYS: Final = 10_000
BLOCK_MS: Final = 100
_SEED: Final = 6_180
_DUCKDB_MEMORY: Final = "1GB"
_LOAD_KEYS: Final = 100_000

Addresses = npt.NDArray[np.uint8]


def benchmark_genesis() -> Genesis:
    """A development network whose accounts the benchmark makes."""
    library = provider("auto")
    members = [development_key(VALIDATOR, index, provider=library) for index in range(4)]
    return development_genesis(members, [])


def addresses_of(count: int) -> Addresses:
    """As many addresses, uint8[count, 32], the same in every run."""
    return np.random.default_rng(_SEED).integers(0, 256, (count, 32), dtype=np.uint8)


def picks_of(addresses: Addresses, keys: int, count: int) -> list[Addresses]:
    """`count` times as many different addresses, at random, the same in every run."""
    random = np.random.default_rng(_SEED + keys)
    return [
        addresses[np.unique(random.integers(0, len(addresses), 2 * keys))[:keys]]
        if 2 * keys < len(addresses)
        else addresses[:keys]
        for _ in range(count)
    ]


class Carried(NamedTuple):
    """The transactions of a block, whatever they are."""

    ids: list[bytes]
    bodies: list[bytes]
    receipts: list[bytes]


NOTHING: Final = Carried([], [], [])


class CommitTimes(NamedTuple):
    """One block: milliseconds until it was executed, and from then until it was durable."""

    execute_ms: float
    write_ms: float
    checkpoint: bool
    sealing: bool
    """Whether the log checkpointed a full file in that time."""
    snapshotting: bool
    pruning: bool

    @property
    def commit_ms(self) -> float:
        return self.execute_ms + self.write_ms


class BenchLedger:
    """A state and a block log, as a ledger holds them."""

    def __init__(
        self,
        directory: Path,
        genesis: Genesis,
        options: LogOptions | None = None,
        snapshots: SnapshotSettings | None = None,
    ) -> None:
        """Opens what is in `directory`, or begins; raises `QnetError` as a validator would."""
        committee = genesis.committee()
        self.log: Final = DuckLog(directory, genesis.chain_id(), options)
        recovered = recover(self.log, genesis)
        self.state: Final = recovered.state
        self.checkpoint = recovered.checkpoint
        self._tip = recovered.tip
        self._commit: Commit | None = None
        self._committee = committee
        self._identity = identity_of(genesis, committee)
        self._plan: Final = SnapshotPlan(
            (snapshots or SnapshotSettings()).every_bytes,
            genesis.parameters.gc_depth,
            recovered.bytes_since_snapshot,
            recovered.commits,
        )

    @property
    def root(self) -> bytes:
        """The state root of the last checkpoint; empty before the first one."""
        return b"" if self.checkpoint is None else self.checkpoint.state_root

    @property
    def height(self) -> int:
        return self._tip.height

    @property
    def block_hash(self) -> bytes:
        return self._tip.block_hash

    def fill(self, addresses: Addresses) -> None:
        """Makes accounts, and a snapshot of them."""
        for start in range(0, len(addresses), FILL_KEYS):
            self.commit(addresses[start : start + FILL_KEYS])
        while self._tip.timestamp_ms % 1_000:
            self.commit(addresses[:1])
        commits = (self._commit,) if self._commit else ()
        self.log.write([SnapshotWrite(self.height, self.root, commits, self.state.snapshot())])
        self._plan.joined(commits)
        self.log.flush()

    def _draft(self) -> Draft:
        """The next block, of one commit."""
        tip = self._tip
        leader = BlockRef(tip.commit_index + 1, 0, ZERO_DIGEST)
        commit = self._commit = Commit(
            epoch=0,
            index=tip.commit_index + 1,
            previous=tip.commit_digest,
            timestamp_ms=tip.timestamp_ms + BLOCK_MS,
            leader=leader,
            blocks=(leader,),
        )
        return Draft(
            commits=(commit,),
            commit_index=commit.index,
            commit_digest=commit.digest(),
            timestamp_ms=commit.timestamp_ms,
            epoch=0,
            batches=(),
        )

    def change(self, keys: Addresses) -> None:
        """Changes `keys` in the state alone, so that nothing can be committed after."""
        self.state.apply(self.state.height + 1, _changed(keys, self.state))

    def commit(self, keys: Addresses, carried: Carried = NOTHING) -> CommitTimes:
        """Reads and changes `keys` in a block with transactions, and makes it durable."""
        log = self.log
        busy = log.sealing, log.snapshotting, log.pruning
        draft = self._draft()
        started = time.perf_counter()

        def run(height: int, batches: Any, rewards: Any, reader: Any, terms: Any = None) -> Outcome:
            changed = _changed(keys, reader)
            return Outcome(carried.ids, carried.bodies, carried.receipts, [], 0, 0, changed)

        block, self._tip = make_block(
            self._identity, self._committee, self._tip, draft, self.state, run
        )
        write, checkpoint = block.write, block.write.record.checkpoint
        if checkpoint is not None:
            self.checkpoint = checkpoint
        snapshot = self._plan.executed(write.record, len(write.encoded), self.state)
        executed = time.perf_counter()
        log.write([write])
        durable = time.perf_counter()
        if snapshot is not None:
            log.write([snapshot])
        return CommitTimes(
            1e3 * (executed - started),
            1e3 * (durable - executed),
            checkpoint is not None,
            busy[0] or log.sealing,
            busy[1] or log.snapshotting,
            busy[2] or log.pruning,
        )


def _changed(keys: Addresses, reader: Any) -> WriteSet:
    """The write set of a block that reads and changes `keys`."""
    values = reader.read(keys)
    order = np.argsort(np.ascontiguousarray(keys).view("S32").ravel(), kind="stable")
    return WriteSet(
        addresses=keys[order].tobytes(),
        nonces=(values.nonces[order] + np.uint64(1)).astype("<u8").tobytes(),
        balances=(values.balances[order] + np.uint64(1_000)).astype("<u8").tobytes(),
        key_ids=values.key_ids[order].tobytes(),
    )


def dict_seconds(addresses: Addresses, picks: list[Addresses]) -> float:
    """The seconds that the same reads and changes take in a dictionary that nothing keeps."""
    accounts = {address: (0, 0, bytes(32)) for address in split_rows(addresses)}
    keys = [split_rows(pick) for pick in picks]
    started = time.perf_counter()
    for block in keys:
        found = [accounts[key] for key in block]
        for key, (nonce, balance, key_id) in zip(block, found, strict=True):
            accounts[key] = (nonce + 1, balance + 1_000, key_id)
    return time.perf_counter() - started


class KeyedTable:
    """The same accounts in a DuckDB table with a primary key: a durable transaction a block."""

    def __init__(self, directory: Path, addresses: Addresses) -> None:
        config: dict[str, Any] = {"memory_limit": _DUCKDB_MEMORY, "threads": 1}
        self._connection = duckdb.connect(str(directory / "keyed.duckdb"), config=config)
        execute = self._connection.execute
        execute("CREATE TABLE accounts(address BLOB, nonce UBIGINT, balance UBIGINT, key_id BLOB)")
        for start in range(0, len(addresses), _LOAD_KEYS):
            rows = addresses[start : start + _LOAD_KEYS]
            self._insert("INSERT", rows, np.zeros(len(rows), dtype=np.uint64))
        # Keys that are checked one by one would take a minute for a million accounts.
        execute("ALTER TABLE accounts ADD PRIMARY KEY(address)")
        execute("CHECKPOINT")

    def seconds(self, picks: list[Addresses]) -> float:
        """The seconds that the same reads and changes take."""
        execute = self._connection.execute
        started = time.perf_counter()
        for keys in picks:
            execute("BEGIN")
            self._connection.register("asked", {"address": _objects(keys)})
            found = execute(
                "SELECT nonce FROM accounts JOIN asked ON accounts.address = asked.address"
            ).fetchnumpy()["nonce"]
            if len(found) != len(keys):
                raise QnetError(Code.INTERNAL, f"{len(found)} of {len(keys)} accounts were found")
            self._insert("INSERT OR REPLACE", keys, found + np.uint64(1))
            execute("COMMIT")
        return time.perf_counter() - started

    def close(self) -> None:
        self._connection.close()

    def _insert(self, verb: str, keys: Addresses, nonces: npt.NDArray[np.uint64]) -> None:
        self._connection.register("given", {"address": _objects(keys), "nonce": nonces})
        self._connection.execute(
            f"{verb} INTO accounts SELECT address, nonce, 1000 * nonce, address FROM given"
        )


def _objects(keys: Addresses) -> npt.NDArray[np.object_]:
    return np.array(split_rows(keys), dtype=object)
