"""What the gateway reads, on both kinds of log."""

from __future__ import annotations

import pytest

from qnet_actors.ledger import DuckLog, LedgerQueries, LogOptions, MemoryLog, recover
from qnet_actors.ledger.writes import CertificateWrite, receipt_id
from qnet_actors.light import LightClient
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.transactions import BODY_CODEC
from tests.ledger.chain import blocks, certificates, chain_genesis
from tests.ledger.rig import PROVIDER
from tests.ledger.world import address

GENESIS = chain_genesis()


@pytest.fixture(params=["memory", "disk"])
def log(request, tmp_path):
    made: MemoryLog | DuckLog
    if request.param == "memory":
        made = MemoryLog()
    else:
        made = DuckLog(
            tmp_path, GENESIS.chain_id(), LogOptions(fsync=False, segment_size_bytes=9_000)
        )
    yield made
    made.close()


@pytest.fixture
def queries(log):
    log.write(blocks()[:20])
    return LedgerQueries(log, recover(log, GENESIS).state)


def test_blocks_by_height_hash_and_latest(queries):
    assert queries.last_height() == 20
    for selector, expected in [
        (1, 1),
        (20, 20),
        (None, 20),
        (blocks()[6].block_hash, 7),
        (0, None),
        (21, None),
        (2**64 - 1, None),
        (bytes(32), None),
    ]:
        block, header = queries.block(selector), queries.header(selector)
        if expected is None:
            assert block is header is None
        else:
            assert block == blocks()[expected - 1].record
            assert header == block.header


def test_pages_of_headers_go_down(queries):
    def page(before: int | None, count: int) -> list[int]:
        found = queries.headers_before(before, count)
        assert all(header.hash() == hash_ for header, hash_ in found)
        return [header.height for header, _ in found]

    assert page(None, 3) == [20, 19, 18]
    assert page(18, 3) == [17, 16, 15]
    assert page(3, 10) == [2, 1]
    assert page(1, 10) == page(0, 10) == []
    assert page(10**12, 2) == [20, 19]
    assert page(None, 10**9) == list(range(20, 0, -1))


def test_transactions_by_id(queries):
    for block in blocks()[:20]:
        for position, receipt in enumerate(block.record.receipts):
            found = queries.transaction(receipt_id(receipt))
            assert found.place.position == position
            assert found.header == block.record.header
            assert found.block_hash == block.block_hash
            assert (found.body, found.receipt) == (block.record.bodies[position], receipt)
            assert BODY_CODEC.decode(found.body).nonce >= 0
    assert queries.transaction(receipt_id(blocks()[22].record.receipts[0])) is None


def test_proofs_of_final_transactions(log):
    light, queries = LightClient(GENESIS, PROVIDER), LedgerQueries(log)
    final = [c for c in certificates() if c.checkpoint.height <= 20]
    for height, block in enumerate(blocks()[:20], 1):
        log.write([block])
        with pytest.raises(QnetError) as refused:
            queries.proved_transaction(receipt_id(block.record.receipts[0]))
        assert refused.value.code is Code.NOT_FOUND
        log.write([CertificateWrite(c) for c in final if c.checkpoint.height == height])
    for block in blocks()[: final[-1].checkpoint.height]:
        for position, receipt in enumerate(block.record.receipts):
            id_ = receipt_id(receipt)
            proved = queries.proved_transaction(id_)
            assert proved is not None
            found = light.transaction(id_, proved)
            assert (found.header, found.index) == (block.record.header, position)
    assert queries.proved_transaction(bytes(32)) is None


def test_accounts_of_the_newest_state(queries):
    account = queries.account(address(1))
    assert (account.height, account.nonce, account.key_id) == (20, 6, address(1))
    assert 0 < account.balance < 10**12
    nobody = queries.account(b"\x01" * 32)
    assert (nobody.nonce, nobody.balance, nobody.key_id) == (0, 0, bytes(32))
    assert queries.certificate() is None


def test_nothing_yet():
    log = MemoryLog()
    queries = LedgerQueries(log, recover(log, GENESIS).state)
    assert queries.block(None) is None
    assert queries.header(None) is None
    assert queries.headers_before(None, 5) == []
