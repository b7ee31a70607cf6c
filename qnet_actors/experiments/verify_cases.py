"""Signatures of all kinds, good and bad, on which verifiers must agree; and the comparison.

Random faults in real signatures are nearly always refused.  What must be accepted at the edges, a
norm at its bound or all 55 hints, no signer makes: here it comes from keys whose t1 is zero, for
which anybody can sign (w = A z, whatever z).
"""

from __future__ import annotations

import hashlib
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from qnet_actors.crypto.mldsa import reference
from qnet_actors.crypto.providers.seam import Provider
from qnet_actors.crypto.verify import BatchVerifier
from qnet_actors.wire.codes import QnetError
from qnet_actors.wire.schemes import Scheme

SCHEME: Final = Scheme.ML_DSA_65
CONTEXTS: Final = (b"", b"qnet/tx/v1", bytes(255))
NORM_MAX: Final = reference.GAMMA1 - reference.BETA - 1
_Z_BITS: Final = 20
_HINT_START: Final = reference.SIGNATURE_BYTES - reference.OMEGA - reference.K
_ROWS_PER_CALL: Final = 256
_PROGRESS_SECONDS: Final = 5.0

Hint = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Case:
    """A row, and what kind of row it is."""

    kind: str
    public_key: bytes
    message: bytes
    signature: bytes
    context: bytes


@dataclass(slots=True)
class Comparison:
    """How many cases there were, and on which ones verifiers differed."""

    cases: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    disagreements: list[tuple[Case, dict[str, bool]]] = field(default_factory=list)


def encode_signature(challenge: bytes, z: Sequence[Sequence[int]], hint: Hint) -> bytes:
    """FIPS 204 Algorithm 26, sigEncode; `hint` lists the places of each of K rows."""
    packed = b"".join(
        sum((reference.GAMMA1 - x) << _Z_BITS * i for i, x in enumerate(poly)).to_bytes(
            640, "little"
        )
        for poly in z
    )
    places = [place for row in hint for place in row]
    ends = [sum(map(len, hint[: row + 1])) for row in range(reference.K)]
    return challenge + packed + bytes(places + [0] * (reference.OMEGA - len(places)) + ends)


def free_signature(
    rho: bytes, message: bytes, context: bytes, z: Sequence[Sequence[int]], hint: Hint
) -> tuple[bytes, bytes]:
    """(public key with t1 = 0, signature) that verifies where z's norm and the hint are valid."""
    public_key = rho + bytes(reference.PUBLIC_KEY_BYTES - 32)
    key = reference.expand_key(public_key)
    z_hat = [reference.ntt([x % reference.Q for x in poly]) for poly in z]
    w1 = bytearray()
    for row in range(reference.K):
        sums = [
            sum(a[i] * zs[i] for a, zs in zip(key.a[row], z_hat, strict=True)) % reference.Q
            for i in range(reference.N)
        ]
        places = set(hint[row])
        w = reference.inverse_ntt(sums)
        w1 += reference.encode_w1([reference.use_hint(i in places, r) for i, r in enumerate(w)])
    formatted = bytes((0, len(context))) + context + message
    mu = hashlib.shake_256(key.tr + formatted).digest(64)
    challenge = hashlib.shake_256(mu + bytes(w1)).digest(reference.CHALLENGE_BYTES)
    return public_key, encode_signature(challenge, z, hint)


def cases(signer: Provider, seed: int, base: int = 400) -> Iterator[Case]:
    """Endless cases, the same for a seed and a signer that signs alike.

    Most are faults in `base` real signatures; some are real, some are free ones at the edges.
    """
    source = random.Random(seed)
    real = list(_real(signer, source, base))
    free = list(_free(source, max(base // 10, 8)))
    kinds: tuple[tuple[str, Callable[[random.Random, Case], Case]], ...] = (
        ("bit of a signature", _flip_signature),
        ("bit of a key", _flip_key),
        ("coefficient at an edge", _edge_coefficient),
        ("other hint", _other_hint),
        ("other message or context", _other_message),
        ("noise", _noise),
        ("other length", _other_length),
        ("as it was", lambda source, case: case),
    )
    while True:
        kind, change = source.choice(kinds)
        origin = source.choice(free if source.random() < 0.3 else real)
        changed = change(source, origin)
        yield Case(
            f"{origin.kind}, {kind}",
            changed.public_key,
            changed.message,
            changed.signature,
            changed.context,
        )


def compare(
    verifier: BatchVerifier,
    providers: Sequence[Provider],
    source: Iterator[Case],
    count: int,
    *,
    reference_every: int = 500,
    say: Callable[[str], None] = lambda line: None,
) -> Comparison:
    """Asks everybody about `count` cases; every `reference_every`th goes to the reference too."""
    result = Comparison()
    told = time.monotonic()
    done = 0
    while done < count:
        rows = [next(source) for _ in range(min(_ROWS_PER_CALL, count - done))]
        given = _verdicts(verifier, rows)
        for case, verdict in zip(rows, given, strict=True):
            opinions = {"kernel": verdict}
            for provider in providers:
                opinions[provider.name] = provider.verify(
                    SCHEME, case.public_key, case.message, case.signature, case.context
                )
            if done % reference_every == 0:
                opinions["reference"] = reference.verify(
                    case.public_key, case.message, case.signature, case.context
                )
            done += 1
            result.cases[case.kind] += 1
            result.accepted[case.kind] += verdict
            if len(set(opinions.values())) > 1:
                result.disagreements.append((case, opinions))
        if time.monotonic() - told > _PROGRESS_SECONDS:
            told = time.monotonic()
            say(f"{done} of {count} cases, {len(result.disagreements)} disagreements")
    return result


def _verdicts(verifier: BatchVerifier, rows: Sequence[Case]) -> list[bool]:
    """Verdicts of mixed rows: the kernel takes one context and one length of messages a call."""
    verdicts = [False] * len(rows)
    forms: dict[tuple[bytes, int], list[int]] = {}
    for place, case in enumerate(rows):
        forms.setdefault((case.context, len(case.message)), []).append(place)
    for (context, _), places in forms.items():
        part = [rows[place] for place in places]
        given = verifier.verify(
            [case.public_key for case in part],
            [case.message for case in part],
            [case.signature for case in part],
            context,
        )
        for place, verdict in zip(places, given.tolist(), strict=True):
            verdicts[place] = verdict
    return verdicts


def _real(signer: Provider, source: random.Random, count: int) -> Iterator[Case]:
    for number in range(count):
        if number % 4 == 0:
            seed = source.randbytes(32)
            public_key = signer.generate(SCHEME, seed).public_key
            key = signer.signing_key(SCHEME, seed)
        message = source.randbytes(source.choice((32, 32, 32, 0, 7, 200)))
        context = source.choice(CONTEXTS)
        yield Case("real", public_key, message, key.sign(message, context), context)


def _free(source: random.Random, count: int) -> Iterator[Case]:
    for number in range(count):
        extreme = source.choice((-NORM_MAX, NORM_MAX))
        z = [[extreme] * reference.N for _ in range(reference.L)]
        if number % 2:
            z = [
                [source.choice((-NORM_MAX, 0, NORM_MAX)) for _ in range(reference.N)]
                for _ in range(reference.L)
            ]
        left = source.choice((0, 1, reference.OMEGA))
        hint: list[list[int]] = []
        for row in range(reference.K):
            size = left if row == reference.K - 1 else source.randint(0, left)
            hint.append(sorted(source.sample(range(reference.N), size)))
            left -= size
        message, context = source.randbytes(32), source.choice(CONTEXTS)
        public_key, signature = free_signature(source.randbytes(32), message, context, z, hint)
        yield Case("free", public_key, message, signature, context)


def _changed(case: Case, **fields: bytes) -> Case:
    return Case(
        case.kind,
        fields.get("public_key", case.public_key),
        fields.get("message", case.message),
        fields.get("signature", case.signature),
        fields.get("context", case.context),
    )


def _flip(source: random.Random, octets: bytes) -> bytes:
    changed = bytearray(octets)
    changed[source.randrange(len(changed))] ^= 1 << source.randrange(8)
    return bytes(changed)


def _flip_signature(source: random.Random, case: Case) -> Case:
    return _changed(case, signature=_flip(source, case.signature))


def _flip_key(source: random.Random, case: Case) -> Case:
    return _changed(case, public_key=_flip(source, case.public_key))


def _edge_coefficient(source: random.Random, case: Case) -> Case:
    place = source.randrange(reference.L * reference.N)
    packed = source.choice((0, 1, 195, 196, 197, 2**20 - 197, 2**20 - 196, 2**20 - 195, 2**20 - 1))
    start, shift = reference.CHALLENGE_BYTES + 5 * (place // 2), _Z_BITS * (place % 2)
    signature = bytearray(case.signature)
    pair = int.from_bytes(signature[start : start + 5], "little")
    pair = pair & ~(0xFFFFF << shift) | packed << shift
    signature[start : start + 5] = pair.to_bytes(5, "little")
    return _changed(case, signature=bytes(signature))


def _other_hint(source: random.Random, case: Case) -> Case:
    y = bytearray(case.signature[_HINT_START:])
    for _ in range(source.randint(1, 3)):
        place = source.randrange(len(y))
        if source.random() < 0.5:
            place = source.randrange(reference.OMEGA, len(y))
        y[place] = source.choice((0, 1, y[place - 1], reference.OMEGA, reference.OMEGA + 1, 255))
    return _changed(case, signature=case.signature[:_HINT_START] + bytes(y))


def _other_message(source: random.Random, case: Case) -> Case:
    if case.message and source.random() < 0.5:
        return _changed(case, message=_flip(source, case.message))
    return _changed(case, context=source.choice(CONTEXTS))


def _noise(source: random.Random, case: Case) -> Case:
    return _changed(case, signature=source.randbytes(reference.SIGNATURE_BYTES))


def _other_length(source: random.Random, case: Case) -> Case:
    size = source.choice((0, 1, reference.SIGNATURE_BYTES - 1, reference.SIGNATURE_BYTES + 1))
    if source.random() < 0.5:
        return _changed(case, signature=(case.signature + b"\0")[:size])
    return _changed(case, public_key=(case.public_key + b"\0")[: min(size, 1951)])


def main() -> int:
    """Compares the kernel with every provider present; the exit code is 1 where they differ."""
    import argparse

    from qnet_actors.crypto.mldsa import select_kernel
    from qnet_actors.crypto.providers import liboqs_provider, openssl_provider

    def say(line: str) -> None:
        sys.stderr.write(f"compare-verifiers: {line}\n")

    parser = argparse.ArgumentParser(prog="compare-verifiers", description=main.__doc__)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args()
    kernel, reason = select_kernel(None)
    say(reason)
    if kernel is None:
        return 2
    providers: list[Provider] = [openssl_provider()]
    try:
        providers.append(liboqs_provider())
    except QnetError as missing:
        say(missing.detail)
    say(f"against {', '.join(f'{provider.name} ({provider.version})' for provider in providers)}")
    result = compare(
        BatchVerifier(providers[0], kernel=kernel),
        providers,
        cases(providers[-1], wanted.seed),
        wanted.cases,
        say=say,
    )
    for kind in sorted(result.cases):
        say(f"{result.cases[kind]:8} {kind}: {result.accepted[kind]} accepted")
    for case, opinions in result.disagreements[:10]:
        say(
            f"DISAGREEMENT {opinions}: {case.kind}, key {case.public_key.hex()}, message "
            f"{case.message.hex()}, context {case.context.hex()}, signature {case.signature.hex()}"
        )
    say(f"{sum(result.cases.values())} cases, {len(result.disagreements)} disagreements")
    return 1 if result.disagreements else 0


if __name__ == "__main__":
    sys.exit(main())
