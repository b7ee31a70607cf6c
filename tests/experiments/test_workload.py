"""What is signed ahead is read back from any number on."""

from __future__ import annotations

from pathlib import Path

import pytest

from qnet_actors.experiments.workload import CHUNK_TRANSACTIONS, Signed, read_signed

COUNT = 2 * CHUNK_TRANSACTIONS + 10


def _folder(path: Path) -> list[Signed]:
    """Transactions of rising lengths in files as `sign_all` leaves them."""
    everything = [
        Signed(number.to_bytes(32, "big"), b"x" * (number % 7)) for number in range(COUNT)
    ]
    for chunk in range(-(-COUNT // CHUNK_TRANSACTIONS)):
        start = chunk * CHUNK_TRANSACTIONS
        parts = everything[start : start + CHUNK_TRANSACTIONS]
        data = b"".join(len(one.wire).to_bytes(4, "big") + one.id + one.wire for one in parts)
        (path / f"{chunk:06d}.transactions").write_bytes(data)
    return everything


@pytest.mark.parametrize("first", [0, 1, CHUNK_TRANSACTIONS - 1, CHUNK_TRANSACTIONS, COUNT - 1])
@pytest.mark.parametrize("count", [0, 1, CHUNK_TRANSACTIONS, COUNT])
def test_a_part_is_what_stands_there(tmp_path: Path, first: int, count: int) -> None:
    everything = _folder(tmp_path)
    count = min(count, COUNT - first)

    assert list(read_signed(tmp_path, count, first)) == everything[first : first + count]


def test_what_stands_before_is_not_read(tmp_path: Path) -> None:
    everything = _folder(tmp_path)
    (tmp_path / "000000.transactions").unlink()

    found = list(read_signed(tmp_path, 3, CHUNK_TRANSACTIONS))

    assert found == everything[CHUNK_TRANSACTIONS : CHUNK_TRANSACTIONS + 3]
