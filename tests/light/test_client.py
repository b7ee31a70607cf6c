"""A light client against gateways that lie."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from qnet_actors.light import (
    PROVED_ACCOUNT_CODEC,
    PROVED_TRANSACTION_CODEC,
    Account,
    LightClient,
    ProvedAccount,
    ProvedTransaction,
    check_headers,
    prove_transaction,
)
from qnet_actors.state import State, genesis_write_set
from qnet_actors.wire.blocks import BLOCK_RECORD_CODEC, BlockRecord, Certificate
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.transactions import transaction_id
from tests.ledger.chain import blocks, certificates, chain_genesis
from tests.ledger.rig import PROVIDER, certify
from tests.ledger.world import address

GENESIS = chain_genesis()
ROOT = Path(__file__).parents[2]


def records() -> list[BlockRecord]:
    return [BLOCK_RECORD_CODEC.decode(block.encoded) for block in blocks()]


def client() -> LightClient:
    return LightClient(GENESIS, PROVIDER)


@cache
def proved_account(raw: bytes, number: int = -1) -> ProvedAccount:
    """The account under the checkpoint of a certificate, by its number."""
    certificate = certificates()[number]
    state = State()
    state.load(0, genesis_write_set(GENESIS))
    for record in records()[: certificate.checkpoint.height]:
        state.apply(record.header.height, record.write_set)
    assert state.root() == certificate.checkpoint.state_root
    _, account, proof = state.prove(raw, state.height)
    return ProvedAccount(certificate, account, proof)


def proved_transaction(height: int, position: int = 1) -> tuple[bytes, ProvedTransaction]:
    record = records()[height - 1]
    certificate = next(c for c in certificates() if c.checkpoint.height >= height)
    headers = [r.header for r in records()[height - 1 : certificate.checkpoint.height]]
    proved = prove_transaction(certificate, headers, record, position)
    return transaction_id(record.bodies[position]), proved


def refused(code: Code, call: Any, *arguments: Any) -> None:
    with pytest.raises(QnetError) as caught:
        call(*arguments)
    assert caught.value.code is code


def test_accounts_that_exist_and_that_do_not():
    light = client()
    proved = proved_account(address(1))
    checkpoint, account = light.account(address(1), proved)
    assert account == proved.account
    assert account is not None
    assert account.nonce > 0
    assert light.height == checkpoint.height == certificates()[-1].checkpoint.height
    assert light.account(b"\x09" * 32, proved_account(b"\x09" * 32)) == (checkpoint, None)
    assert PROVED_ACCOUNT_CODEC.decode(encode(proved)) == proved


def test_an_account_of_another_value_or_address_is_refused():
    proved = proved_account(address(1))
    assert proved.account is not None
    richer = Account(proved.account.nonce, proved.account.balance + 1, proved.account.key_id)
    light = client()
    refused(Code.BAD_PROOF, light.account, address(1), ProvedAccount(*_but(proved, account=richer)))
    refused(Code.BAD_PROOF, light.account, address(1), ProvedAccount(*_but(proved, account=None)))
    refused(Code.BAD_PROOF, light.account, address(2), proved)
    assert light.height == 0


def test_the_past_is_not_the_present():
    light = client()
    old, new = proved_account(address(1), -3), proved_account(address(1), -1)
    light.account(address(1), old)
    light.account(address(1), new)
    refused(Code.BAD_PROOF, light.account, address(1), old)
    light.account(address(1), new)


def _but(value: msgspec.Struct, **changes: Any) -> tuple[Any, ...]:
    return msgspec.structs.astuple(msgspec.structs.replace(value, **changes))


def test_certificates_without_a_quorum_are_refused():
    good = certificates()[-1]
    checkpoint = good.checkpoint
    forged = msgspec.structs.replace(checkpoint, state_root=bytes(32))
    other_network = msgspec.structs.replace(checkpoint, chain_id=bytes(32))
    other_committee = msgspec.structs.replace(checkpoint, committee=bytes(32))
    other_epoch = msgspec.structs.replace(checkpoint, epoch=1)
    first, second, third = good.votes
    bad = [
        certify(GENESIS, checkpoint, [0, 1]),
        certify(GENESIS, other_network, [0, 1, 2]),
        certify(GENESIS, other_committee, [0, 1, 2]),
        certify(GENESIS, other_epoch, [0, 1, 2]),
        Certificate(forged, good.votes),
        Certificate(checkpoint, ()),
        Certificate(checkpoint, (first, first, second)),
        Certificate(checkpoint, (second, first, third)),
        Certificate(checkpoint, (first, second, msgspec.structs.replace(third, author=4))),
        Certificate(checkpoint, (first, second, msgspec.structs.replace(third, author=2))),
        Certificate(checkpoint, (first, second, msgspec.structs.replace(third, signature=b""))),
    ]
    light = client()
    for certificate in bad:
        refused(Code.BAD_CERTIFICATE, light.accept, certificate)
    assert light.accept(good) == checkpoint


def test_two_certified_checkpoints_at_one_height_are_a_catastrophe():
    light = client()
    checkpoint = light.accept(certificates()[-1])
    other = msgspec.structs.replace(checkpoint, state_root=bytes(32))
    refused(Code.DIVERGED, light.accept, certify(GENESIS, other, [0, 1, 2]))


@pytest.mark.parametrize("height", [1, 2, 3, 10, 19])
def test_final_transactions(height):
    id_, proved = proved_transaction(height)
    assert PROVED_TRANSACTION_CODEC.decode(encode(proved)) == proved
    found = client().transaction(id_, proved)
    assert (found.header.height, found.index) == (height, 1)
    assert encode(found.body) == records()[height - 1].bodies[1]
    assert found.receipt.transaction_id == id_


def test_a_final_transaction_may_be_older_than_what_is_certified():
    light = client()
    light.accept(certificates()[-1])
    light.transaction(*proved_transaction(2))
    assert light.height == certificates()[-1].checkpoint.height


def test_transactions_at_another_place_are_refused():
    light = client()
    id_, proved = proved_transaction(2, 1)
    other_id, other = proved_transaction(2, 0)
    refused(Code.BAD_PROOF, light.transaction, other_id, proved)
    for changes in (
        {"body": other.body},
        {"receipt": other.receipt},
        {"outcome": other.outcome},
        {"receipt": other.receipt, "outcome": other.outcome},
        {"transaction": other.transaction, "outcome": other.outcome},
        {"headers": proved.headers[1:]},
        {"headers": (*proved.headers, proved.headers[-1])},
        {"certificate": certificates()[-1]},
        {"receipt": proved.receipt + b"\x00"},
    ):
        refused(
            Code.BAD_PROOF,
            light.transaction,
            id_,
            msgspec.structs.replace(proved, **changes),
        )
    light.transaction(id_, proved)


def test_headers_follow_one_another():
    checkpoint = certificates()[-1].checkpoint
    headers = [record.header for record in records()[: checkpoint.height]]
    check_headers(checkpoint, headers)
    gap = headers[:3] + headers[4:]
    changed = list(headers)
    changed[2] = msgspec.structs.replace(changed[2], gas_used=changed[2].gas_used + 1)
    for bad in (gap, changed, headers[:-1], [], headers * 100, list(reversed(headers))):
        refused(Code.BAD_PROOF, check_headers, checkpoint, bad)


def test_the_room_loads_nothing_heavy():
    code = (
        "import sys, qnet_actors.light as light; "
        "[getattr(light, name) for name in light.__all__]; "
        "print(*({'ray', 'duckdb', 'numba', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
