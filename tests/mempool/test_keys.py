"""The key store: content-addressed, of known sizes, bounded."""

from __future__ import annotations

from qnet_actors.mempool.keys import KeyStore, KeyTable
from qnet_actors.wire.messages import PublicKey
from qnet_actors.wire.schemes import Scheme, key_id
from tests.mempool.world import SCHEME, digest_of

KEYS = [PublicKey(SCHEME, digest_of(n)) for n in range(6)]
IDS = [key_id(SCHEME, key.public_key) for key in KEYS]


def test_keys_are_found_by_their_id() -> None:
    store = KeyStore(10)
    assert store.add(KEYS[0])
    assert not store.add(KEYS[0])
    assert store.get(IDS[0]) == KEYS[0]
    assert store.get(IDS[1]) is None
    assert store.get(KEYS[0].public_key) is None


def test_the_scheme_is_part_of_the_id() -> None:
    store = KeyStore(10)
    other = PublicKey(Scheme.ED25519, KEYS[0].public_key)
    assert store.add(KEYS[0])
    assert store.add(other)
    assert len(store) == 2


def test_keys_of_no_scheme_or_another_size_are_not_kept() -> None:
    store = KeyStore(10)
    for key in (PublicKey(99, digest_of(1)), PublicKey(SCHEME, bytes(31)), PublicKey(SCHEME, b"")):
        assert not store.add(key)
    assert len(store) == 0


def test_the_least_recently_used_leave_first() -> None:
    store = KeyStore(3, KEYS[:3])
    store.get(IDS[0])
    store.add(KEYS[1])
    store.add(KEYS[3])
    assert [store.get(id_) is not None for id_ in IDS[:4]] == [True, True, False, True]
    assert len(store) == 3


def test_a_table_holds_each_key_once() -> None:
    store = KeyStore(10, KEYS[:2])
    rows = [IDS[1], IDS[2], IDS[1], IDS[0], IDS[2]]
    table = store.table(SCHEME, rows, {IDS[2]: KEYS[2].public_key})
    assert isinstance(table, KeyTable)
    assert table.keys == tuple(KEYS[n].public_key for n in (1, 2, 0))
    assert table.index.tolist() == [0, 1, 0, 2, 1]
    assert table.part(1, 4).index.tolist() == [1, 0, 2]
    # Brought along is not learned: that comes when the signatures are verified.
    assert store.get(IDS[2]) is None


def test_a_table_says_what_is_missing() -> None:
    store = KeyStore(10, KEYS[:2])
    assert store.table(SCHEME, [IDS[3], IDS[0], IDS[4], IDS[3]], {}) == [IDS[3], IDS[4]]
    assert store.table(Scheme.ED25519, [IDS[0]], {}) == [IDS[0]]
