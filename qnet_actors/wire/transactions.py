"""Transactions: body, actions, witness, ids and intrinsic gas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final, get_args

import msgspec

from qnet_actors.wire.codec import U8, Address, Codec, Digest, Struct, Unsigned, encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.evidence import Equivocation, check_equivocation
from qnet_actors.wire.hashing import REGISTRATION, TRANSACTION, ZERO_DIGEST, hash32
from qnet_actors.wire.limits import (
    ACCESS_ENTRIES_MAX,
    GAS_LIMIT_MAX,
    GAS_PRICE_MAX,
    PAYEES_MAX,
    TRANSACTION_SIZE_BYTES_MAX,
    U64_MAX,
)
from qnet_actors.wire.rules import EpochRules
from qnet_actors.wire.schemes import (
    CONTEXT_REGISTRATION,
    SCHEME_SIZES,
    Scheme,
    SchemeSigner,
    key_id,
)

TRANSACTION_VERSION: Final = 1


class Transfer(Struct, frozen=True, tag=1):
    """Moves `amount` from the sender to `payee`."""

    payee: Address
    amount: Unsigned


class Payment(Struct, frozen=True):
    """One line of a multi-transfer."""

    payee: Address
    amount: Unsigned


class MultiTransfer(Struct, frozen=True, tag=2):
    """Moves several amounts at once: all of them or none."""

    payments: Annotated[tuple[Payment, ...], msgspec.Meta(min_length=1, max_length=PAYEES_MAX)]


class RotateKey(Struct, frozen=True, tag=3):
    """Makes `key_id` the sender's only valid key; the address stays."""

    key_id: Digest


class RegisterValidator(Struct, frozen=True, tag=8):
    """Makes the sender a validator with this key from the next epoch on, or changes its key."""

    scheme: U8
    public_key: Annotated[bytes, msgspec.Meta(max_length=8_192)]
    stake: Unsigned
    """Taken from the sender's balance and bonded."""
    proof: Annotated[bytes, msgspec.Meta(max_length=8_192)]
    """The key's signature over `registration_digest`: who registers it has it."""


class Stake(Struct, frozen=True, tag=9):
    """Bonds more of the sender's balance, from the next epoch on."""

    amount: Unsigned


class Unstake(Struct, frozen=True, tag=10):
    """Unbonds stake of the sender, from the next epoch on; pays out what was unbonded in time."""

    amount: Unsigned
    """0: only pays out."""


class Approve(Struct, frozen=True, tag=11):
    """Wants these rules for the next epoch; the sender owns stake of the present committee.

    They come once a quorum of its stake wants the same.  A later approval takes the place of an
    earlier one.  Executed in another epoch than the one it names it does nothing: who holds one
    back cannot choose when it counts.
    """

    epoch: Unsigned
    """The one at whose end the rules are to come."""
    rules: EpochRules


class ReportEquivocation(Struct, frozen=True, tag=12):
    """Shows that the holder of a validator key signed two DAG blocks for one slot."""

    scheme: U8
    public_key: Annotated[bytes, msgspec.Meta(max_length=8_192)]
    equivocation: Equivocation


RegistryAction = RegisterValidator | Stake | Unstake | Approve | ReportEquivocation
Action = (
    Transfer
    | MultiTransfer
    | RotateKey
    | RegisterValidator
    | Stake
    | Unstake
    | Approve
    | ReportEquivocation
)

# Tags that the format has given out and this protocol version does not run: 4 upload code,
# 5 instantiate, 6 call, 7 migrate.
RESERVED_ACTION_TAGS: Final = (4, 5, 6, 7)


class Access(Struct, frozen=True):
    """A declared access to contract state: a whole contract (no key) or a single key."""

    contract: Address
    key: Annotated[bytes, msgspec.Meta(max_length=256)]
    write: bool


class Body(Struct, frozen=True):
    """What is hashed and signed."""

    version: U8
    chain_id: Digest
    sender: Address
    key_id: Digest
    nonce: Unsigned
    valid_until: Unsigned
    """The last height at which it may be included; 0: for ever."""
    gas_limit: Annotated[int, msgspec.Meta(ge=0, le=GAS_LIMIT_MAX)]
    gas_price: Annotated[int, msgspec.Meta(ge=0, le=GAS_PRICE_MAX)]
    access: Annotated[tuple[Access, ...], msgspec.Meta(max_length=ACCESS_ENTRIES_MAX)]
    action: Action


class Witness(Struct, frozen=True):
    """What authorises a body: signature over its digest, and the public key where needed."""

    scheme: U8
    signature: Annotated[bytes, msgspec.Meta(max_length=8_192)]
    public_key: Annotated[bytes, msgspec.Meta(max_length=8_192)]
    """Empty where the network knows the key already."""


class Transaction(Struct, frozen=True):
    """A body with its witness: what a client submits."""

    body: Body
    witness: Witness


class Payload(Struct, frozen=True):
    """The last two fields of a body, which a batch keeps row by row."""

    access: Annotated[tuple[Access, ...], msgspec.Meta(max_length=ACCESS_ENTRIES_MAX)]
    action: Action


_ACTION_TAGS: Final = frozenset(type_.__struct_config__.tag for type_ in get_args(Action))
_list: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])


def _action_refusal(*path: int) -> Callable[[bytes], QnetError | None]:
    """What is to be said of an action at `path` (positions in nested arrays) that is not known."""

    def explain(data: bytes) -> QnetError | None:
        try:
            for position in path:
                data = bytes(_list.decode(data)[position])
            tag = msgspec.msgpack.decode(_list.decode(data)[0], type=int)
        except (msgspec.DecodeError, IndexError, RecursionError):
            return None
        if tag in RESERVED_ACTION_TAGS:
            return QnetError(Code.ACTION_DISABLED, f"action {tag}")
        return None if tag in _ACTION_TAGS else QnetError(Code.UNKNOWN_ACTION, f"action {tag}")

    return explain


TRANSACTION_CODEC: Final = Codec[Transaction](
    Transaction, TRANSACTION_SIZE_BYTES_MAX, _action_refusal(0, 9)
)
BODY_CODEC: Final = Codec[Body](Body, TRANSACTION_SIZE_BYTES_MAX, _action_refusal(9))
PAYLOAD_CODEC: Final = Codec[Payload](Payload, TRANSACTION_SIZE_BYTES_MAX, _action_refusal(1))
_ARRAY_OF_TWO: Final = b"\x92"

GAS_TRANSFER: Final = 1_000
GAS_PAYMENT: Final = 500
GAS_ROTATE_KEY: Final = 2_000
GAS_ACCESS_ENTRY: Final = 50
GAS_REGISTER: Final = 60_000
GAS_STAKE: Final = 20_000
GAS_REPORT: Final = 60_000
GAS_APPROVE: Final = 60_000


def registration_digest(chain_id: bytes, account: bytes, scheme: int, public_key: bytes) -> bytes:
    """What a validator key signs, as "qnet/registration/v1", so that `account` may register it.

    Without it anybody could claim the key that another is about to register, and be punished, or
    spare the other from being so, for what the key signs.
    """
    return hash32(REGISTRATION, chain_id, account, key_id(scheme, public_key))


def register_validator(
    signer: SchemeSigner, chain_id: bytes, account: bytes, stake: int
) -> RegisterValidator:
    """The action by which `account` becomes a validator with the key of `signer`."""
    scheme, public_key = int(signer.scheme), signer.public_key
    digest = registration_digest(chain_id, account, scheme, public_key)
    proof = signer.sign(digest, CONTEXT_REGISTRATION)
    return RegisterValidator(scheme, public_key, stake, proof)


def transaction_id(body: bytes) -> bytes:
    """The id of a transaction: the hash of its body's canonical bytes, without the signature."""
    return hash32(TRANSACTION, body)


def payload_bytes(body: Body) -> bytes:
    """The canonical bytes of a body's access list and action, one after the other."""
    return encode(body.access) + encode(body.action)


def decode_payload(data: bytes) -> Payload:
    """The access list and action in `data`; raises `QnetError` like `Codec.decode`."""
    return PAYLOAD_CODEC.decode(_ARRAY_OF_TWO + data)


def intrinsic_gas(access_count: int, action: Action) -> int:
    """The gas that an action costs whatever state it meets; what native actions cost in all."""
    gas = GAS_ACCESS_ENTRY * access_count
    match action:
        case Transfer():
            return gas + GAS_TRANSFER
        case MultiTransfer(payments=payments):
            return gas + GAS_TRANSFER + GAS_PAYMENT * (len(payments) - 1)
        case RotateKey():
            return gas + GAS_ROTATE_KEY
        case RegisterValidator():
            return gas + GAS_REGISTER
        case Stake() | Unstake():
            return gas + GAS_STAKE
        case Approve():
            return gas + GAS_APPROVE
        case ReportEquivocation():
            return gas + GAS_REPORT


def amount_total(action: Action) -> int:
    """What the action takes from the sender's balance besides fees (may exceed u64)."""
    match action:
        case Transfer(amount=amount):
            return amount
        case MultiTransfer(payments=payments):
            return sum(payment.amount for payment in payments)
        case RegisterValidator(stake=stake):
            return stake
        case Stake(amount=amount):
            return amount
        case RotateKey() | Unstake() | Approve() | ReportEquivocation():
            return 0


def check_body(body: Body, chain_id: bytes) -> None:
    """Holds a body to the rules that its bytes alone decide, batch validity among them.

    Raises `QnetError` with UNSUPPORTED_VERSION, WRONG_CHAIN, GAS_LIMIT_TOO_LOW,
    GAS_PRICE_OUT_OF_RANGE or AMOUNT_OVERFLOW.
    """
    if body.version != TRANSACTION_VERSION:
        raise QnetError(Code.UNSUPPORTED_VERSION, f"transaction version {body.version}")
    if body.chain_id != chain_id:
        raise QnetError(Code.WRONG_CHAIN)
    check_terms(body.gas_limit, body.gas_price, Payload(body.access, body.action))


def check_terms(gas_limit: int, gas_price: int, payload: Payload) -> None:
    """The part of `check_body` that concerns gas and amounts."""
    if not 1 <= gas_price <= GAS_PRICE_MAX:
        raise QnetError(Code.GAS_PRICE_OUT_OF_RANGE)
    if gas_limit > GAS_LIMIT_MAX:
        raise QnetError(Code.GAS_LIMIT_TOO_HIGH)
    needed = intrinsic_gas(len(payload.access), payload.action)
    if gas_limit < needed:
        raise QnetError(Code.GAS_LIMIT_TOO_LOW, f"gas limit {gas_limit}, the action needs {needed}")
    if amount_total(payload.action) > U64_MAX:
        raise QnetError(Code.AMOUNT_OVERFLOW)
    if isinstance(payload.action, RotateKey) and payload.action.key_id == ZERO_DIGEST:
        raise QnetError(Code.MALFORMED, "a key id of zeros stands for no key")
    if isinstance(payload.action, RegisterValidator | ReportEquivocation):
        check_validator_key(payload.action.scheme, payload.action.public_key)
    if isinstance(payload.action, RegisterValidator):
        sizes = SCHEME_SIZES[Scheme(payload.action.scheme)]
        if len(payload.action.proof) != sizes.signature:
            raise QnetError(Code.MALFORMED, f"a proof of {len(payload.action.proof)} bytes")
    if isinstance(payload.action, ReportEquivocation):
        check_equivocation(payload.action.equivocation)


def check_validator_key(scheme: int, public_key: bytes) -> None:
    """Raises `QnetError`: UNKNOWN_SCHEME, or MALFORMED where the key is not of its size."""
    try:
        sizes = SCHEME_SIZES[Scheme(scheme)]
    except ValueError:
        raise QnetError(Code.UNKNOWN_SCHEME, f"scheme {scheme}") from None
    if len(public_key) != sizes.public_key:
        raise QnetError(Code.MALFORMED, f"a public key of {len(public_key)} bytes")


def check_witness(body: Body, witness: Witness, schemes: frozenset[int]) -> None:
    """Holds a witness to its scheme's sizes and to the key id that the body names.

    Raises `QnetError` with UNKNOWN_SCHEME, SCHEME_REFUSED, MALFORMED or UNKNOWN_KEY.
    """
    try:
        sizes = SCHEME_SIZES[Scheme(witness.scheme)]
    except ValueError:
        raise QnetError(Code.UNKNOWN_SCHEME, f"scheme {witness.scheme}") from None
    if witness.scheme not in schemes:
        raise QnetError(Code.SCHEME_REFUSED, f"scheme {witness.scheme}")
    if len(witness.signature) != sizes.signature:
        raise QnetError(Code.MALFORMED, f"a signature of {len(witness.signature)} bytes")
    if not witness.public_key:
        return
    if len(witness.public_key) != sizes.public_key:
        raise QnetError(Code.MALFORMED, f"a public key of {len(witness.public_key)} bytes")
    if key_id(witness.scheme, witness.public_key) != body.key_id:
        raise QnetError(Code.UNKNOWN_KEY, "the public key is not the one that key_id names")
