"""What is signed ahead: who pays whom, and that it is read back from any number on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from qnet_actors.crypto import development_key
from qnet_actors.crypto.providers import provider
from qnet_actors.experiments.workload import (
    CHUNK_TRANSACTIONS,
    SHAPES,
    Shape,
    Signed,
    Workload,
    check_signed,
    read_signed,
    sign_all,
)
from qnet_actors.wire.transactions import Transfer

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


@pytest.mark.parametrize("shape", SHAPES)
def test_senders_begin_with_nonce_0_and_leave_none_out(shape: Shape) -> None:
    workload = Workload(bytes(32), 20, COUNT, shape)
    expected = [0] * 20
    for index in range(workload.chunks() * CHUNK_TRANSACTIONS):
        sender, nonce = workload.sender(index)
        # What brings a sender's key comes before all that relies on it.
        assert (nonce == 0) == (index < 20)
        assert nonce == expected[sender]
        expected[sender] += 1
        assert 0 <= workload.payee(index) < 20
    assert max(expected) - min(expected) <= 1


@pytest.mark.parametrize("shape", SHAPES)
def test_a_longer_workload_begins_like_a_shorter_one(shape: Shape) -> None:
    short, long = (Workload(bytes(32), 20, count, shape) for count in (30, 900))
    assert short.identity() == long.identity()
    for index in range(30):
        assert short.sender(index) == long.sender(index)
        assert short.payee(index) == long.payee(index)


def test_shapes_are_what_they_are_called_and_lie_apart() -> None:
    uniform, zipf, hot = (Workload(bytes(32), 50, 5_000, shape) for shape in SHAPES)
    assert len({workload.identity() for workload in (uniform, zipf, hot)}) == 3
    payees = Counter(zipf.payee(index) for index in range(5_000))
    assert payees[0] > 800 > 5 * payees[10]
    assert {hot.payee(index) for index in range(5_000)} == {0}
    assert max(Counter(uniform.payee(index) for index in range(5_000)).values()) < 200


def test_what_is_signed_is_the_workload(tmp_path: Path) -> None:
    library = provider("auto")
    keys = [development_key("benchmark", index, provider=library) for index in range(4)]
    workload = Workload(bytes(32), 4, 40, "zipf")
    folder = sign_all(workload, keys, tmp_path, lambda what, done, total: None)
    for index, signed in enumerate(read_signed(folder, 40)):
        transaction = check_signed(signed)
        sender, nonce = workload.sender(index)
        action = transaction.body.action
        assert isinstance(action, Transfer)
        assert (transaction.body.sender, transaction.body.nonce) == (keys[sender].key_id, nonce)
        assert action.payee == keys[workload.payee(index)].key_id
