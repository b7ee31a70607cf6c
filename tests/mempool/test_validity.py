"""A batch's verdict depends on its bytes only, and nothing that a peer sends raises."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnet_actors.mempool.keys import KeyStore, KeyTable
from qnet_actors.mempool.validity import Opened, Refused, check_batch, open_batch, peek
from qnet_actors.wire.batches import Batch, BatchHeader, build_batch
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.hashing import BATCH, hash32
from qnet_actors.wire.limits import BATCH_SIZE_BYTES_MAX
from qnet_actors.wire.schemes import Scheme
from qnet_actors.wire.transactions import Transaction, Witness
from tests.mempool.world import CHAIN_ID, SCHEME, VERIFIER, ZERO, Client
from tests.strategies import made_batches

ALICE, BOB = Client(1), Client(2)
SCHEMES = frozenset({int(SCHEME)})


def build(*transactions: Transaction, **fields) -> Batch:
    terms: dict[str, Any] = {
        "chain_id": CHAIN_ID,
        "epoch": 0,
        "author": 1,
        "shard": 0,
        "sequence": 1,
    }
    return build_batch(transactions, **(terms | fields))


GOOD = build(*[ALICE.transaction(n) for n in range(5)], BOB.transaction(0))


def verdict(batch: Batch) -> bool:
    opened = open_batch(batch.encode(), CHAIN_ID, SCHEMES)
    assert isinstance(opened, Opened)
    keys = KeyStore(10).table(SCHEME, opened.key_ids, opened.brought)
    assert isinstance(keys, KeyTable)
    return check_batch(opened, keys, VERIFIER, rows=2)


def test_a_good_batch_is_valid() -> None:
    assert verdict(GOOD)


@pytest.mark.parametrize("row", range(6))
def test_one_bad_signature_anywhere_refuses_the_batch(row: int) -> None:
    transactions = [*[ALICE.transaction(n) for n in range(5)], BOB.transaction(0)]
    bad = bytearray(transactions[row].witness.signature)
    bad[row] ^= 1
    transactions[row] = Transaction(
        transactions[row].body, Witness(SCHEME, bytes(bad), transactions[row].witness.public_key)
    )
    assert not verdict(build(*transactions))


def test_a_signature_of_another_key_is_bad() -> None:
    mine = BOB.transaction(0)
    forged = ALICE.transaction(0, signature=mine.witness.signature)
    assert not verdict(build(forged, mine))


def refused(batch: Batch, chain_id: bytes = CHAIN_ID) -> Refused:
    result = open_batch(batch.encode(), chain_id, SCHEMES)
    assert isinstance(result, Refused)
    return result


def test_refusals_that_the_digest_decides() -> None:
    assert refused(GOOD, ZERO) == Refused(Code.WRONG_CHAIN, of_bytes=True)
    cheap = build(ALICE.transaction(0, gas_limit=1))
    assert refused(cheap) == Refused(Code.GAS_LIMIT_TOO_LOW, of_bytes=True)
    other = Transaction(ALICE.transaction(0).body, Witness(Scheme.ED25519, bytes(64), bytes(32)))
    assert refused(build(other)) == Refused(Code.SCHEME_REFUSED, of_bytes=True)


def rebuilt(batch: Batch, witnesses: bytes, key_count: int) -> Batch:
    from qnet_actors.wire.hashing import BATCH_WITNESSES

    header = msgspec.structs.replace(
        batch.header, key_count=key_count, witnesses_root=hash32(BATCH_WITNESSES, witnesses)
    )
    return Batch(header, batch.bodies, witnesses)


def test_keys_that_nobody_needs_refuse_the_batch() -> None:
    foreign = rebuilt(GOOD, GOOD.witnesses + Client(3).public_key, 3)
    twice = rebuilt(GOOD, GOOD.witnesses + ALICE.public_key, 3)
    for batch in (foreign, twice):
        assert refused(batch) == Refused(Code.MALFORMED, of_bytes=True)


def test_what_does_not_match_its_header_is_the_senders_fault() -> None:
    parts = msgspec.msgpack.decode(GOOD.encode())
    for place in (1, 2):
        damaged = list(parts)
        damaged[place] = damaged[place][:-1] + bytes([damaged[place][-1] ^ 1])
        result = open_batch(encode(damaged), CHAIN_ID, SCHEMES)
        assert isinstance(result, Refused)
        assert not result.of_bytes


def test_peek_gives_the_header_and_the_digest() -> None:
    assert peek(GOOD.encode()) == (GOOD.header, GOOD.digest)


@given(made_batches())
def test_peek_agrees_with_the_whole_batch(batch: Batch) -> None:
    assert peek(batch.encode()) == (batch.header, batch.digest)


def test_peek_knows_both_lengths_of_a_header() -> None:
    header = msgspec.structs.replace(GOOD.header, epoch=2**63, sequence=2**63, count=2**31)
    assert len(encode(header)) < 256
    parts = [bytes(300), b"", b""]
    with pytest.raises(QnetError) as error:
        peek(encode(parts))
    assert error.value.code == Code.MALFORMED


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", Code.MALFORMED),
        (b"\x93", Code.MALFORMED),
        (b"\x93\xc4", Code.MALFORMED),
        (b"\x93\xc5\x00", Code.MALFORMED),
        (b"\x92\xc4\x00", Code.MALFORMED),
        (b"\x93\xc4\x00\xc4\x00\xc4\x00", Code.MALFORMED),
        (bytes(BATCH_SIZE_BYTES_MAX + 1), Code.TOO_LARGE),
    ],
)
def test_peek_refuses(data: bytes, code: Code) -> None:
    with pytest.raises(QnetError) as error:
        peek(data)
    assert error.value.code == code


def test_peek_refuses_another_version() -> None:
    header = msgspec.structs.replace(GOOD.header, version=2)
    with pytest.raises(QnetError) as error:
        peek(encode([encode(header), b"", b""]))
    assert error.value.code == Code.UNSUPPORTED_VERSION


def resealed(header: BatchHeader, data: bytes) -> bytes:
    parts = msgspec.msgpack.decode(data)
    return encode([encode(header), parts[1], parts[2]])


@given(st.data())
def test_no_bytes_raise_anything(data: st.DataObject) -> None:
    whole = GOOD.encode()
    kind = data.draw(st.sampled_from(["noise", "flip", "cut", "header"]))
    if kind == "noise":
        made = data.draw(st.binary(max_size=600))
    elif kind == "flip":
        at = data.draw(st.integers(0, len(whole) - 1))
        made = whole[:at] + bytes([data.draw(st.integers(0, 255))]) + whole[at + 1 :]
    elif kind == "cut":
        made = whole[: data.draw(st.integers(0, len(whole)))]
    else:
        field = data.draw(st.sampled_from(["count", "key_count", "scheme", "shard", "epoch"]))
        value = data.draw(st.integers(0, 255))
        made = resealed(msgspec.structs.replace(GOOD.header, **{field: value}), whole)
    result = open_batch(made, CHAIN_ID, SCHEMES)
    if isinstance(result, Opened):
        # The header is covered by no root of its own, so another one is another batch.
        assert (result.batch.digest == GOOD.digest) == (made == whole)
        assert result.batch.digest == hash32(BATCH, encode(result.batch.header))
    else:
        assert result.code >= 100
