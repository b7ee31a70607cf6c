"""The one table of status and error codes, from which documentation and OpenAPI are made.

A code has a number that travels (receipts, peer answers), a `snake_case` name that people and
programs read, the HTTP status that the gateway answers with, and a sentence that says what it
means and what to do.  Numbers are stable for ever; a code that falls out of use keeps its number.
"""

from __future__ import annotations

import sys
from enum import IntEnum
from typing import Final


class Code(IntEnum):
    """Stable status and error codes: receipts use 0-99, refusals 100 and up."""

    # Receipts: what became of an included transaction.
    SUCCESS = 0
    INSUFFICIENT_BALANCE = 1
    BALANCE_OVERFLOW = 2
    OUT_OF_GAS = 3
    ACCESS_VIOLATION = 4
    NOT_A_VALIDATOR = 5
    REGISTRY_FULL = 6
    STAKE_TOO_LOW = 7
    VALIDATOR_KEY_IN_USE = 8
    EVIDENCE_REFUSED = 9
    ALREADY_PUNISHED = 10
    COMMITTEE_FIXED = 11
    KEY_NOT_PROVED = 12
    NOT_OF_COMMITTEE = 13
    PARAMETERS_REFUSED = 14
    VERSION_REFUSED = 15
    OTHER_EPOCH = 16

    # Form: facts of the bytes.
    MALFORMED = 100
    NON_CANONICAL = 101
    TOO_LARGE = 102
    UNSUPPORTED_VERSION = 103
    WRONG_CHAIN = 104
    UNKNOWN_SCHEME = 105
    SCHEME_REFUSED = 106
    BAD_SIGNATURE = 107
    UNKNOWN_KEY = 108
    UNKNOWN_ACTION = 109
    ACTION_DISABLED = 110
    GAS_LIMIT_TOO_LOW = 111
    GAS_LIMIT_TOO_HIGH = 112
    GAS_PRICE_OUT_OF_RANGE = 113
    AMOUNT_OVERFLOW = 114
    BAD_ADDRESS = 115
    TOO_MANY_TRANSACTIONS = 116

    # Admission: facts of the moment.
    EXPIRED = 200
    NONCE_TOO_LOW = 201
    NONCE_TOO_FAR = 202
    DUPLICATE = 203
    INSUFFICIENT_FUNDS = 204
    KEY_NOT_CURRENT = 205
    REPLACEMENT_UNDERPRICED = 206
    SENDER_LIMIT = 207
    POOL_FULL = 208
    BUSY = 209
    REPLACED = 210
    EVICTED = 211
    UNPAYABLE = 212

    # What another validator sent.
    UNKNOWN_AUTHOR = 300
    WRONG_EPOCH = 301
    BAD_ANCESTORS = 302
    BAD_CERTIFICATE = 303
    BAD_SEQUENCE = 304
    UNEXPECTED_MESSAGE = 305
    BAD_PROOF = 306

    # The front door.
    NOT_FOUND = 400
    RATE_LIMITED = 401
    UNSUPPORTED_MEDIA_TYPE = 402
    INVALID_PARAMETER = 403
    WAIT_TIMEOUT = 404
    FAUCET_DISABLED = 405
    NOT_READY = 406
    METHOD_NOT_ALLOWED = 407
    REQUEST_TIMEOUT = 408
    PRUNED = 409
    READ_ONLY = 410
    INTERNAL = 499

    # The node and its keys.
    BAD_PASSPHRASE = 500
    KEYSTORE_MALFORMED = 501
    KEYSTORE_EXISTS = 502
    PROVIDER_MISSING = 503
    DEVELOPMENT_KEY_REFUSED = 504
    DATA_DIRECTORY_LOCKED = 505
    DATA_CORRUPT = 506
    DATA_VERSION = 507
    DIVERGED = 508
    CONFIGURATION_INVALID = 509
    PORT_IN_USE = 510
    DISK_FULL = 511
    NODE_UNREACHABLE = 512

    @property
    def label(self) -> str:
        """The `snake_case` name."""
        return self.name.lower()

    @property
    def http_status(self) -> int:
        """The HTTP status with which the gateway answers."""
        return _HTTP_STATUS.get(self, _HTTP_BY_HUNDRED[self // 100])

    @property
    def description(self) -> str:
        """What it means and what to do, in a sentence."""
        return DESCRIPTIONS[self]


_HTTP_BY_HUNDRED: Final = {0: 200, 1: 400, 2: 409, 3: 400, 4: 400, 5: 500}
_HTTP_STATUS: Final = {
    Code.TOO_LARGE: 413,
    Code.TOO_MANY_TRANSACTIONS: 413,
    Code.POOL_FULL: 503,
    Code.BUSY: 503,
    Code.SENDER_LIMIT: 429,
    Code.NOT_FOUND: 404,
    Code.RATE_LIMITED: 429,
    Code.UNSUPPORTED_MEDIA_TYPE: 415,
    Code.WAIT_TIMEOUT: 504,
    Code.FAUCET_DISABLED: 403,
    Code.NOT_READY: 503,
    Code.METHOD_NOT_ALLOWED: 405,
    Code.REQUEST_TIMEOUT: 408,
    Code.PRUNED: 410,
    Code.READ_ONLY: 403,
    Code.INTERNAL: 500,
    Code.DISK_FULL: 503,
}

DESCRIPTIONS: Final = {
    Code.SUCCESS: "The transaction did what it asked for.",
    Code.INSUFFICIENT_BALANCE: "The balance left after the fee is below the amount; the fee and "
    "the nonce are spent.",
    Code.BALANCE_OVERFLOW: "A balance would leave the range of u64; the fee and nonce are spent.",
    Code.OUT_OF_GAS: "The gas limit was reached; the fee and the nonce are spent.",
    Code.ACCESS_VIOLATION: "The call touched state that it had not declared.",
    Code.NOT_A_VALIDATOR: "The sender is not registered as a validator; register first.",
    Code.REGISTRY_FULL: "All places for validators are taken; wait until one leaves.",
    Code.STAKE_TOO_LOW: "The stake would be below the network's least, or less than is unstaked.",
    Code.VALIDATOR_KEY_IN_USE: "The key is or was another validator's; make a new one.",
    Code.EVIDENCE_REFUSED: "The proof does not hold, its key is no validator's, or its epoch is "
    "longer ago than unbonding takes.",
    Code.ALREADY_PUNISHED: "This validator was punished for this epoch already.",
    Code.COMMITTEE_FIXED: "The genesis keeps the committee for ever; nobody registers, stakes or "
    "is punished here.",
    Code.KEY_NOT_PROVED: "The validator key did not sign for this account on this chain; sign the "
    "registration with it.",
    Code.NOT_OF_COMMITTEE: "The sender owns no stake of the present committee; register, and "
    "approve in the next epoch.",
    Code.PARAMETERS_REFUSED: "A parameter is out of its range or the genesis' for ever; see the "
    "configuration reference.",
    Code.VERSION_REFUSED: "Only the present protocol version or the one after it can be approved.",
    Code.OTHER_EPOCH: "The approval was for another epoch than the one it was executed in; if the "
    "rules are still wanted, approve them for this one.",
    Code.MALFORMED: "The bytes do not decode against the schema; compare with the wire format.",
    Code.NON_CANONICAL: "The bytes decode, but are not the canonical encoding; encode again.",
    Code.TOO_LARGE: "The message is over its size limit; send less at once.",
    Code.UNSUPPORTED_VERSION: "This version of the type is not spoken here.",
    Code.WRONG_CHAIN: "The chain id is another network's; take it from /api/v1/status.",
    Code.UNKNOWN_SCHEME: "No signature scheme has this number.",
    Code.SCHEME_REFUSED: "The network's genesis does not allow this signature scheme.",
    Code.BAD_SIGNATURE: "The signature does not verify over the body's digest with this key.",
    Code.UNKNOWN_KEY: "The key id is not known here; send the public key in the witness.",
    Code.UNKNOWN_ACTION: "No action has this tag.",
    Code.ACTION_DISABLED: "The action is not part of this protocol version, or of this network.",
    Code.GAS_LIMIT_TOO_LOW: "The gas limit is below the action's intrinsic gas; raise it.",
    Code.GAS_LIMIT_TOO_HIGH: "The gas limit is over the bound for a transaction; lower it.",
    Code.GAS_PRICE_OUT_OF_RANGE: "The gas price is zero or over its bound.",
    Code.AMOUNT_OVERFLOW: "The amounts of the transaction add up to more than u64 holds.",
    Code.BAD_ADDRESS: "The address does not decode, or belongs to another kind of network.",
    Code.TOO_MANY_TRANSACTIONS: "More transactions than one submission may carry; split it.",
    Code.EXPIRED: "The height until which the transaction was valid has passed; sign a new one.",
    Code.NONCE_TOO_LOW: "The account has used this nonce; take the next one.",
    Code.NONCE_TOO_FAR: "The nonce is too far ahead of the account's; send the earlier ones first.",
    Code.DUPLICATE: "This very transaction is already in the pool; ask for its status.",
    Code.INSUFFICIENT_FUNDS: "Pending amounts and fees are more than the sender's balance.",
    Code.KEY_NOT_CURRENT: "The key is not the account's current one; sign with the current key.",
    Code.REPLACEMENT_UNDERPRICED: "A pooled transaction has this nonce; offer 10 % more gas price.",
    Code.SENDER_LIMIT: "The sender has as many pending transactions as it may; wait for some.",
    Code.POOL_FULL: "There is no room, and this may not displace what pays least: it pays no more, "
    "or has to wait for an earlier nonce; try later.",
    Code.BUSY: "The node is catching up with its load; try again after Retry-After.",
    Code.REPLACED: "Another transaction with the same nonce and a higher gas price took its place.",
    Code.EVICTED: "The pool was full and better-paying transactions took its place; send again.",
    Code.UNPAYABLE: "At its turn the account could not pay; it was not included.",
    Code.UNKNOWN_AUTHOR: "The author is not in the committee.",
    Code.WRONG_EPOCH: "The message belongs to another epoch.",
    Code.BAD_ANCESTORS: "The ancestors of a DAG block break a rule of the protocol.",
    Code.BAD_CERTIFICATE: "The certificate does not carry a quorum of good signatures.",
    Code.BAD_SEQUENCE: "A sequence number was used for two different things.",
    Code.UNEXPECTED_MESSAGE: "The message was not asked for, or not now.",
    Code.BAD_PROOF: "The proof does not lead to what a quorum certified; ask another gateway.",
    Code.NOT_FOUND: "Nothing with this name is known here.",
    Code.RATE_LIMITED: "Too many requests; wait for Retry-After.",
    Code.UNSUPPORTED_MEDIA_TYPE: "Send application/msgpack or application/json.",
    Code.INVALID_PARAMETER: "A parameter is out of its range; the detail names it.",
    Code.WAIT_TIMEOUT: "The awaited status was not reached in time; the transaction may yet be.",
    Code.FAUCET_DISABLED: "Only development networks have a faucet.",
    Code.NOT_READY: "The node has not finished starting; try again.",
    Code.METHOD_NOT_ALLOWED: "The resource does not take this method.",
    Code.REQUEST_TIMEOUT: "The body did not arrive in time; send it again without pauses.",
    Code.PRUNED: "It was here, and is not kept any more; ask a validator that keeps all blocks.",
    Code.READ_ONLY: "An observer answers here, which takes no transactions; send them to a gateway "
    "of validators.",
    Code.INTERNAL: "A fault of the node, which has been logged; the request may be repeated.",
    Code.BAD_PASSPHRASE: "The passphrase does not open the keystore.",
    Code.KEYSTORE_MALFORMED: "The file is not a keystore that this version reads.",
    Code.KEYSTORE_EXISTS: "A key of this name exists; choose another name.",
    Code.PROVIDER_MISSING: "The cryptographic provider is not installed on this machine.",
    Code.DEVELOPMENT_KEY_REFUSED: "Development keys are public; this network is not a dev one.",
    Code.DATA_DIRECTORY_LOCKED: "Another process uses this data directory; stop it first.",
    Code.DATA_CORRUPT: "Stored data failed its checks; resync this validator.",
    Code.DATA_VERSION: "The stored data is of another format; start the release that wrote it.",
    Code.DIVERGED: "A quorum certified another block at a height executed here; resync.",
    Code.CONFIGURATION_INVALID: "The configuration is not valid; the detail names the field.",
    Code.PORT_IN_USE: "The port is taken; choose another or stop who holds it.",
    Code.DISK_FULL: "The disk is full or below its watermark; free space. A validator that stopped "
    "must be started again, others go on.",
    Code.NODE_UNREACHABLE: "No gateway answers at this address; is the network running?",
}


class QnetError(Exception):
    """A refusal or fault with a stable code; `detail` says what to do in this very case."""

    def __init__(self, code: Code, detail: str = "") -> None:
        super().__init__(f"{code.label}: {detail or code.description}")
        self.code = code
        self.detail = detail or code.description

    def __reduce__(self) -> tuple[type[QnetError], tuple[Code, str]]:
        return (QnetError, (self.code, self.detail))


_HUNDREDS: Final = {
    0: "In receipts: what became of an included transaction",
    1: "Form: facts of the bytes",
    2: "Admission: facts of the moment",
    3: "What another validator, or a gateway, sent",
    4: "The front door",
    5: "The node and its keys",
}

_PAGE_HEAD: Final = """\
# Status and error codes

Made from `qnet_actors/wire/codes.py`; write it anew with
`python -m qnet_actors.wire.codes > docs/reference/errors.md`.

A code has a number, which travels in receipts and between validators, and a name, which the gateway
and the command line show. Both are stable. `HTTP` is the status with which the gateway answers; a
receipt is an answer to a good request, so its codes come with 200.
"""


def reference_page() -> str:
    """docs/reference/errors.md."""
    lines = [_PAGE_HEAD]
    for hundred, title in _HUNDREDS.items():
        lines += [f"## {title}", "", "| Number | Name | HTTP | Meaning |", "|---|---|---|---|"]
        lines += [
            f"| {int(code)} | `{code.label}` | {code.http_status} | {code.description} |"
            for code in Code
            if code // 100 == hundred
        ]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(reference_page())
