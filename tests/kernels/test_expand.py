"""The fast way to open a batch is held to the slow one, errors included."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnet_actors.kernels.expand import KIND_OTHER, KIND_TRANSFER, expand, expand_reference
from qnet_actors.wire import limits
from qnet_actors.wire.batches import Batch, build_batch, decode_batch
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.hashing import BATCH_BODIES, hash32
from qnet_actors.wire.transactions import (
    Access,
    Body,
    MultiTransfer,
    Payment,
    RotateKey,
    Transaction,
    Transfer,
    Witness,
    transaction_id,
)
from tests.strategies import digests, made_batches, unsigned

CHAIN = b"c" * 32


def body(**changes: object) -> Body:
    plain = Body(
        version=1,
        chain_id=CHAIN,
        sender=b"s" * 32,
        key_id=b"k" * 32,
        nonce=7,
        valid_until=0,
        gas_limit=1_000,
        gas_price=1,
        access=(),
        action=Transfer(b"p" * 32, 5),
    )
    return msgspec.structs.replace(plain, **changes)


def batch_of(*bodies: Body) -> Batch:
    witness = Witness(255, bytes(32), b"")
    return build_batch(
        [Transaction(body, witness) for body in bodies],
        chain_id=CHAIN,
        epoch=0,
        author=0,
        shard=0,
        sequence=0,
    )


def with_payloads(batch: Batch, payloads: list[bytes]) -> Batch:
    """The batch with other payloads in it, whatever they are."""
    fixed = batch.header.count * 88
    offsets = np.cumsum([0, *map(len, payloads)]).astype("<u4").tobytes()
    section = batch.bodies[:fixed] + offsets + b"".join(payloads)
    header = msgspec.structs.replace(batch.header, bodies_root=hash32(BATCH_BODIES, section))
    return decode_batch(Batch(header, section, batch.witnesses).encode())


def outcome(function, batch: Batch):
    """What a function makes of a batch, in a form that compares."""
    try:
        result = function(batch)
    except QnetError as error:
        return error.code, error.detail
    columns = ("ids", "bodies", "body_offsets", "kinds", "payees", "amounts", "gas")
    arrays = {name: getattr(result, name) for name in columns}
    return {name: (a.dtype, a.shape, a.tolist()) for name, a in arrays.items()}, result.payloads


@given(made_batches())
def test_valid_batches_expand_like_the_reference(batch):
    fast = outcome(expand, batch)
    assert isinstance(fast[0], dict)
    assert fast == outcome(expand_reference, batch)


@given(made_batches(valid=False))
def test_batches_that_break_rules_expand_like_the_reference(batch):
    assert outcome(expand, batch) == outcome(expand_reference, batch)


@given(made_batches(valid=False, plain=True))
def test_plain_transfers_of_any_terms_expand_like_the_reference(batch):
    assert outcome(expand, batch) == outcome(expand_reference, batch)


@settings(max_examples=300)
@given(st.data(), made_batches(count_max=3))
def test_payloads_with_a_wrong_byte_expand_like_the_reference(data, batch):
    payloads = [bytearray(batch.columns.row_payload(row)) for row in range(batch.header.count)]
    victim = payloads[data.draw(st.integers(0, len(payloads) - 1))]
    # The first bytes and the amount's are the ones that the kernel looks at.
    places = [*range(min(5, len(victim))), *range(max(0, len(victim) - 9), len(victim))]
    match data.draw(st.sampled_from(["change", "remove", "add"])):
        case "change":
            victim[data.draw(st.sampled_from(places))] = data.draw(st.integers(0, 255))
        case "remove":
            if len(victim) > 2:
                del victim[data.draw(st.sampled_from(places))]
        case _:
            victim.insert(data.draw(st.sampled_from(places)), data.draw(st.integers(0, 255)))
    changed = with_payloads(batch, [bytes(payload) for payload in payloads])
    assert outcome(expand, changed) == outcome(expand_reference, changed)


@given(digests, unsigned(), st.sampled_from([0xCC, 0xCD, 0xCE, 0xCF, 0xD0, 0xD3, 0xCA, 0xE0]))
def test_amounts_in_every_form_expand_like_the_reference(payee, amount, form):
    size = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD3: 8, 0xCA: 4, 0xE0: 0}[form]
    number = (amount % 256**size).to_bytes(size, "big") if size else b""
    payload = b"\x90\x93\x01\xc4\x20" + payee + bytes((form,)) + number
    batch = with_payloads(batch_of(body()), [payload])
    assert outcome(expand, batch) == outcome(expand_reference, batch)


@pytest.mark.parametrize("place", range(5))
def test_the_first_bytes_decide_what_a_plain_transfer_is(place):
    batch = batch_of(body())
    taken = []
    for value in range(256):
        payload = bytearray(batch.columns.row_payload(0))
        payload[place] = value
        changed = with_payloads(batch, [bytes(payload)])
        result = outcome(expand, changed)
        assert result == outcome(expand_reference, changed)
        if isinstance(result[0], dict):
            taken.append(value)
    assert taken == [(0x90, 0x93, 0x01, 0xC4, 0x20)[place]]


def test_a_plain_transfer_stands_in_the_columns():
    bodies = [body(), body(access=(Access(b"a" * 32, b"", False),), gas_limit=9_000)]
    bodies += [body(action=MultiTransfer((Payment(b"q" * 32, 1),) * 3), gas_limit=9_000)]
    bodies += [body(action=RotateKey(b"r" * 32), gas_limit=9_000)]
    opened = expand(batch_of(*bodies))
    assert opened.kinds.tolist() == [KIND_TRANSFER, KIND_OTHER, KIND_OTHER, KIND_OTHER]
    assert opened.payees[0].tobytes() == b"p" * 32
    assert opened.amounts.tolist() == [5, 0, 0, 0]
    assert opened.gas.tolist() == [1_000, 1_050, 2_000, 2_000]
    assert set(opened.payloads) == {1, 2, 3}
    for row, expected in enumerate(bodies):
        assert opened.body(row) == encode(expected)
        assert opened.ids[row].tobytes() == transaction_id(encode(expected))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"gas_limit": 999}, Code.GAS_LIMIT_TOO_LOW),
        ({"gas_limit": limits.GAS_LIMIT_MAX + 1}, Code.GAS_LIMIT_TOO_HIGH),
        ({"gas_price": 0}, Code.GAS_PRICE_OUT_OF_RANGE),
        ({"gas_price": limits.GAS_PRICE_MAX + 1}, Code.GAS_PRICE_OUT_OF_RANGE),
        (
            {"action": MultiTransfer((Payment(b"q" * 32, 2**63),) * 2), "gas_limit": 9_000},
            Code.AMOUNT_OVERFLOW,
        ),
        ({"action": RotateKey(bytes(32)), "gas_limit": 9_000}, Code.MALFORMED),
    ],
)
def test_the_first_row_that_breaks_a_rule_names_the_error(changes, code):
    wrong = body(**changes)
    last = outcome(expand, batch_of(body(), body(), wrong))
    assert last[0] is code
    # Neither what comes before nor what comes after, right or wrong, changes the answer.
    for others in ([body()], [body(gas_price=0, gas_limit=0)], [body(access=wrong.access)]):
        batch = batch_of(body(), wrong, *others)
        assert outcome(expand, batch) == outcome(expand_reference, batch) == last


def test_a_body_over_the_size_of_a_transaction_is_refused():
    access = (Access(b"a" * 32, b"x" * 256, True),) * 222
    payload = b"\xdc\x00\xde" + b"".join(map(encode, access)) + encode(Transfer(b"p" * 32, 5))
    assert limits.TRANSACTION_SIZE_BYTES_MAX - 100 < len(payload) < 65_535
    batch = with_payloads(batch_of(body(gas_limit=100_000)), [payload])
    for function in (expand, expand_reference):
        with pytest.raises(QnetError) as caught:
            function(batch)
        assert caught.value.code is Code.TOO_LARGE


def test_another_version_is_refused():
    batch = batch_of(body())
    header = msgspec.structs.replace(batch.header, version=2)
    other = Batch(header, batch.bodies, batch.witnesses)
    expected = (Code.UNSUPPORTED_VERSION, "transaction version 2")
    assert outcome(expand, other) == outcome(expand_reference, other) == expected


def test_reading_columns_needs_no_numba():
    code = (
        "import sys, qnet_actors.kernels.expand, qnet_actors.wire.messages;"
        "sys.exit('numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
