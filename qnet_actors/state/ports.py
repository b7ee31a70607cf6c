"""A state partition behind frames, so that it may live in a process of its own.

A frame is the canonical MessagePack of a `Request` or `Answer`; columns travel as bytes.  Both ends
are of one validator, so what does not decode is a fault of the node.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from qnet_actors.light import Account, AccountProof, key_hash
from qnet_actors.rooms import AccountColumns
from qnet_actors.state.accounts import split_rows
from qnet_actors.state.partition import Partition
from qnet_actors.state.tree import Kind, Subtree
from qnet_actors.wire.blocks import WriteSet
from qnet_actors.wire.codec import Struct, encode


class Port(Protocol):
    """A server of frames, in this process or another."""

    def call(self, request: bytes) -> Callable[[], bytes]:
        """Starts a call; what it returns waits for the answer.

        So calls to several servers run side by side.  Calls to one server are served in order.
        """


class Reset(Struct, frozen=True, tag=1):
    """Forgets everything; the partition's keys share their first `depth` bits."""

    depth: int


class Read(Struct, frozen=True, tag=2):
    """Answered by `Values`."""

    addresses: bytes


class Put(Struct, frozen=True, tag=3):
    accounts: WriteSet


class Root(Struct, frozen=True, tag=4):
    """Brings the tree up to date, which is the one of `height`; answered by `RootAnswer`."""

    height: int


class Everything(Struct, frozen=True, tag=5):
    """Answered by an `AllAccounts` in no particular order."""


class RootAt(Struct, frozen=True, tag=6):
    """Answered by the `RootAnswer` that `Root` had at one of the last heights."""

    height: int


class Prove(Struct, frozen=True, tag=7):
    """Answered by `Proved`, at one of the last heights that `Root` named."""

    address: bytes
    height: int


class Done(Struct, frozen=True, tag=10):
    pass


class Values(Struct, frozen=True, tag=11):
    """nonces and balances uint64 little-endian, key ids 32 bytes each, in the order asked."""

    nonces: bytes
    balances: bytes
    key_ids: bytes


class RootAnswer(Struct, frozen=True, tag=12):
    kind: int
    hash: bytes


class AllAccounts(Struct, frozen=True, tag=13):
    accounts: WriteSet


class Proved(Struct, frozen=True, tag=14):
    account: Account | None
    proof: AccountProof
    """Below this partition's root."""


Request = Reset | Read | Put | Root | Everything | RootAt | Prove
Answer = Done | Values | RootAnswer | AllAccounts | Proved

_REQUEST: Final[msgspec.msgpack.Decoder[Request]] = msgspec.msgpack.Decoder(Request)
_ANSWER: Final[msgspec.msgpack.Decoder[Answer]] = msgspec.msgpack.Decoder(Answer)


class PartitionServer:
    """One partition of the state; takes frames one after the other."""

    def __init__(self) -> None:
        self._partition = Partition(0)

    def handle(self, frame: bytes) -> bytes:
        """The answer to a request, both as frames.

        Raises `QnetError(NOT_FOUND)` for a height of which no proof can be made any more.
        """
        return encode(self._answer(_REQUEST.decode(frame)))

    def call(self, request: bytes) -> Callable[[], bytes]:
        """See `Port`: a partition of this process."""
        answer = self.handle(request)
        return lambda: answer

    def _answer(self, request: Request) -> Answer:
        match request:
            case Reset(depth=depth):
                self._partition = Partition(depth)
                return Done()
            case Read(addresses=addresses):
                rows = np.frombuffer(addresses, dtype=np.uint8).reshape(-1, 32)
                return _values(self._partition.accounts.read(split_rows(rows)))
            case Put(accounts=accounts):
                addresses_, values = account_columns(accounts)
                self._partition.write(split_rows(addresses_), values)
                return Done()
            case Root(height=height):
                root = self._partition.update(self._partition.cut(height))
                return RootAnswer(root.kind, root.hash)
            case RootAt(height=height):
                root = self._partition.root_at(height)
                return RootAnswer(root.kind, root.hash)
            case Prove(address=address, height=height):
                exists, proof = self._partition.prove_at(key_hash(address), height)
                account = self._partition.account_at(address, height)
                return Proved(account if exists else None, proof)
            case Everything():
                return AllAccounts(column_bytes(*self._partition.accounts.columns()))


def ask(port: Port, request: Request) -> Callable[[], Answer]:
    """Starts a call with a request; what it returns waits for the answer."""
    wait = port.call(encode(request))
    return lambda: _ANSWER.decode(wait())


def done(answer: Answer) -> None:
    """Raises `TypeError` unless the answer is that a request without an answer was served."""
    if not isinstance(answer, Done):
        raise _unexpected(answer)


def values_of(answer: Answer) -> AccountColumns:
    if not isinstance(answer, Values):
        raise _unexpected(answer)
    return AccountColumns(
        np.frombuffer(answer.nonces, dtype="<u8"),
        np.frombuffer(answer.balances, dtype="<u8"),
        np.frombuffer(answer.key_ids, dtype=np.uint8).reshape(-1, 32),
    )


def root_of(answer: Answer) -> Subtree:
    if not isinstance(answer, RootAnswer):
        raise _unexpected(answer)
    return Subtree(Kind(answer.kind), answer.hash)


def proved_of(answer: Answer) -> Proved:
    if not isinstance(answer, Proved):
        raise _unexpected(answer)
    return answer


def accounts_of(answer: Answer) -> WriteSet:
    if not isinstance(answer, AllAccounts):
        raise _unexpected(answer)
    return answer.accounts


def account_columns(accounts: WriteSet) -> tuple[npt.NDArray[np.uint8], AccountColumns]:
    """Addresses uint8[n, 32] and values, in whatever order they stand."""
    return np.frombuffer(accounts.addresses, dtype=np.uint8).reshape(-1, 32), AccountColumns(
        np.frombuffer(accounts.nonces, dtype="<u8"),
        np.frombuffer(accounts.balances, dtype="<u8"),
        np.frombuffer(accounts.key_ids, dtype=np.uint8).reshape(-1, 32),
    )


def column_bytes(addresses: npt.NDArray[np.uint8], values: AccountColumns) -> WriteSet:
    """The other way."""
    return WriteSet(
        addresses=addresses.tobytes(),
        nonces=values.nonces.astype("<u8").tobytes(),
        balances=values.balances.astype("<u8").tobytes(),
        key_ids=values.key_ids.tobytes(),
    )


def _values(columns: AccountColumns) -> Values:
    return Values(
        columns.nonces.astype("<u8").tobytes(),
        columns.balances.astype("<u8").tobytes(),
        columns.key_ids.tobytes(),
    )


def _unexpected(answer: Answer) -> TypeError:
    return TypeError(f"a partition answered with {type(answer).__name__}")
