"""docs/reference/gas.md says what the constants say."""

from __future__ import annotations

import re
from pathlib import Path

from qnet_actors.wire.genesis import Parameters
from qnet_actors.wire.limits import GAS_LIMIT_MAX, GAS_PRICE_MAX
from qnet_actors.wire.transactions import (
    GAS_ACCESS_ENTRY,
    GAS_APPROVE,
    GAS_PAYMENT,
    GAS_REGISTER,
    GAS_REPORT,
    GAS_ROTATE_KEY,
    GAS_STAKE,
    GAS_TRANSFER,
    MultiTransfer,
    Payment,
    RotateKey,
    Transfer,
    intrinsic_gas,
)
from tests.ledger.world import address

TEXT = (Path(__file__).parents[2] / "docs" / "reference" / "gas.md").read_text()


def test_table():
    rows = dict(re.findall(r"^\| ([^|]+) \| (\d+) \|$", TEXT, re.MULTILINE))
    assert rows == {
        "transfer": str(GAS_TRANSFER),
        "multi-transfer, first payment": str(GAS_TRANSFER),
        "multi-transfer, each further payment": str(GAS_PAYMENT),
        "rotate key": str(GAS_ROTATE_KEY),
        "register validator": str(GAS_REGISTER),
        "stake, unstake": str(GAS_STAKE),
        "approve": str(GAS_APPROVE),
        "report equivocation": str(GAS_REPORT),
        "each declared access": str(GAS_ACCESS_ENTRY),
    }


def test_bounds():
    assert f"at most {GAS_LIMIT_MAX}." in TEXT
    assert f"1 to\n{GAS_PRICE_MAX}," in TEXT
    assert f"({Parameters().block_gas_max} by default)" in TEXT


def test_examples():
    lines = tuple(Payment(address(n), 1) for n in range(10))
    transfer = intrinsic_gas(0, Transfer(address(1), 1))
    many = intrinsic_gas(0, MultiTransfer(lines))
    rotation = intrinsic_gas(0, RotateKey(bytes(32)))
    said = f"a transfer costs {transfer}; a multi-transfer to ten payees {many}; a key rotation "
    assert f"{said}{rotation}." in TEXT
