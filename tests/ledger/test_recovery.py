"""A log that does not hold together is not started from."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from qnet_actors.ledger import MemoryLog, recover, recovery
from qnet_actors.ledger.writes import BlockWrite
from qnet_actors.state import State
from qnet_actors.wire.blocks import BLOCK_RECORD_CODEC
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from tests.ledger.chain import blocks, chain_genesis

GENESIS = chain_genesis()


def damaged(height: int, **changes: Any) -> MemoryLog:
    """A log with one record changed in its bytes."""
    log = MemoryLog()
    log.write(blocks())
    disk = log._disk.blocks
    record = msgspec.structs.replace(disk[height - 1].record, **changes)
    disk[height - 1] = BlockWrite(record, disk[height - 1].block_hash, encode(record))
    return log


def test_the_whole_log():
    log = MemoryLog()
    log.write(blocks())
    recovered = recover(log, GENESIS, lambda: State(4))
    assert recovered.tip.block_hash == blocks()[-1].block_hash
    assert recovered.state.height == 24
    assert recovered.commits[-1].digest() == recovered.tip.commit_digest
    assert recovered.checkpoint is not None
    assert recovered.bytes_since_snapshot == sum(len(block.encoded) for block in blocks())


@pytest.mark.parametrize("count", range(1, 9))
def test_the_last_checkpoint_is_found_wherever_it_stands(count, monkeypatch):
    monkeypatch.setattr(recovery, "_CHUNK_RECORDS", 2)
    log = MemoryLog()
    log.write(blocks()[:count])
    expected = [b.record.header.height for b in blocks()[:count] if b.record.checkpoint is not None]
    assert recovery._last_checkpoint(log, GENESIS) == max(expected, default=0)
    recovered = recover(log, GENESIS)
    assert recovered.tip.height == count
    assert (recovered.checkpoint is None) == (not expected)


def test_nothing_at_all():
    recovered = recover(MemoryLog(), GENESIS)
    assert (recovered.tip.height, recovered.commits, recovered.checkpoint) == (0, (), None)
    assert len(recovered.state) == 8


@pytest.mark.parametrize("what", ["header", "last_header", "write_set", "both", "root", "no_root"])
def test_damage_is_found(what):
    record = BLOCK_RECORD_CODEC.decode(blocks()[7].encoded)
    header = msgspec.structs.replace(record.header, gas_used=1)
    written = msgspec.structs.replace(
        record.write_set, balances=bytes(len(record.write_set.balances))
    )
    checkpointed = [b for b in blocks() if b.record.checkpoint is not None][-1]
    height = checkpointed.record.header.height
    checkpoint = checkpointed.record.checkpoint
    assert checkpoint is not None
    log = {
        "header": lambda: damaged(8, header=header),
        "last_header": lambda: damaged(
            24, header=msgspec.structs.replace(blocks()[23].record.header, gas_used=1)
        ),
        "write_set": lambda: damaged(8, write_set=written),
        "both": lambda: damaged(
            8,
            write_set=written,
            header=msgspec.structs.replace(record.header, write_set_digest=written.digest()),
        ),
        "root": lambda: damaged(
            height, checkpoint=msgspec.structs.replace(checkpoint, state_root=bytes(32))
        ),
        "no_root": lambda: damaged(height, checkpoint=None),
    }[what]()
    with pytest.raises(QnetError) as caught:
        recover(log, GENESIS)
    assert caught.value.code is Code.DATA_CORRUPT
