"""Batched verification: verdicts by row, threads, turns for others, and the kernel's seat."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qnet_actors.crypto import BatchVerifier, Provider, simulator_provider, verify
from qnet_actors.crypto.providers.seam import Buffer
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.schemes import CONTEXT_TRANSACTION as CONTEXT
from qnet_actors.wire.schemes import SCHEME_SIZES, Scheme

SCHEME = Scheme.ML_DSA_65
COUNT = 150


class Batch:
    """Rows of three senders, all valid."""

    def __init__(self, provider: Provider, scheme: Scheme = SCHEME, count: int = COUNT) -> None:
        pairs = [provider.generate(scheme, bytes((i,)) * 32) for i in range(3)]
        keys = [provider.signing_key(scheme, pair.secret) for pair in pairs]
        self.table = [pair.public_key for pair in pairs]
        self.index = np.arange(count) % 3
        rng = np.random.default_rng(1)
        self.messages = rng.integers(0, 256, (count, 32), np.uint8)
        # One signature a distinct message would dominate the test; twelve are enough.
        self.messages = self.messages[np.arange(count) % 12]
        made = [keys[i % 3].sign(self.messages[i].tobytes(), CONTEXT) for i in range(12)]
        self.signatures = np.array(
            [np.frombuffer(made[i % 12], np.uint8) for i in range(count)], np.uint8
        )

    def rows(self) -> tuple[list[bytes], list[bytes], list[bytes]]:
        return (
            [self.table[i] for i in self.index],
            [row.tobytes() for row in self.messages],
            [row.tobytes() for row in self.signatures],
        )


@pytest.fixture
def batch(openssl):
    return Batch(openssl)


@pytest.fixture(params=[1, 3])
def verifier(signatures, request):
    with BatchVerifier(signatures, request.param) as made:
        yield made


def test_all_valid(verifier, batch):
    assert verifier.verify(*batch.rows(), CONTEXT).tolist() == [True] * COUNT
    by_table = verifier.verify_columns(
        (batch.table, batch.index), batch.messages, batch.signatures, CONTEXT
    )
    by_row = verifier.verify_columns(batch.rows()[0], batch.messages, batch.signatures, CONTEXT)
    assert by_table.tolist() == by_row.tolist() == [True] * COUNT
    assert by_table.dtype == np.bool_


def test_bad_rows_do_not_spoil_their_neighbours(verifier, batch):
    bad = [0, 63, 64, 65, 149]
    batch.signatures[bad, 7] ^= 1
    expected = np.ones(COUNT, bool)
    expected[bad] = False
    rows = verifier.verify(*batch.rows(), CONTEXT)
    columns = verifier.verify_columns(
        (batch.table, batch.index), batch.messages, batch.signatures, CONTEXT
    )
    assert rows.tolist() == columns.tolist() == expected.tolist()


class Counting:
    """A provider that counts the rows it is asked about."""

    def __init__(self, inner: Provider, releases_gil: bool = True) -> None:
        self.inner = inner
        self.rows = 0
        self.releases_gil = releases_gil
        self.threads: set[int] = set()

    def verify_many(
        self,
        scheme: Scheme,
        public_keys: Sequence[bytes],
        messages: Sequence[Buffer],
        signatures: Sequence[Buffer],
        context: bytes,
    ) -> list[bool]:
        self.rows += len(messages)
        self.threads.add(threading.get_ident())
        return self.inner.verify_many(scheme, public_keys, messages, signatures, context)


def test_wrong_lengths_are_false_without_a_call(openssl):
    batch = Batch(openssl)
    counting = Counting(openssl)
    verifier = BatchVerifier(counting)
    keys, messages, signatures = (column[:5] for column in batch.rows())
    keys[0] = keys[0][:-1]
    keys[1] = b""
    signatures[2] += b"\0"
    signatures[3] = b""
    assert verifier.verify(keys, messages, signatures, CONTEXT).tolist() == [False] * 4 + [True]
    assert counting.rows == 1
    assert not verifier.verify(*batch.rows(), bytes(256)).any()
    narrow = batch.signatures[:, :-1]
    columns = (batch.table, batch.index), batch.messages
    assert not verifier.verify_columns(*columns, narrow, CONTEXT).any()
    assert not verifier.verify_columns(*columns, batch.signatures, bytes(256)).any()
    assert not verifier.verify_columns(*columns, batch.signatures, CONTEXT, Scheme.ML_DSA_44).any()
    assert counting.rows == 1


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.int8, np.uint8])
def test_indexes_out_of_range_are_false(openssl, batch, dtype):
    counting = Counting(openssl)
    verifier = BatchVerifier(counting)
    info = np.iinfo(dtype)
    index = np.array([0, 1, 2, 3, info.max, info.min], dtype)
    verdicts = verifier.verify_columns(
        (batch.table, index), batch.messages[:6], batch.signatures[:6], CONTEXT
    )
    # Row 5 carries the signature of sender 2; an unsigned minimum is the valid index 0.
    assert verdicts.tolist() == [True, True, True, False, False, False]
    assert counting.rows == (4 if info.min == 0 else 3)
    broken = ([batch.table[0][:-1], *batch.table[1:]], index)
    verdicts = verifier.verify_columns(broken, batch.messages[:6], batch.signatures[:6], CONTEXT)
    assert verdicts.tolist() == [False, True, True, False, False, False]


def test_empty_batches(verifier):
    assert verifier.verify([], [], [], CONTEXT).shape == (0,)
    empty = np.zeros((0, 32), np.uint8), np.zeros((0, 3309), np.uint8)
    assert verifier.verify_columns([], *empty, CONTEXT).shape == (0,)
    assert verifier.verify_columns(([], np.zeros(0, int)), *empty, CONTEXT).shape == (0,)


def test_faults_of_the_caller_raise(openssl, batch):
    verifier = BatchVerifier(openssl)
    keys, messages, signatures = batch.rows()
    with pytest.raises(ValueError, match="differ in number"):
        verifier.verify(keys[1:], messages, signatures, CONTEXT)
    table = (batch.table, batch.index)
    for columns in (
        (batch.messages[1:], batch.signatures),
        (batch.messages, batch.signatures[1:]),
        (batch.messages.astype(np.uint16), batch.signatures),
        (batch.messages, batch.signatures.ravel()),
    ):
        with pytest.raises(ValueError, match="column must be"):
            verifier.verify_columns(table, *columns, CONTEXT)
    with pytest.raises(ValueError, match="index"):
        verifier.verify_columns(
            (batch.table, batch.index.astype(float)), batch.messages, batch.signatures, CONTEXT
        )
    with pytest.raises(QnetError) as unknown:
        verifier.verify([bytes(32)], [b""], [bytes(32)], b"", Scheme.KEYED_HASH)
    assert unknown.value.code == Code.UNKNOWN_SCHEME
    for threads in (0, 65):
        with pytest.raises(ValueError, match="threads"):
            BatchVerifier(openssl, threads)


def test_threads_share_the_work(openssl):
    batch = Batch(openssl)
    counting = Counting(openssl)
    with BatchVerifier(counting, 2) as verifier:
        assert verifier.verify(*batch.rows(), CONTEXT).all()
    assert counting.rows == COUNT
    assert threading.get_ident() not in counting.threads


def test_a_provider_that_holds_the_gil_gives_turns(monkeypatch):
    simulator = simulator_provider()
    monkeypatch.setattr(verify, "ROWS_PER_TURN", 32)
    batch = Batch(simulator, Scheme.KEYED_HASH)
    counting = Counting(simulator, releases_gil=False)
    done_at_turn = []
    monkeypatch.setattr(
        time, "sleep", lambda seconds: done_at_turn.append((counting.rows, seconds > 0))
    )
    with BatchVerifier(counting, 4) as verifier:
        assert verifier.verify(*batch.rows(), CONTEXT, Scheme.KEYED_HASH).all()
    assert counting.threads == {threading.get_ident()}, "threads would only wait for each other"
    assert done_at_turn == [(end, True) for end in (32, 64, 96, 128, 150)]


class Kernel:
    """A kernel that asks a provider, and keeps what it was handed."""

    schemes = frozenset({SCHEME})

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.calls: list[int] = []

    def verify_columns(self, scheme, table, index, messages, signatures, context):
        size = SCHEME_SIZES[scheme]
        assert index.dtype == np.intp
        assert signatures.shape == (len(index), size.signature)
        assert messages.dtype == signatures.dtype == np.uint8
        assert all(len(table[i]) == size.public_key for i in index)
        self.calls.append(len(index))
        return np.array(
            [
                self.provider.verify(scheme, table[i], m.tobytes(), s.tobytes(), context)
                for i, m, s in zip(index, messages, signatures, strict=True)
            ],
            np.bool_,
        )


@given(data=st.data())
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_kernel_and_the_provider_agree(openssl, data):
    kernel = Kernel(openssl)
    batch = Batch(openssl, count=12)
    for row in data.draw(st.sets(st.integers(0, 11))):
        batch.signatures[row, data.draw(st.integers(0, 3308))] ^= 1
    for row in data.draw(st.sets(st.integers(0, 11))):
        batch.index[row] = data.draw(st.integers(-2, 4))
    if data.draw(st.booleans()):
        batch.table[data.draw(st.integers(0, 2))] = b"short"
    columns = (batch.table, batch.index), batch.messages, batch.signatures, CONTEXT
    fast, slow = BatchVerifier(openssl, kernel=kernel), BatchVerifier(openssl)
    assert fast.verify_columns(*columns).tolist() == slow.verify_columns(*columns).tolist()
    rows = (
        [batch.table[i] if 0 <= i < 3 else b"" for i in batch.index],
        [row.tobytes() for row in batch.messages],
        [row.tobytes() for row in batch.signatures],
    )
    assert fast.verify(*rows, CONTEXT).tolist() == slow.verify(*rows, CONTEXT).tolist()


def test_a_kernel_takes_its_schemes_and_one_width_only(openssl, batch):
    kernel = Kernel(openssl)
    verifier = BatchVerifier(openssl, kernel=kernel)
    keys, messages, signatures = batch.rows()
    assert verifier.verify(keys, messages, signatures, CONTEXT).all()
    assert kernel.calls == [COUNT]
    messages[0] = b"of another length"
    assert verifier.verify(keys, messages, signatures, CONTEXT).tolist()[:2] == [False, True]
    assert kernel.calls == [COUNT]
    other = Batch(openssl, Scheme.ED25519, 12)
    assert verifier.verify(*other.rows(), CONTEXT, Scheme.ED25519).all()
    assert kernel.calls == [COUNT]
    empty = [openssl.sign(SCHEME, bytes(32), b"", CONTEXT)]
    assert verifier.verify([batch.table[0]], [b""], empty, CONTEXT).all()
    assert kernel.calls == [COUNT, 1]
