"""Every wire type: round trips, one encoding only, bounds, and no error but `QnetError`."""

from __future__ import annotations

import dataclasses
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from qnet_actors.wire import batches, blocks, dag, genesis, limits, messages, transactions
from qnet_actors.wire.codec import Codec, encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.committee import Member
from qnet_actors.wire.hashing import ZERO_DIGEST
from tests import strategies
from tests.wire import forms


@dataclasses.dataclass(frozen=True, repr=False)
class Format:
    """A wire type as it is decoded, with values to draw and how to encode them."""

    values: SearchStrategy[Any]
    decode: Callable[[bytes], Any]
    size_bytes_max: int
    encode: Callable[[Any], bytes] = encode
    optional: str = "nothing"
    """The departure that is none, since the field may be nil."""


def of(values: SearchStrategy[Any], codec: Codec[Any], optional: str = "nothing") -> Format:
    return Format(values, codec.decode, codec.size_bytes_max, optional=optional)


FORMATS = {
    "transaction": of(strategies.raw_transactions, transactions.TRANSACTION_CODEC),
    "body": of(strategies.bodies(), transactions.BODY_CODEC),
    "batch": Format(
        strategies.made_batches(count_max=3),
        batches.decode_batch,
        limits.BATCH_SIZE_BYTES_MAX,
        lambda batch: batch.encode(),
    ),
    "dag block": Format(
        strategies.dag_blocks,
        dag.decode_dag_block,
        limits.DAG_BLOCK_SIZE_BYTES_MAX,
        lambda block: block.encoded,
    ),
    "commit": of(strategies.commits, dag.COMMIT_CODEC),
    "block header": of(strategies.block_headers, blocks.BLOCK_HEADER_CODEC),
    "receipt": of(strategies.receipts, blocks.RECEIPT_CODEC),
    "checkpoint": of(strategies.checkpoints, blocks.CHECKPOINT_CODEC),
    "certificate": of(strategies.certificates, blocks.CERTIFICATE_CODEC),
    "block record": of(strategies.block_records, blocks.BLOCK_RECORD_CODEC, "[5] nil for an array"),
    "genesis": of(strategies.geneses, genesis.GENESIS_CODEC),
    "message": of(strategies.all_messages, messages.MESSAGE_CODEC, "[2] nil for an array"),
}

formats = pytest.mark.parametrize("format_", FORMATS.values(), ids=FORMATS.keys())


def refusal(decode: Callable[[bytes], Any], data: bytes) -> Code:
    with pytest.raises(QnetError) as caught:
        decode(data)
    return caught.value.code


@formats
@settings(max_examples=60)
@given(data=st.data())
def test_values_survive_a_round_trip(format_, data):
    value = data.draw(format_.values)
    encoded = format_.encode(value)
    decoded = format_.decode(encoded)
    assert format_.encode(decoded) == encoded
    if not isinstance(decoded, batches.Batch):
        assert decoded == value
        assert type(decoded) is type(value)


@formats
@settings(max_examples=40)
@given(data=st.data())
def test_another_library_reads_and_writes_the_same_bytes(format_, data):
    encoded = format_.encode(data.draw(format_.values))
    assert forms.canonical(forms.tree_of(encoded)) == encoded


@formats
@settings(max_examples=20)
@given(data=st.data())
def test_every_departure_from_the_canonical_form_is_refused(format_, data):
    encoded = format_.encode(data.draw(format_.values))
    for what, changed in forms.departures(forms.tree_of(encoded)):
        try:
            format_.decode(changed)
        except QnetError as error:
            # A tag that is written in another way may be that of no action.
            expected = {Code.MALFORMED, Code.NON_CANONICAL, Code.UNKNOWN_ACTION}
            assert error.code in expected, what  # noqa: PT017
        else:
            assert what == format_.optional


@pytest.mark.parametrize("name", ["body", "block header", "checkpoint"])
@settings(max_examples=10)
@given(data=st.data())
def test_a_missing_or_extra_field_is_refused(name, data):
    format_ = FORMATS[name]
    values = strategies.bodies(plain=True) if name == "body" else format_.values
    tree = forms.tree_of(format_.encode(data.draw(values)))
    for what, changed in forms.structures(tree):
        if name == "body" and what.startswith("[8]"):
            continue  # the access list is a sequence; what stands in it is checked below
        assert refusal(format_.decode, changed) is Code.MALFORMED, what


def test_an_access_entry_is_an_array_of_three():
    tree = forms.tree_of(encode(transactions.Access(b"a" * 32, b"", True)))
    for what, changed in forms.structures(tree):
        payload = b"\x91" + changed + encode(transactions.Transfer(b"p" * 32, 1))
        assert refusal(transactions.decode_payload, payload) is Code.MALFORMED, what


@formats
@settings(max_examples=80)
@given(data=st.data())
def test_random_bytes_raise_nothing_but_a_refusal(format_, data):
    noise = data.draw(st.binary(max_size=200))
    try:
        format_.decode(noise)
    except QnetError as error:
        assert error.code in Code  # noqa: PT017


@formats
@settings(max_examples=80)
@given(data=st.data())
def test_changed_bytes_raise_nothing_but_a_refusal(format_, data):
    changed = bytearray(format_.encode(data.draw(format_.values)))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(changed) - 1))
        changed[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=6))
    try:
        decoded = format_.decode(bytes(changed))
    except QnetError as error:
        assert error.code in Code  # noqa: PT017
    else:
        assert format_.encode(decoded) == bytes(changed)


@formats
def test_what_is_over_the_limit_is_refused_before_it_is_decoded(format_):
    assert refusal(format_.decode, bytes(format_.size_bytes_max + 1)) is Code.TOO_LARGE
    assert refusal(format_.decode, b"\xc1" * format_.size_bytes_max) is not Code.TOO_LARGE


GIANTS = {
    "array": b"\xdd\xff\xff\xff\xff",
    "binary": b"\xc6\xff\xff\xff\xff",
    "text": b"\xdb\xff\xff\xff\xff",
    "map": b"\xdf\xff\xff\xff\xff",
    "extension": b"\xc9\xff\xff\xff\xff\x01",
    "array in arrays": b"\x92\x01" + b"\xdd\x00\xff\xff\xff" * 200,
    "deep arrays": b"\x91" * 50_000,
    "deep maps": b"\x81" * 50_000,
}


@formats
@pytest.mark.parametrize("giant", GIANTS.values(), ids=GIANTS.keys())
def test_a_giant_count_sets_nothing_aside(format_, giant):
    tracemalloc.start()
    try:
        refusal(format_.decode, giant[: format_.size_bytes_max])
        assert tracemalloc.get_traced_memory()[1] < 4 * 1024 * 1024
    finally:
        tracemalloc.stop()


BLANK_RECORD = blocks.BlockRecord(
    header=blocks.BlockHeader(
        1, b"c" * 32, 0, 1, b"p" * 32, 1, b"d" * 32, 0, b"t" * 32, b"r" * 32, b"w" * 32, 0, 0, 0
    ),
    commits=(),
    bodies=(),
    receipts=(),
    write_set=blocks.WriteSet(b"", b"", b"", b""),
    checkpoint=None,
)


@pytest.mark.parametrize(
    ("decode", "head", "promised"),
    [
        (genesis.GENESIS_CODEC.decode, "accounts", limits.GENESIS_ACCOUNTS_MAX),
        (blocks.BLOCK_RECORD_CODEC.decode, "commits", limits.COMMIT_BLOCKS_MAX),
    ],
)
def test_a_count_within_its_bound_costs_little_when_nothing_follows(decode, head, promised):
    if head == "accounts":
        whole = encode(genesis.Genesis(1, "n", True, 0, (4,), genesis.Parameters(), (MEMBER,), ()))
        data = whole[:-1] + b"\xdd" + promised.to_bytes(4, "big")
    else:
        data = b"\x96" + encode(BLANK_RECORD.header) + b"\xdd" + promised.to_bytes(4, "big")
    tracemalloc.start()
    try:
        with pytest.raises(QnetError, match="truncated"):
            decode(data)
        assert tracemalloc.get_traced_memory()[1] < 16 * 1024 * 1024
    finally:
        tracemalloc.stop()


MEMBER = Member(4, b"k" * 32, 1, b"r" * 32)


def test_a_view_decodes_like_bytes():
    encoded = encode(BLANK_RECORD)
    assert blocks.BLOCK_RECORD_CODEC.decode(memoryview(encoded)) == BLANK_RECORD
    assert refusal(
        lambda data: blocks.BLOCK_RECORD_CODEC.decode(memoryview(data)), encoded + b"\0"
    ) in {Code.MALFORMED, Code.NON_CANONICAL}


def test_an_integer_over_u64_is_not_encoded():
    with pytest.raises(QnetError) as caught:
        encode(transactions.Transfer(b"p" * 32, 2**64))
    assert caught.value.code is Code.MALFORMED


def wire_types() -> list[type[msgspec.Struct]]:
    """Every struct of the format."""
    modules = (batches, blocks, dag, genesis, messages, transactions)
    found = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, msgspec.Struct)
    }
    return sorted(found, key=lambda type_: type_.__name__)


def test_every_type_is_an_array_that_cannot_change():
    for type_ in wire_types():
        config = type_.__struct_config__
        assert config.array_like, type_
        assert config.frozen, type_
        assert config.forbid_unknown_fields or type_.__name__ == "Struct", type_


def tags(union: Any) -> list[int]:
    return [type_.__struct_config__.tag for type_ in union.__args__]


def test_tags_are_unique_and_reserved_ones_are_free():
    assert tags(transactions.Action) == [1, 2, 3, 8, 9, 10, 11, 12]
    assert not set(tags(transactions.Action)) & set(transactions.RESERVED_ACTION_TAGS)
    assert tags(messages.Message) == list(range(1, 14))


@pytest.mark.parametrize(
    ("tag", "code"),
    [
        (0, Code.UNKNOWN_ACTION),
        *((tag, Code.ACTION_DISABLED) for tag in transactions.RESERVED_ACTION_TAGS),
        # Known, with fields that are not its own.
        (11, Code.MALFORMED),
        (12, Code.MALFORMED),
        (13, Code.UNKNOWN_ACTION),
        (128, Code.UNKNOWN_ACTION),
        (2**64 - 1, Code.UNKNOWN_ACTION),
        (-1, Code.UNKNOWN_ACTION),
        (b"x", Code.MALFORMED),
        (True, Code.MALFORMED),
        ((1,), Code.MALFORMED),
    ],
)
def test_an_unknown_action_tag_is_refused_wherever_it_stands(tag, code):
    action = (tag, b"p" * 32, 1)
    body = (1, *(ZERO_DIGEST,) * 3, 0, 0, 1_000, 1, (), action)
    payload = b"\x90" + forms.canonical(action)
    assert refusal(transactions.decode_payload, payload) is code
    assert refusal(transactions.BODY_CODEC.decode, forms.canonical(body)) is code
    whole = forms.canonical((body, (2, b"", b"")))
    assert refusal(transactions.TRANSACTION_CODEC.decode, whole) is code


def test_what_does_not_reach_an_action_is_malformed():
    for data in (b"", b"\x92", b"\x92\x90\x90", b"\xdd\xff\xff\xff\xff", b"\x91" * 5_000):
        assert refusal(transactions.TRANSACTION_CODEC.decode, data) is Code.MALFORMED
