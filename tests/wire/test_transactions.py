"""The static rules of transactions."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given

from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.hashing import ZERO_DIGEST
from qnet_actors.wire.limits import GAS_LIMIT_MAX, GAS_PRICE_MAX, PAYEES_MAX, U64_MAX
from qnet_actors.wire.schemes import SCHEME_SIZES, Scheme, key_id
from qnet_actors.wire.transactions import (
    TRANSACTION_CODEC,
    Access,
    Body,
    MultiTransfer,
    Payment,
    RotateKey,
    Transaction,
    Transfer,
    Witness,
    amount_total,
    check_body,
    check_witness,
    decode_payload,
    intrinsic_gas,
    payload_bytes,
    transaction_id,
)
from tests.strategies import bodies

CHAIN = b"c" * 32
PUBLIC_KEY = b"k" * 32
BODY = Body(
    version=1,
    chain_id=CHAIN,
    sender=b"s" * 32,
    key_id=key_id(4, PUBLIC_KEY),
    nonce=0,
    valid_until=0,
    gas_limit=1_000,
    gas_price=1,
    access=(),
    action=Transfer(b"p" * 32, 1),
)


def body(**changes: object) -> Body:
    return msgspec.structs.replace(BODY, **changes)


def multi(*amounts: int) -> MultiTransfer:
    return MultiTransfer(tuple(Payment(b"p" * 32, amount) for amount in amounts))


@given(bodies(chain_id=CHAIN, valid=True))
def test_valid_bodies_are_taken(drawn):
    check_body(drawn, CHAIN)


@given(bodies())
def test_a_payload_survives_a_round_trip(drawn):
    data = payload_bytes(drawn)
    payload = decode_payload(data)
    assert (payload.access, payload.action) == (drawn.access, drawn.action)
    # It is the tail of the body, so a body can be put together from a batch's columns.
    assert encode(drawn).endswith(data)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"version": 0}, Code.UNSUPPORTED_VERSION),
        ({"version": 2}, Code.UNSUPPORTED_VERSION),
        ({"chain_id": b"d" * 32}, Code.WRONG_CHAIN),
        ({"gas_price": 0}, Code.GAS_PRICE_OUT_OF_RANGE),
        ({"gas_price": GAS_PRICE_MAX + 1}, Code.GAS_PRICE_OUT_OF_RANGE),
        ({"gas_limit": GAS_LIMIT_MAX + 1}, Code.GAS_LIMIT_TOO_HIGH),
        ({"gas_limit": 999}, Code.GAS_LIMIT_TOO_LOW),
        ({"access": (Access(b"a" * 32, b"", True),)}, Code.GAS_LIMIT_TOO_LOW),
        ({"action": multi(1, 1)}, Code.GAS_LIMIT_TOO_LOW),
        ({"action": RotateKey(b"r" * 32)}, Code.GAS_LIMIT_TOO_LOW),
        ({"action": multi(U64_MAX, 1), "gas_limit": 1_500}, Code.AMOUNT_OVERFLOW),
        ({"action": RotateKey(ZERO_DIGEST), "gas_limit": 2_000}, Code.MALFORMED),
    ],
)
def test_a_body_that_breaks_a_rule_is_refused(changes, code):
    check_body(BODY, CHAIN)
    with pytest.raises(QnetError) as caught:
        check_body(body(**changes), CHAIN)
    assert caught.value.code is code


@pytest.mark.parametrize(
    "changes",
    [
        {"gas_price": GAS_PRICE_MAX, "gas_limit": GAS_LIMIT_MAX},
        {"action": Transfer(b"p" * 32, U64_MAX)},
        {"action": Transfer(b"p" * 32, 0)},
        {"action": multi(U64_MAX - 1, 1), "gas_limit": 1_500},
        {"action": RotateKey(b"r" * 32), "gas_limit": 2_000},
        {"access": (Access(b"a" * 32, b"", True),), "gas_limit": 1_050},
    ],
)
def test_the_last_value_within_a_bound_is_taken(changes):
    check_body(body(**changes), CHAIN)


def test_what_actions_cost_and_take():
    assert intrinsic_gas(0, BODY.action) == 1_000
    assert intrinsic_gas(3, BODY.action) == 1_150
    assert intrinsic_gas(0, multi(*[1] * PAYEES_MAX)) == 1_000 + 255 * 500
    assert intrinsic_gas(1, RotateKey(b"r" * 32)) == 2_050
    assert amount_total(multi(U64_MAX, U64_MAX)) == 2 * U64_MAX
    assert amount_total(RotateKey(b"r" * 32)) == 0


@pytest.mark.parametrize(
    ("witness", "code"),
    [
        (Witness(0, bytes(64), b""), Code.UNKNOWN_SCHEME),
        (Witness(6, bytes(64), b""), Code.UNKNOWN_SCHEME),
        (Witness(2, bytes(3309), b""), Code.SCHEME_REFUSED),
        (Witness(4, bytes(63), b""), Code.MALFORMED),
        (Witness(4, bytes(65), b""), Code.MALFORMED),
        (Witness(4, b"", b""), Code.MALFORMED),
        (Witness(4, bytes(64), PUBLIC_KEY[:31]), Code.MALFORMED),
        (Witness(4, bytes(64), b"l" * 32), Code.UNKNOWN_KEY),
    ],
)
def test_a_witness_that_does_not_fit_is_refused(witness, code):
    for key in (b"", PUBLIC_KEY):
        check_witness(BODY, Witness(4, bytes(64), key), frozenset({4}))
    with pytest.raises(QnetError) as caught:
        check_witness(BODY, witness, frozenset({4}))
    assert caught.value.code is code


def test_the_id_is_of_the_body_and_not_of_the_witness():
    ids = {transaction_id(encode(body(nonce=nonce))) for nonce in range(10)}
    assert len(ids) == 10
    one, other = (Transaction(BODY, Witness(4, bytes((n,)) * 64, b"")) for n in (1, 2))
    assert encode(one) != encode(other)
    assert transaction_id(encode(one.body)) == transaction_id(encode(other.body))


def test_more_payees_or_none_are_refused():
    for amounts in ([], [1] * (PAYEES_MAX + 1)):
        with pytest.raises(QnetError) as caught:
            decode_payload(b"\x90" + encode(multi(*amounts)))
        assert caught.value.code is Code.MALFORMED
    assert decode_payload(b"\x90" + encode(multi(*[1] * PAYEES_MAX))).access == ()


def test_a_transaction_of_the_largest_scheme_is_within_the_limit():
    largest = max(SCHEME_SIZES.values())
    assert largest == SCHEME_SIZES[Scheme.ML_DSA_87]
    full = body(action=multi(*[U64_MAX] * PAYEES_MAX), nonce=U64_MAX)
    witness = Witness(3, bytes(largest.signature), bytes(largest.public_key))
    data = encode(Transaction(full, witness))
    assert TRANSACTION_CODEC.decode(data).body == full
