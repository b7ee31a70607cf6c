"""Signing with development keys at the speed that benchmarks need.

For benchmarks only.  The kernel is not constant-time, so this signer takes no secret: it derives
the keys itself, from the seed that this repository publishes.  Signatures are those of FIPS 204
Algorithm 2 with 32 zero bytes for randomness (the deterministic variant), byte for byte.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from qnet_actors.crypto.key_pair import KeyPair
from qnet_actors.crypto.keys import development_key, require_development
from qnet_actors.crypto.providers.seam import CONTEXT_BYTES_MAX, Provider
from qnet_actors.kernels import mldsa, ring
from qnet_actors.kernels.mldsa_expand import expand_keys
from qnet_actors.kernels.mldsa_sign import S1_ROW, SIGNING_BYTES, T0_ROW, sign_rows
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.schemes import Scheme

Bytes2d = npt.NDArray[np.uint8]
Polys = npt.NDArray[np.int64]

ETA: Final = 4
# Keys that are expanded at a time: 78 KB each.
_KEYS_PER_PART: Final = 128
# Of each call, these rows at least are verified by the provider before anybody sees one.
_CHECKED_EVERY: Final = 512
_TERM_T0_S2: Final = mldsa.L


class DevelopmentSigner:
    """Signs columns with the development keys of a role."""

    def __init__(
        self, role: str, count: int, provider: Provider, *, genesis_is_dev: bool, first: int = 0
    ) -> None:
        """The keys `first` to `first + count - 1` of `role`; `provider` checks samples.

        Raises `QnetError`: DEVELOPMENT_KEY_REFUSED, or INVALID_PARAMETER as `development_key` does.
        """
        require_development(genesis_is_dev)
        self._provider = provider
        self._pairs = [
            development_key(role, first + index, Scheme.ML_DSA_65, provider)
            for index in range(count)
        ]

    @property
    def public_keys(self) -> list[bytes]:
        """In the order of the keys' numbers."""
        return [pair.public_key for pair in self._pairs]

    def sign(self, index: npt.NDArray[np.integer], messages: Bytes2d, context: bytes) -> Bytes2d:
        """uint8[n, 3309]: row i signs `messages[i]`, uint8[n, m], with key `index[i]`.

        Raises ValueError for an index out of range or a context over 255 bytes, and
        `QnetError(INTERNAL)` where the provider refuses a signature of the sample.
        """
        if len(index) != len(messages) or len(context) > CONTEXT_BYTES_MAX:
            raise ValueError("rows differ in number, or the context is over 255 bytes")
        if len(index) and not 0 <= index.min() <= index.max() < len(self._pairs):
            raise ValueError("an index out of range")
        signatures = np.empty((len(index), mldsa.SIGNATURE_BYTES), dtype=np.uint8)
        order = np.argsort(index, kind="stable")
        keys, starts = np.unique(index[order], return_index=True)
        bounds = [*starts.tolist(), len(order)]
        for first in range(0, len(keys), _KEYS_PER_PART):
            part = keys[first : first + _KEYS_PER_PART].tolist()
            rows = order[bounds[first] : bounds[first + len(part)]]
            which = np.searchsorted(keys[first : first + len(part)], index[rows])
            signatures[rows] = _sign_part(
                [self._pairs[key] for key in part],
                which.astype(np.int64),
                messages[rows],
                context,
            )
        self._check(index, messages, signatures, context)
        return signatures

    def _check(
        self,
        index: npt.NDArray[np.integer],
        messages: Bytes2d,
        signatures: Bytes2d,
        context: bytes,
    ) -> None:
        for row in range(0, len(index), _CHECKED_EVERY):
            valid = self._provider.verify(
                Scheme.ML_DSA_65,
                self._pairs[index[row]].public_key,
                messages[row].tobytes(),
                signatures[row].tobytes(),
                context,
            )
            if not valid:
                raise QnetError(
                    Code.INTERNAL, f"{self._provider.name} refuses what the batched signer made"
                )


def _sign_part(
    pairs: Sequence[KeyPair], which: npt.NDArray[np.int64], messages: Bytes2d, context: bytes
) -> Bytes2d:
    entries = np.zeros((len(pairs), SIGNING_BYTES), dtype=np.uint8)
    secrets = [_expand(pair, entries[place]) for place, pair in enumerate(pairs)]
    mus, seeds = bytearray(), bytearray()
    prefix = bytes((0, len(context))) + context
    for place, message in zip(which.tolist(), messages, strict=True):
        k, tr = secrets[place]
        # Algorithm 7, lines 6 and 7; 32 zero bytes stand for randomness.
        mu = hashlib.shake_256(tr + prefix + message.tobytes()).digest(64)
        mus += mu
        seeds += hashlib.shake_256(k + bytes(32) + mu).digest(64)
    signatures = np.empty((len(which), mldsa.SIGNATURE_BYTES), dtype=np.uint8)
    sign_rows(entries, which, _words(mus), _words(seeds), signatures)
    return signatures


def _words(octets: bytearray) -> npt.NDArray[np.uint64]:
    return np.frombuffer(octets, dtype=np.uint64).reshape(-1, 8)


def _expand(pair: KeyPair, entry: npt.NDArray[np.uint8]) -> tuple[bytes, bytes]:
    """Algorithm 6 into a signing entry; returns K and tr.

    Raises `QnetError(INTERNAL)` where t1 comes out otherwise than in the public key.
    """
    seed = hashlib.shake_256(pair.secret + bytes((mldsa.K, mldsa.L))).digest(128)
    polys = np.stack([_reject_bounded_poly(seed[32:96], r) for r in range(mldsa.L + mldsa.K)])
    s1, s2 = polys[: mldsa.L], polys[mldsa.L :]
    public = np.zeros((1, mldsa.ENTRY_BYTES), dtype=np.uint8)
    expand_keys(
        np.frombuffer(pair.public_key, dtype=np.uint8).reshape(1, -1),
        np.zeros(1, dtype=np.int64),
        public,
    )
    # t = A s1 + s2, by the kernel that multiplies in verification.
    s1_hat, s2_hat = _ntts(s1), _ntts(s2)
    hats = np.zeros(ring.TERMS * ring.N, dtype=np.int32)
    hats[: mldsa.L * ring.N] = s1_hat.reshape(-1)
    t0 = np.empty_like(s2)
    w, w1 = np.empty(ring.N, dtype=np.int32), np.empty(mldsa.W1_POLY_BYTES, dtype=np.uint8)
    t1 = bytearray()
    for row in range(mldsa.K):
        mldsa.row_w1(public.reshape(-1), row * ring.ROW_BYTES, hats, w, w1, 0, 0)
        t = (w + s2[row]) % ring.Q
        # Algorithm 35, Power2Round.
        t0[row] = (t + (1 << (mldsa.D - 1)) - 1) % (1 << mldsa.D) - (1 << (mldsa.D - 1)) + 1
        high = (t - t0[row]) >> mldsa.D
        t1 += sum(int(x) << 10 * i for i, x in enumerate(high)).to_bytes(320, "little")
    if bytes(t1) != pair.public_key[32:]:
        raise QnetError(Code.INTERNAL, "a development key does not expand to its public key")
    rows = entry[: -mldsa.TR_BYTES].reshape(-1, ring.TERMS, ring.POLY_BYTES)
    rows[: mldsa.K] = public[0, : mldsa.TR_START].reshape(mldsa.K, ring.TERMS, -1)
    rows[: mldsa.K, _TERM_T0_S2] = _packed(s2_hat)
    rows[S1_ROW:T0_ROW, _TERM_T0_S2] = _packed(s1_hat)
    rows[T0_ROW:, _TERM_T0_S2] = _packed(_ntts(t0))
    return seed[96:], public[0, mldsa.TR_START :].tobytes()


def _reject_bounded_poly(rho: bytes, r: int) -> Polys:
    """Algorithm 31 with Algorithm 15, eta = 4: 256 coefficients in [-4, 4]."""
    stream = hashlib.shake_256(rho + r.to_bytes(2, "little"))
    size = 256
    while True:
        octets = np.frombuffer(stream.digest(size), dtype=np.uint8)
        halves = np.stack([octets & 15, octets >> 4], axis=1).reshape(-1)
        accepted = halves[halves <= 2 * ETA]
        if len(accepted) >= ring.N:
            return ETA - accepted[: ring.N].astype(np.int64)
        size *= 2


def _ntts(polys: Polys) -> npt.NDArray[np.int32]:
    """NTTs in NTT order, by the kernel for z: coefficients must be below gamma1."""
    hats = np.empty((len(polys), ring.N), dtype=np.int32)
    for poly, hat in zip(polys, hats, strict=True):
        pairs = (mldsa.GAMMA1 - poly).reshape(-1, 2)
        words = (pairs[:, 0] | pairs[:, 1] << 20).astype("<u8").view(np.uint8).reshape(-1, 8)
        packed = np.zeros(mldsa.Z_POLY_BYTES + 64, dtype=np.uint8)
        packed[: mldsa.Z_POLY_BYTES] = words[:, :5].reshape(-1)
        mldsa.ntt_response(packed, 0, hat, 0, packed, 0, 0)
    return hats


def _packed(hats: npt.NDArray[np.int32]) -> Bytes2d:
    """As coefficients of an entry: times `ring.SCALE`, 24 bits each."""
    scaled = hats.astype(np.int64) % ring.Q * ring.SCALE % ring.Q
    octets = scaled.astype("<u4").view(np.uint8).reshape(*hats.shape, 4)
    return np.ascontiguousarray(octets[..., : ring.PACKED_BYTES]).reshape(len(hats), -1)
