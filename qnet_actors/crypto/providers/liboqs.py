"""ML-DSA by liboqs through liboqs-python: the fastest signer.

Measured on one core with AVX2, ML-DSA-65, 32-byte messages: 40 us a verification, 110 us a
signature; calls release the GIL.  The package's own `verify_with_ctx_str` copies key, signature and
message into fresh buffers, 4-5 us a call, so verification calls the C function directly.

liboqs 0.16 has no call that derives a signature key from a seed, but its key generation draws
exactly one 32-byte random value, the seed of FIPS 204 Algorithm 6.  So the library's random source
is replaced while a key is loaded: the thread that loads it receives the seed, all others system
randomness.  The self-test compares the outcome with OpenSSL's.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
import weakref
from types import ModuleType
from typing import Any, Final

from qnet_actors.crypto.providers.classical import Ed25519Engine, HybridEngine
from qnet_actors.crypto.providers.engines import EngineProvider
from qnet_actors.crypto.providers.openssl import OpensslMlDsaEngine
from qnet_actors.crypto.providers.oqs_library import load_oqs
from qnet_actors.crypto.providers.seam import Buffer, SigningKey
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.schemes import SCHEME_SIZES, Scheme

ALGORITHMS: Final = {
    Scheme.ML_DSA_44: "ML-DSA-44",
    Scheme.ML_DSA_65: "ML-DSA-65",
    Scheme.ML_DSA_87: "ML-DSA-87",
}

_SUCCESS: Final = 0
_VERIFY: Final = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    *(ctypes.c_char_p, ctypes.c_size_t) * 3,
    ctypes.c_char_p,
)
_RANDOM_SOURCE: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t)

_load_lock: Final = threading.Lock()
_loading = threading.local()


def _serve_random(target: int, size: int) -> None:
    """Serve the seed to the thread that loads a key, system randomness to every other."""
    seed: bytes | None = getattr(_loading, "seed", None)
    if seed is not None and size == len(seed):
        _loading.seed = None
        ctypes.memmove(target, seed, size)
    else:
        ctypes.memmove(target, os.urandom(size), size)


# Kept for the life of the process: another thread may still be inside it after a switch back.
_random_source: Final = _RANDOM_SOURCE(_serve_random)


class LiboqsMlDsaEngine:
    """One ML-DSA parameter set; signatures are hedged."""

    def __init__(self, oqs: ModuleType, scheme: Scheme) -> None:
        """Raises `QnetError(PROVIDER_MISSING)` when this build of liboqs leaves the scheme out."""
        self._oqs = oqs
        self._algorithm = ALGORITHMS[scheme]
        try:
            self._verifier = oqs.Signature(self._algorithm)
        except oqs.MechanismNotSupportedError:
            raise QnetError(
                Code.PROVIDER_MISSING, f"this build of liboqs has no {self._algorithm}"
            ) from None
        weakref.finalize(self, self._verifier.free)
        details = self._verifier.details
        if (details["length_public_key"], details["length_signature"]) != SCHEME_SIZES[scheme]:
            raise QnetError(
                Code.PROVIDER_MISSING, f"this liboqs speaks a draft of {self._algorithm}"
            )
        self._handle = ctypes.cast(self._verifier._sig, ctypes.c_void_p)
        self._verify = _VERIFY(("OQS_SIG_verify_with_ctx_str", oqs.native()))

    def _generate(self, seed: bytes) -> tuple[Any, bytes]:
        native = self._oqs.native()
        pair = self._oqs.Signature(self._algorithm)
        with _load_lock:
            _loading.seed = seed
            native.OQS_randombytes_custom_algorithm(_random_source)
            try:
                public_key: bytes = pair.generate_keypair()
                used = _loading.seed is None
            finally:
                _loading.seed = None
                native.OQS_randombytes_switch_algorithm(b"system")
        if not used:
            pair.free()
            raise QnetError(Code.PROVIDER_MISSING, "this liboqs does not derive keys from a seed")
        return pair, public_key

    def public_key(self, seed: bytes) -> bytes:
        """The public key of a 32-byte seed (FIPS 204 Algorithm 6)."""
        pair, public_key = self._generate(seed)
        pair.free()
        return public_key

    def signing_key(self, seed: bytes) -> SigningKey:
        """Load the key of a seed; its expanded form is wiped when the object is collected."""
        pair, _ = self._generate(seed)
        return LiboqsSigningKey(pair)

    def verify(self, public_key: bytes, message: Buffer, signature: Buffer, context: bytes) -> bool:
        """FIPS 204 Algorithm 3.  The caller has checked the lengths that C code relies on."""
        outcome: int = self._verify(
            self._handle,
            bytes(message),
            len(message),
            bytes(signature),
            len(signature),
            context,
            len(context),
            bytes(public_key),
        )
        return outcome == _SUCCESS


class LiboqsSigningKey:
    """An expanded key inside liboqs."""

    __slots__ = ("__weakref__", "_pair")

    def __init__(self, pair: Any) -> None:
        self._pair = pair
        weakref.finalize(self, pair.free)

    def sign(self, message: bytes, context: bytes) -> bytes:
        """FIPS 204 Algorithm 2."""
        signature: bytes = self._pair.sign_with_ctx_str(message, context)
        return signature


@functools.cache
def liboqs_provider() -> EngineProvider:
    """ML-DSA-44/65/87 by liboqs; Ed25519 by OpenSSL, and the hybrid of both.

    Raises `QnetError(PROVIDER_MISSING)` when liboqs is not there or fails its self-test.
    """
    oqs, library = load_oqs()
    engines = {scheme: LiboqsMlDsaEngine(oqs, scheme) for scheme in ALGORITHMS}
    for scheme, engine in engines.items():
        _self_test(scheme, engine)
    return EngineProvider(
        "liboqs",
        f"liboqs {oqs.oqs_version()} ({library})",
        {
            **engines,
            Scheme.ED25519: Ed25519Engine(),
            Scheme.HYBRID_ED25519_ML_DSA_65: HybridEngine(engines[Scheme.ML_DSA_65]),
        },
        releases_gil=True,
    )


def _self_test(scheme: Scheme, engine: LiboqsMlDsaEngine) -> None:
    """The key of a seed and the verdicts of both libraries must agree, in both directions.

    Raises `QnetError(PROVIDER_MISSING)` otherwise: a library that disagrees would fork the network.
    """
    reference = OpensslMlDsaEngine(scheme)
    seed, message, context = bytes(range(32)), b"self-test", b"qnet/self-test/v1"
    public_key = reference.public_key(seed)
    own = engine.signing_key(seed).sign(message, context)
    theirs = reference.signing_key(seed).sign(message, context)
    if not (
        engine.public_key(seed) == public_key
        and reference.verify(public_key, message, own, context)
        and engine.verify(public_key, message, theirs, context)
        and not engine.verify(public_key, message, theirs, b"")
    ):
        raise QnetError(
            Code.PROVIDER_MISSING, f"liboqs and OpenSSL disagree about {ALGORITHMS[scheme]}"
        )
