"""Proofs as functions of bytes: whatever a gateway sends, nothing but the truth is believed."""

from __future__ import annotations

from functools import cache

from qnet_actors.light import (
    HAND_OFF_CODEC,
    PROVED_ACCOUNT_CODEC,
    PROVED_TRANSACTION_CODEC,
    LightClient,
    ProvedAccount,
    ProvedTransaction,
)
from qnet_actors.wire.codec import encode
from tests.ledger import epochs
from tests.ledger.rig import PROVIDER
from tests.ledger.world import address
from tests.light.test_client import GENESIS, proved_account, proved_transaction

NOBODY = b"\x09" * 32


@cache
def accounts() -> dict[tuple[bytes, int], ProvedAccount]:
    """By address and height."""
    made = [(raw, proved_account(raw, n)) for raw in (address(1), NOBODY) for n in (-1, -2)]
    return {(raw, proved.certificate.checkpoint.height): proved for raw, proved in made}


@cache
def transactions() -> dict[bytes, ProvedTransaction]:
    return dict(proved_transaction(height, position) for height in (2, 5) for position in (0, 1))


def account_seeds() -> list[bytes]:
    return [encode(proved) for proved in accounts().values()]


def transaction_seeds() -> list[bytes]:
    return [encode(proved) for proved in transactions().values()]


def hand_off_seeds() -> list[bytes]:
    return [encode(hand_off) for hand_off in epochs.told().hand_offs]


def run_hand_off(data: bytes) -> None:
    hand_off = HAND_OFF_CODEC.decode(data)
    if encode(hand_off) != data:
        raise AssertionError("what was decoded is written otherwise than it was read")
    light, chain = LightClient(epochs.GENESIS, PROVIDER), epochs.told()
    for truth in chain.hand_offs:
        if hand_off.certificate.checkpoint.epoch == light.epoch:
            break
        light.follow(truth)
    following = light.follow(hand_off)
    if following.digest != chain.committees[following.epoch].digest:
        raise AssertionError("another committee was believed")


def run_account(data: bytes) -> None:
    proved = PROVED_ACCOUNT_CODEC.decode(data)
    raw = NOBODY if proved.account is None else address(1)
    checkpoint, held = LightClient(GENESIS, PROVIDER).account(raw, proved)
    truth = accounts()[raw, checkpoint.height]
    if held != truth.account or checkpoint != truth.certificate.checkpoint:
        raise AssertionError("a lie about an account was believed")
    if encode(proved) != data:
        raise AssertionError("what was decoded is written otherwise than it was read")


def run_transaction(data: bytes) -> None:
    proved = PROVED_TRANSACTION_CODEC.decode(data)
    if encode(proved) != data:
        raise AssertionError("what was decoded is written otherwise than it was read")
    for id_, truth in transactions().items():
        if truth.body != proved.body:
            continue
        found = LightClient(GENESIS, PROVIDER).transaction(id_, proved)
        if encode(found.receipt) != truth.receipt or found.header != truth.headers[0]:
            raise AssertionError("a lie about a transaction was believed")
        return
    # Another body: whichever id is asked for, it is not that one's.
    LightClient(GENESIS, PROVIDER).transaction(next(iter(transactions())), proved)
    raise AssertionError("another body was believed")
