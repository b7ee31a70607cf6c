"""Which machine each validator goes to, and when a machine has room for split ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from qnet_actors.network.directory import DataDirectory
from qnet_actors.network.placement import place
from qnet_actors.network.settings import KeepSettings, NetworkSettings, check_shape
from qnet_actors.network.split.lock import hold
from qnet_actors.network.split.rooms import sender_shard
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from tests.ledger.world import a_genesis, a_transaction, address


@pytest.mark.parametrize(
    ("cores", "validators", "machines", "roomy"),
    [
        ([2], 4, "aaaa", False),
        ([8], 4, "aaaa", True),
        ([7], 4, "aaaa", False),
        ([4, 4], 4, "abab", True),
        ([2, 6], 4, "bbab", True),
        ([16, 1], 4, "aaaa", True),
    ],
)
def test_validators_are_spread_over_cores(cores, validators, machines, roomy):
    placement = place(list(zip("abc", cores, strict=False)), validators)
    assert sorted(placement.machines) == sorted(machines)
    assert placement.roomy is roomy


def test_without_a_machine_there_is_no_place():
    with pytest.raises(QnetError):
        place([], 1)


@pytest.mark.parametrize(
    "shape", [{"shards": 2}, {"partitions": 2}, {"profile": "split", "partitions": 3}]
)
def test_shapes_that_cannot_be(shape):
    with pytest.raises(QnetError) as caught:
        check_shape(NetworkSettings(directory=Path("data"), **shape))
    assert caught.value.code == Code.CONFIGURATION_INVALID


@pytest.mark.parametrize(
    ("keep", "valid"),
    [
        ({"retention": "light", "retention_blocks": 9}, False),
        ({"retention": "full", "retention_blocks": 9}, False),
        ({"retention": "full", "retention_blocks": 10}, True),
        ({"retention": "archive", "retention_blocks": 9}, True),
        ({"retention": "light"}, True),
        ({"retention": "light", "join_ahead_blocks": 10_001}, False),
    ],
)
def test_blocks_are_kept_for_those_who_do_not_join_yet(keep, valid):
    kept = KeepSettings(**{"join_ahead_blocks": 10, **keep})
    settings = NetworkSettings(directory=Path("data"), keep=kept)
    if valid:
        check_shape(settings)
        return
    with pytest.raises(QnetError, match="raise retention_blocks") as caught:
        check_shape(settings)
    assert caught.value.code == Code.CONFIGURATION_INVALID


def test_the_number_of_shards_stays(tmp_path):
    for count in (2, 2):
        directory = DataDirectory(tmp_path, bytes(32), 0)
        directory.keep_shards(count)
        directory.close()
    again = DataDirectory(tmp_path, bytes(32), 0)
    with pytest.raises(QnetError) as caught:
        again.keep_shards(1)
    again.close()
    assert caught.value.code == Code.CONFIGURATION_INVALID


def test_a_folder_is_held_by_one(tmp_path):
    hold(tmp_path / "x" / "lock")
    with pytest.raises(QnetError) as caught:
        hold(tmp_path / "x" / "lock", wait_seconds=0.1)
    assert caught.value.code == Code.DATA_DIRECTORY_LOCKED


def test_a_transaction_goes_to_its_senders_shard():
    genesis = a_genesis()
    from qnet_actors.mempool import shard_of

    for sender in range(8):
        data = encode(a_transaction(genesis, sender, 0))
        assert sender_shard(data, 4) == shard_of(address(sender), 4)
    assert sender_shard(b"", 4) == 0
    assert sender_shard(b"\x92" * 60, 4) == 0
