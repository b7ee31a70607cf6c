"""Batches: columns, sections, roots and bounds."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnet_actors.wire import batches, limits
from qnet_actors.wire.batches import (
    Batch,
    BodyColumns,
    batch_transactions,
    build_batch,
    decode_batch,
    encode_bodies,
)
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.hashing import BATCH, BATCH_BODIES, BATCH_WITNESSES, hash32
from qnet_actors.wire.schemes import SCHEME_SIZES, Scheme
from qnet_actors.wire.transactions import Body, Transaction, Transfer, Witness, payload_bytes
from tests.strategies import bodies, made_batches, signed, tuples
from tests.wire import forms

CHAIN = b"c" * 32
NAMES: dict[str, Any] = {"chain_id": CHAIN, "epoch": 3, "author": 2, "shard": 1, "sequence": 9}


def transaction(nonce: int = 0, key: bytes = b"", scheme: int = 255, **changes: object):
    body = Body(1, CHAIN, b"s" * 32, b"k" * 32, nonce, 0, 1_000, 1, (), Transfer(b"p" * 32, 5))
    body = msgspec.structs.replace(body, **changes)
    return Transaction(body, Witness(scheme, bytes(SCHEME_SIZES[Scheme(scheme)].signature), key))


def three() -> Batch:
    return build_batch([transaction(n, bytes((n,)) * 32) for n in range(3)], **NAMES)


def reassemble(batch: Batch, *, bodies=None, witnesses=None, roots=True, **header: object) -> bytes:
    """The bytes of a batch with parts replaced, and the roots made to fit unless told."""
    bodies = batch.bodies if bodies is None else bodies
    witnesses = batch.witnesses if witnesses is None else witnesses
    if roots:
        header = {
            "bodies_root": hash32(BATCH_BODIES, bodies),
            "witnesses_root": hash32(BATCH_WITNESSES, witnesses),
        } | header
    changed = msgspec.structs.replace(batch.header, **header)
    return forms.canonical([encode(changed), bodies, witnesses])


def code_of(data: bytes) -> Code:
    with pytest.raises(QnetError) as caught:
        decode_batch(data)
    return caught.value.code


@given(made_batches())
def test_a_batch_survives_a_round_trip(batch):
    again = decode_batch(batch.encode())
    assert (again.header, again.bodies, again.witnesses) == (
        batch.header,
        batch.bodies,
        batch.witnesses,
    )
    assert again.digest == batch.digest == hash32(BATCH, encode(batch.header))
    assert again.size_bytes == batch.size_bytes
    assert again.ref == batch.ref
    assert again.public_keys == batch.public_keys


@given(tuples(signed(bodies(chain_id=CHAIN, valid=True), 255), 1, 5))
def test_rows_come_back_as_the_transactions_that_went_in(transactions):
    batch = build_batch(transactions, **NAMES)
    stripped = [
        Transaction(t.body, msgspec.structs.replace(t.witness, public_key=b""))
        for t in transactions
    ]
    assert batch_transactions(batch) == stripped
    keys = [t.witness.public_key for t in transactions if t.witness.public_key]
    assert batch.public_keys == list(dict.fromkeys(keys))
    assert [row.tobytes() for row in batch.signatures] == [
        t.witness.signature for t in transactions
    ]


@given(tuples(bodies(chain_id=CHAIN), 1, 5))
def test_the_bodies_section_is_laid_out_as_the_reference_says(drawn):
    """The layout of docs/reference/wire.md, written out with `int.to_bytes`."""
    payloads = [payload_bytes(body) for body in drawn]
    ends = [sum(map(len, payloads[:i])) for i in range(len(payloads) + 1)]
    expected = b"".join(
        [
            *(body.sender for body in drawn),
            *(body.key_id for body in drawn),
            *(body.nonce.to_bytes(8, "little") for body in drawn),
            *(body.valid_until.to_bytes(8, "little") for body in drawn),
            *(body.gas_limit.to_bytes(4, "little") for body in drawn),
            *(body.gas_price.to_bytes(4, "little") for body in drawn),
            *(end.to_bytes(4, "little") for end in ends),
            *payloads,
        ]
    )
    assert encode_bodies(drawn) == expected
    columns = BodyColumns(expected, len(drawn))
    assert columns.nonces.tolist() == [body.nonce for body in drawn]
    assert columns.gas_prices.tolist() == [body.gas_price for body in drawn]
    assert [columns.row_payload(row) for row in range(len(drawn))] == payloads
    # A section that begins at an odd address reads the same.
    shifted = BodyColumns(memoryview(b"x" + expected)[1:], len(drawn))
    assert shifted.valid_until.tolist() == columns.valid_until.tolist()


@pytest.mark.parametrize("count", [0, 1, 2, 4, 1_024, 1_025, 2**20, 2**32 - 1])
def test_a_count_that_does_not_fit_the_sections_is_refused(count):
    assert code_of(reassemble(three(), count=count, key_count=0)) is Code.MALFORMED


@pytest.mark.parametrize("key_count", [0, 2, 4, 2**32 - 1])
def test_a_key_count_that_does_not_fit_is_refused(key_count):
    assert code_of(reassemble(three(), key_count=key_count)) is Code.MALFORMED


def test_more_keys_than_transactions_are_refused():
    batch = build_batch([transaction(key=b"a" * 32)], **NAMES)
    data = reassemble(batch, witnesses=batch.witnesses + b"b" * 32, key_count=2)
    assert code_of(data) is Code.MALFORMED


@pytest.mark.parametrize(
    "offsets",
    [
        [0, 38, 76, 113],
        [0, 38, 76, 115],
        [1, 38, 76, 114],
        [0, 76, 38, 114],
        [0, 38, 38, 114],
        [0, 38, 39, 114],
        [0, 0, 0, 114],
        [0, 114, 114, 114],
        [0, 2**32 - 1, 76, 114],
        [2**32 - 1, 38, 76, 114],
        [0, 38, 76, 2**32 - 1],
    ],
)
def test_offsets_that_do_not_cover_the_payloads_in_order_are_refused(offsets):
    batch = three()
    fixed, payloads = batch.bodies[: 3 * 88], batch.bodies[3 * 88 + 4 * 4 :]
    assert len(payloads) == 3 * 38

    def section(values: list[int]) -> bytes:
        return fixed + np.array(values, dtype="<u4").tobytes() + payloads

    assert section([0, 38, 76, 114]) == batch.bodies
    assert code_of(reassemble(batch, bodies=section(offsets))) is Code.MALFORMED


@given(st.data())
def test_a_bodies_section_of_another_length_is_refused(data):
    batch = three()
    length = data.draw(st.integers(0, len(batch.bodies) + 40))
    section = (batch.bodies + bytes(40))[:length]
    if length != len(batch.bodies):
        assert code_of(reassemble(batch, bodies=section)) is Code.MALFORMED


@pytest.mark.parametrize("change", [-33, -32, -1, 1, 31, 32])
def test_a_witnesses_section_of_another_length_is_refused(change):
    batch = three()
    witnesses = (batch.witnesses + bytes(32))[: len(batch.witnesses) + change]
    assert code_of(reassemble(batch, witnesses=witnesses)) is Code.MALFORMED


@pytest.mark.parametrize("root", ["bodies_root", "witnesses_root"])
def test_a_root_that_is_not_the_sections_is_refused(root):
    assert code_of(reassemble(three(), **{root: bytes(32)})) is Code.MALFORMED


@given(st.data())
def test_a_changed_bit_changes_the_digest_or_is_refused(data):
    batch = three()
    changed = bytearray(batch.encode())
    bit = data.draw(st.integers(0, 8 * len(changed) - 1))
    changed[bit // 8] ^= 1 << bit % 8
    try:
        assert decode_batch(bytes(changed)).digest != batch.digest
    except QnetError as error:
        assert error.code in Code  # noqa: PT017


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"version": 0}, Code.UNSUPPORTED_VERSION),
        ({"version": 2}, Code.UNSUPPORTED_VERSION),
        ({"scheme": 0}, Code.UNKNOWN_SCHEME),
        ({"scheme": 6}, Code.UNKNOWN_SCHEME),
        ({"scheme": 2}, Code.MALFORMED),
        ({"shard": limits.SHARDS_MAX}, Code.MALFORMED),
    ],
)
def test_a_header_out_of_its_bounds_is_refused(changes, code):
    assert code_of(reassemble(three(), **changes)) is code


def test_a_header_that_is_not_canonical_is_refused():
    batch = three()
    for what, header in forms.departures(forms.tree_of(batch.header_bytes)):
        data = forms.canonical([header, batch.bodies, batch.witnesses])
        assert code_of(data) in {Code.MALFORMED, Code.NON_CANONICAL, Code.TOO_LARGE}, what


def test_gas_limits_that_add_up_to_too_much_are_refused():
    most = limits.BATCH_GAS_MAX // limits.GAS_LIMIT_MAX
    full = [transaction(n, gas_limit=limits.GAS_LIMIT_MAX) for n in range(most)]
    assert build_batch(full, **NAMES).header.count == most
    with pytest.raises(QnetError) as caught:
        build_batch([*full, transaction()], **NAMES)
    assert caught.value.code is Code.GAS_LIMIT_TOO_HIGH


def test_a_batch_holds_one_to_1024_transactions():
    assert build_batch([transaction()], **NAMES).header.count == 1
    most = [transaction(n) for n in range(limits.BATCH_TRANSACTIONS_MAX)]
    assert build_batch(most, **NAMES).header.count == limits.BATCH_TRANSACTIONS_MAX
    for wrong in ([], [*most, transaction()]):
        with pytest.raises(QnetError) as caught:
            build_batch(wrong, **NAMES)
        assert caught.value.code is Code.MALFORMED


@pytest.mark.parametrize(
    "other",
    [transaction(scheme=4), transaction(chain_id=b"d" * 32), transaction(version=2)],
    ids=["scheme", "chain", "version"],
)
def test_transactions_that_do_not_belong_together_make_no_batch(other):
    with pytest.raises(QnetError) as caught:
        build_batch([transaction(), other], **NAMES)
    assert caught.value.code is Code.MALFORMED


def test_a_batch_that_nobody_could_decode_is_not_built():
    """1,024 transactions of ML-DSA-87 with a key each are over the limit."""
    count = limits.BATCH_TRANSACTIONS_MAX
    transactions = [
        transaction(n, n.to_bytes(4, "big") * (2_592 // 4), scheme=3) for n in range(count)
    ]
    with pytest.raises(QnetError) as caught:
        build_batch(transactions, **NAMES)
    assert caught.value.code is Code.TOO_LARGE
    data = build_batch(transactions[: count // 2], **NAMES).encode()
    assert decode_batch(data).header.count == count // 2


def test_payloads_over_their_bound_are_refused():
    count = 17
    big = bytes(limits.BATCH_PAYLOAD_BYTES_MAX // count + 1)
    batch = build_batch([transaction(n) for n in range(count)], **NAMES)
    offsets = np.arange(count + 1, dtype="<u4") * len(big)
    section = batch.bodies[: count * 88] + offsets.astype("<u4").tobytes() + big * count
    assert code_of(reassemble(batch, bodies=section)) is Code.TOO_LARGE


def test_the_framing_is_counted_in_full():
    parts = batches._BatchParts(bytes(300), bytes(70_000), bytes(70_000))
    framing = len(encode(parts)) - 300 - 70_000 - 70_000
    assert framing == batches._FRAMING_BYTES_MAX
