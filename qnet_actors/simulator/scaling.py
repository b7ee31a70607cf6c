"""`scripts/scaling`: what a round costs n validators, by kind of DAG and scheme of signatures.

Bytes of a DAG block are those of the real encoding.  The certified DAG it is compared with is
that of Narwhal (arXiv 2105.11827, section 3): a header by each validator, a vote by each other
one, and a certificate of a quorum of votes, which cannot be added up into one signature here.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import (
    MLDSA44PrivateKey,
    MLDSA65PrivateKey,
    MLDSA87PrivateKey,
)

from qnet_actors.simulator.plots import line_plot
from qnet_actors.wire.codec import encode
from qnet_actors.wire.dag import DAG_VERSION, BlockRef, DagHeader
from qnet_actors.wire.schemes import SCHEME_SIZES, Scheme

NAMES: Final = {
    Scheme.ED25519: "Ed25519",
    Scheme.ML_DSA_44: "ML-DSA-44",
    Scheme.ML_DSA_65: "ML-DSA-65",
    Scheme.ML_DSA_87: "ML-DSA-87",
}
SIZES: Final = (4, 7, 10, 20, 50, 100, 200)
MEASURED_S: Final = 0.5
IMAGES: Final = Path(__file__).resolve().parents[2] / "docs" / "images"


def quorum(validators: int) -> int:
    """Of equal stakes."""
    return 2 * validators // 3 + 1


def header_bytes(validators: int) -> int:
    """An encoded DAG header that names a block of each validator, and nothing else."""
    ancestors = tuple(BlockRef(10**6, author, bytes(32)) for author in range(validators))
    header = DagHeader(DAG_VERSION, 0, 10**6 + 1, validators - 1, 10**12, ancestors, (), ())
    return len(encode(header))


@dataclass(frozen=True, slots=True)
class RoundCost:
    """Of one round at one validator: what it receives, signs and verifies."""

    received_bytes: int
    signed: int
    verified: int


def uncertified(validators: int, signature_bytes: int) -> RoundCost:
    """One signed block of each other validator."""
    others = validators - 1
    return RoundCost(others * (header_bytes(validators) + signature_bytes), 1, others)


def certified(validators: int, signature_bytes: int) -> RoundCost:
    """A header of each other one, their votes for the own header, and their certificates."""
    others, votes = validators - 1, quorum(validators)
    size = others * (header_bytes(validators) + signature_bytes)
    size += others * signature_bytes + others * votes * signature_bytes
    return RoundCost(size, 1 + others, others + others + others * votes)


@dataclass(frozen=True, slots=True)
class Speed:
    """Of one core with OpenSSL, in microseconds."""

    sign_us: float
    verify_us: float

    def round_ms(self, cost: RoundCost) -> float:
        """The processor time of the signatures of a round at one validator."""
        return (cost.signed * self.sign_us + cost.verified * self.verify_us) / 1e3


def measure(seconds: float = MEASURED_S) -> dict[Scheme, Speed]:
    """Signs and verifies 32 bytes with each scheme, for so long each."""
    message = bytes(32)
    speeds: dict[Scheme, Speed] = {}
    for scheme, key in (
        (Scheme.ED25519, Ed25519PrivateKey.generate()),
        (Scheme.ML_DSA_44, MLDSA44PrivateKey.generate()),
        (Scheme.ML_DSA_65, MLDSA65PrivateKey.generate()),
        (Scheme.ML_DSA_87, MLDSA87PrivateKey.generate()),
    ):
        public, signature = key.public_key(), key.sign(message)
        speeds[scheme] = Speed(
            _mean_us(partial(key.sign, message), seconds),
            _mean_us(partial(public.verify, signature, message), seconds),
        )
    return speeds


def _mean_us(call: Callable[[], object], seconds: float) -> float:
    calls, started = 0, time.process_time()
    while (spent := time.process_time() - started) < seconds:
        call()
        calls += 1
    return 1e6 * spent / calls


def plots(speeds: dict[Scheme, Speed]) -> dict[str, str]:
    """SVG documents by name of file."""
    kinds = (("uncertified", uncertified), ("certified", certified))
    signature = {scheme: SCHEME_SIZES[scheme].signature for scheme in NAMES}
    size = {
        f"{kind}, {NAMES[scheme]}": [(n, cost(n, signature[scheme]).received_bytes) for n in SIZES]
        for kind, cost in kinds
        for scheme in (Scheme.ML_DSA_65, Scheme.ED25519)
    }
    work = {
        f"{kind}, {NAMES[scheme]}": [
            (n, speeds[scheme].round_ms(cost(n, signature[scheme]))) for n in SIZES
        ]
        for kind, cost in kinds
        for scheme in (Scheme.ML_DSA_65, Scheme.ED25519)
    }
    schemes = {
        name: [(n, uncertified(n, signature[scheme]).received_bytes) for n in SIZES]
        for scheme, name in NAMES.items()
    }
    x = "validators"
    return {
        "scaling-bytes.svg": line_plot(
            "Bytes that a validator receives in a round", x, "bytes", size
        ),
        "scaling-cpu.svg": line_plot(
            "Processor time for the signatures of a round", x, "ms of one core", work
        ),
        "scaling-schemes.svg": line_plot(
            "Bytes in a round, uncertified, by scheme", x, "bytes", schemes
        ),
    }


def main() -> int:
    """Measures, writes the plots to docs/images and the figures to stdout as JSON."""
    speeds = measure()
    for name, document in plots(speeds).items():
        (IMAGES / name).write_text(document)
    figures = {
        NAMES[scheme]: {
            "signature_bytes": SCHEME_SIZES[scheme].signature,
            "sign_us": round(speed.sign_us, 1),
            "verify_us": round(speed.verify_us, 1),
            **{
                f"{kind}_{n}": {
                    "received_bytes": (
                        cost := count(n, SCHEME_SIZES[scheme].signature)
                    ).received_bytes,
                    "verified": cost.verified,
                    "cpu_ms": round(speed.round_ms(cost), 2),
                }
                for kind, count in (("uncertified", uncertified), ("certified", certified))
                for n in (4, 20, 100)
            },
        }
        for scheme, speed in speeds.items()
    }
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
