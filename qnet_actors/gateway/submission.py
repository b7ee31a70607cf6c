"""The bodies of a submit request: what was sent, and the transactions in it."""

from __future__ import annotations

from typing import Annotated, Final, NamedTuple

import msgspec

from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.limits import (
    SUBMISSION_SIZE_BYTES_MAX,
    SUBMISSION_TRANSACTIONS_MAX,
    TRANSACTION_SIZE_BYTES_MAX,
)
from qnet_actors.wire.transactions import TRANSACTION_CODEC, transaction_id

MSGPACK_TYPE: Final = "application/msgpack"
JSON_TYPE: Final = "application/json"
_MSGPACK_TYPES: Final = frozenset({MSGPACK_TYPE, "application/vnd.msgpack"})

# Base64 makes 4 characters of 3 bytes; quotes, commas and names come on top.
_JSON_OVERHEAD_BYTES: Final = 8 * SUBMISSION_TRANSACTIONS_MAX
JSON_SIZE_BYTES_MAX: Final = (SUBMISSION_SIZE_BYTES_MAX + 2) // 3 * 4 + _JSON_OVERHEAD_BYTES
BODY_SIZE_BYTES_MAX: Final = {
    MSGPACK_TYPE: SUBMISSION_SIZE_BYTES_MAX + 8 * SUBMISSION_TRANSACTIONS_MAX,
    JSON_TYPE: JSON_SIZE_BYTES_MAX,
}

_ARRAY_OF_TWO: Final = 0x92
_ARRAY_MARKERS: Final = frozenset({*range(0x90, 0xA0), 0xDC, 0xDD})


class JsonSubmission(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Exactly one of the two."""

    transaction: bytes | None = None
    transactions: list[bytes] | None = None


class Submission(NamedTuple):
    """The transactions of a request, undecoded, and whether it was one bare transaction."""

    transactions: list[bytes]
    single: bool


class Parsed(NamedTuple):
    """A transaction that decodes."""

    id: bytes
    sender: bytes
    data: bytes
    gas_price: int


class _Terms(msgspec.Struct, frozen=True, array_like=True):
    """The beginning of a body, as far as the gas price."""

    version: msgspec.Raw
    chain_id: msgspec.Raw
    sender: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    key_id: msgspec.Raw
    nonce: msgspec.Raw
    valid_until: msgspec.Raw
    gas_limit: msgspec.Raw
    gas_price: Annotated[int, msgspec.Meta(ge=0)]


class _Priced(msgspec.Struct, frozen=True, array_like=True):
    """The beginning of a transaction."""

    body: _Terms


_many: Final = msgspec.msgpack.Decoder(Annotated[list[bytes], msgspec.Meta(min_length=1)])
_json: Final = msgspec.json.Decoder(JsonSubmission)
_priced: Final = msgspec.msgpack.Decoder(_Priced)


def media_type(content_type: str | None) -> str:
    """MSGPACK_TYPE or JSON_TYPE; raises `QnetError(UNSUPPORTED_MEDIA_TYPE)`."""
    name = (content_type or "").partition(";")[0].strip().lower()
    if name in _MSGPACK_TYPES:
        return MSGPACK_TYPE
    if name == JSON_TYPE:
        return JSON_TYPE
    raise QnetError(Code.UNSUPPORTED_MEDIA_TYPE)


def read_submission(body: bytes, type_: str) -> Submission:
    """The transactions in a body of media type `type_`.

    Raises `QnetError` with MALFORMED or TOO_MANY_TRANSACTIONS.
    """
    submission = _read_msgpack(body) if type_ == MSGPACK_TYPE else _read_json(body)
    if len(submission.transactions) > SUBMISSION_TRANSACTIONS_MAX:
        raise QnetError(
            Code.TOO_MANY_TRANSACTIONS,
            f"{len(submission.transactions)} transactions, the limit is "
            f"{SUBMISSION_TRANSACTIONS_MAX}",
        )
    if sum(map(len, submission.transactions)) > SUBMISSION_SIZE_BYTES_MAX:
        raise QnetError(Code.TOO_LARGE, f"the limit is {SUBMISSION_SIZE_BYTES_MAX} bytes in all")
    return submission


def _read_msgpack(body: bytes) -> Submission:
    # A transaction is an array of two arrays; many are an array of byte strings.
    if len(body) > 1 and body[0] == _ARRAY_OF_TWO and body[1] in _ARRAY_MARKERS:
        return Submission([body], single=True)
    try:
        return Submission(_many.decode(body), single=False)
    except (msgspec.DecodeError, RecursionError) as error:
        raise QnetError(
            Code.MALFORMED, f"neither a transaction nor an array of them: {str(error)[:150]}"
        ) from None


def _read_json(body: bytes) -> Submission:
    try:
        request = _json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise QnetError(Code.MALFORMED, str(error)[:200]) from None
    if request.transaction is not None and request.transactions is None:
        return Submission([request.transaction], single=True)
    if request.transactions and request.transaction is None:
        return Submission(request.transactions, single=False)
    raise QnetError(Code.MALFORMED, 'send {"transaction": ...} or {"transactions": [...]}')


def parse_transaction(data: bytes) -> Parsed:
    """Decodes a transaction far enough to name it and to know its sender.

    Raises `QnetError` like `Codec.decode`.
    """
    if len(data) > TRANSACTION_SIZE_BYTES_MAX:
        raise QnetError(
            Code.TOO_LARGE,
            f"a transaction of {len(data)} bytes, the limit is {TRANSACTION_SIZE_BYTES_MAX}",
        )
    body = TRANSACTION_CODEC.decode(data).body
    return Parsed(transaction_id(encode(body)), body.sender, data, body.gas_price)


def terms_of(data: bytes) -> tuple[bytes, int]:
    """Sender and gas price in the bytes of a transaction, at a tenth of what decoding them takes.

    An empty sender where there is none; nothing else of `data` is checked.
    """
    try:
        terms = _priced.decode(data).body
    except (msgspec.DecodeError, RecursionError):
        return b"", 0
    return terms.sender, terms.gas_price
