"""Mutual challenge and response: each end proves that it holds the validator key that it claims.

    dialler  -> acceptor   hello  [version, chain id, key id, nonce]
    acceptor -> dialler    hello
    dialler  -> acceptor   proof  [signature]
    acceptor -> dialler    proof

A proof signs hash(role, channel binding, the dialler's hello, the acceptor's hello) with the
context "qnet/link/v1".  Both nonces are in it, so an old proof proves nothing; the role is, so a
proof cannot be sent back to who made it.  The dialler proves first: a stranger who reaches the port
costs a verification and never a signature.

In the clear nothing guards the bytes after the handshake against someone on the path between the
two ends; that is what a protected transport and its channel binding are for.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Final

import msgspec

from qnet_actors.links.counters import Reason
from qnet_actors.links.roster import Roster
from qnet_actors.links.stream import Ended, Payload, Stream
from qnet_actors.wire.codec import U8, Codec, Digest, Struct, encode
from qnet_actors.wire.codes import QnetError
from qnet_actors.wire.hashing import LINK, hash32
from qnet_actors.wire.schemes import CONTEXT_LINK, Scheme, Signer, Verifier

LINK_VERSION: Final = 2
_HELLO_SIZE_BYTES_MAX: Final = 128
_PROOF_SIZE_BYTES_MAX: Final = 8_200


class Role(IntEnum):
    """The two ends of a link."""

    DIALLER = 1
    ACCEPTOR = 2


class Hello(Struct, frozen=True):
    """Who somebody says they are, on which network, with a nonce never used before."""

    version: U8
    chain_id: Digest
    key_id: Digest
    nonce: Digest


class Proof(Struct, frozen=True):
    """The signature that backs a hello."""

    signature: Annotated[bytes, msgspec.Meta(max_length=8_192)]


HELLO_CODEC: Final = Codec[Hello](Hello, _HELLO_SIZE_BYTES_MAX)
PROOF_CODEC: Final = Codec[Proof](Proof, _PROOF_SIZE_BYTES_MAX)


@dataclass(frozen=True, slots=True)
class Identity:
    """What a validator needs to prove itself and to check others."""

    roster: Roster
    chain_id: bytes
    signer: Signer
    verifier: Verifier
    executor: Executor
    """Where signatures are made and checked: off the event loop."""
    nonce: Callable[[], bytes] = lambda: secrets.token_bytes(32)


def proof_digest(role: Role, binding: bytes, dialler: Payload, acceptor: Payload) -> bytes:
    """What the end of `role` signs: `dialler` and `acceptor` are the hellos as they were sent."""
    return hash32(LINK, bytes((role,)), binding, dialler, acceptor)


def check_hello(hello: Hello, identity: Identity, expected: int | None) -> int:
    """The number of who the other end says it is, where that may link; raises `Ended`."""
    if hello.version != LINK_VERSION:
        raise Ended(Reason.WRONG_VERSION)
    if hello.chain_id != identity.chain_id:
        raise Ended(Reason.WRONG_CHAIN)
    number = identity.roster.number_of(hello.key_id)
    if number is None or number == identity.roster.own:
        raise Ended(Reason.WRONG_PEER)
    if expected is not None and number != expected:
        raise Ended(Reason.WRONG_PEER)
    return number


async def prove_dialler(stream: Stream, identity: Identity, expected: int) -> int:
    """The dialling end of the handshake; returns the peer, which is `expected`.

    Raises `Ended` with the reason; the caller bounds the time and closes the stream.
    """
    own = encode(_own_hello(identity))
    stream.write((own,))
    theirs = await stream.read_frame(_HELLO_SIZE_BYTES_MAX)
    hello = _decode_hello(theirs)
    number = check_hello(hello, identity, expected)
    await _send_proof(stream, identity, proof_digest(Role.DIALLER, stream.binding, own, theirs))
    digest = proof_digest(Role.ACCEPTOR, stream.binding, own, theirs)
    await _check_proof(stream, identity, number, digest)
    return number


async def prove_acceptor(stream: Stream, identity: Identity) -> int:
    """The accepting end of the handshake; returns the peer.  Raises `Ended` with the reason."""
    theirs = await stream.read_frame(_HELLO_SIZE_BYTES_MAX)
    hello = _decode_hello(theirs)
    number = check_hello(hello, identity, None)
    own = encode(_own_hello(identity))
    stream.write((own,))
    digest = proof_digest(Role.DIALLER, stream.binding, theirs, own)
    await _check_proof(stream, identity, number, digest)
    await _send_proof(stream, identity, proof_digest(Role.ACCEPTOR, stream.binding, theirs, own))
    return number


def _own_hello(identity: Identity) -> Hello:
    return Hello(LINK_VERSION, identity.chain_id, identity.roster.own_id, identity.nonce())


def _decode_hello(data: Payload) -> Hello:
    try:
        return HELLO_CODEC.decode(data)
    except QnetError:
        raise Ended(Reason.BAD_HELLO) from None


async def _send_proof(stream: Stream, identity: Identity, digest: bytes) -> None:
    loop = asyncio.get_running_loop()
    signature = await loop.run_in_executor(
        identity.executor, identity.signer.sign, digest, CONTEXT_LINK
    )
    stream.write((encode(Proof(signature)),))


async def _check_proof(stream: Stream, identity: Identity, number: int, digest: bytes) -> None:
    key = identity.roster.keys.get(number)
    if key is None:
        raise Ended(Reason.WRONG_PEER)
    data = await stream.read_frame(_PROOF_SIZE_BYTES_MAX)
    try:
        proof = PROOF_CODEC.decode(data)
    except QnetError:
        raise Ended(Reason.BAD_PROOF) from None

    def valid() -> bool:
        verdicts = identity.verifier.verify(
            [key.public_key],
            [digest],
            [proof.signature],
            CONTEXT_LINK,
            Scheme(key.scheme),
        )
        return bool(verdicts[0])

    if not await asyncio.get_running_loop().run_in_executor(identity.executor, valid):
        raise Ended(Reason.BAD_PROOF)
