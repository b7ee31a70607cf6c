"""`qnet bench verify`: the compiled verifier beside the libraries, in one run.

Everything is measured in short slices that take turns, and figures are medians of the slices: what
else the machine does meanwhile then touches all of them alike.
"""

from __future__ import annotations

import itertools
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from qnet_actors.crypto import BatchVerifier, provider
from qnet_actors.crypto.mldsa import select_kernel
from qnet_actors.crypto.mldsa.key_cache import KeyCacheCounters
from qnet_actors.crypto.mldsa.signer import DevelopmentSigner
from qnet_actors.crypto.mldsa.verifier import MlDsaVerifier
from qnet_actors.crypto.providers import Provider, liboqs_provider, openssl_provider
from qnet_actors.kernels.cache import warm
from qnet_actors.kernels.mldsa import ENTRY_BYTES
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.limits import BATCH_TRANSACTIONS_MAX
from qnet_actors.wire.schemes import CONTEXT_TRANSACTION, Scheme

SCHEME: Final = Scheme.ML_DSA_65
ROLE: Final = "benchmark"
ROWS_PER_CALL: Final = BATCH_TRANSACTIONS_MAX
# Enough different keys that half of them fill the smallest cache many times over.
UNCACHED_KEYS_MIN: Final = 2_048
UNCACHED_ROWS_PER_CALL: Final = 256
LIBRARY_ROWS_PER_CALL: Final = 32

Bytes2d = npt.NDArray[np.uint8]
Say = Callable[[str], None]


class VerifyOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What `qnet bench verify` measures, and how long: each round has a slice of everything."""

    senders: int = 1_024
    rounds: int = 7
    slice_seconds: float = 0.25


class Rates(msgspec.Struct, frozen=True):
    """Verifications a second."""

    core: float
    """One thread, for each second of CPU that it gets."""
    all_cores: float
    """A thread a core, for each second that passes."""
    speedup: float
    """All cores beside one thread, both for each second that passes."""


class VerifyResult(msgspec.Struct, frozen=True, kw_only=True):
    """Medians over the rounds; ratios are those of one core."""

    senders: int
    cores: int
    kernel: str
    cached: Rates
    uncached: Rates
    """Every key is expanded first."""
    openssl: Rates
    liboqs: Rates | None
    verified_per_second: float
    """Cached, on all cores."""
    verified_per_second_core: float
    ratio_to_openssl: float
    ratio_to_liboqs: float | None
    uncached_ratio_to_openssl: float
    uncached_ratio_to_liboqs: float | None
    cache_hit_rate: float
    uncached_hit_rate: float
    """Zero, but for threads that overtake each other."""
    disagreements: int
    """Rows, good and spoilt, on which the kernel and a library differ."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Signed rows with their table of keys, as a batch has them."""

    table: Sequence[bytes]
    index: npt.NDArray[np.intp]
    messages: Bytes2d
    signatures: Bytes2d

    def verify(self, verifier: BatchVerifier) -> npt.NDArray[np.bool_]:
        return verifier.verify_columns(
            (self.table, self.index), self.messages, self.signatures, CONTEXT_TRANSACTION, SCHEME
        )


def run_verify_bench(options: VerifyOptions, say: Say) -> VerifyResult:
    """Measures; raises `QnetError(PROVIDER_MISSING)` where the kernel does not work here."""
    warm(lambda name, seconds: say(f"{name}: {seconds:.1f} s") if seconds > 1 else None)
    kernel, reason = select_kernel(None, cache_mb=cache_mb_for(options.senders))
    if kernel is None:
        raise QnetError(Code.PROVIDER_MISSING, reason)
    say(reason)
    openssl, liboqs = openssl_provider(), _liboqs(say)
    say("making and signing the rows")
    keys = max(options.senders, UNCACHED_KEYS_MIN)
    cached, uncached = sign_calls(keys, options.senders)
    cold = MlDsaVerifier(cache_mb=keys * ENTRY_BYTES // 2_000_000)
    with (
        BatchVerifier(openssl, kernel=kernel) as held,
        BatchVerifier(openssl, kernel=cold) as empty,
    ):
        work: dict[str, Callable[[int], int]] = {
            "cached": lambda turn: _verified(held, cached[turn % len(cached)]),
            # In turn over all slices: a key comes again only after it has left the cache.
            "uncached": lambda turn: _verified(empty, uncached[turn % len(uncached)]),
            "openssl": lambda turn: _by_library(openssl, cached[0], turn),
        }
        if liboqs is not None:
            work["liboqs"] = lambda turn: _by_library(liboqs, cached[0], turn)
        disagreements = _disagreements(held, [openssl, *([liboqs] if liboqs else [])], cached[0])
        for columns in cached:
            _verified(held, columns)
        before = kernel.counters().cache
        rates = _measure(work, options, say)
    return VerifyResult(
        senders=options.senders,
        cores=_cores(),
        kernel=reason,
        cached=rates["cached"],
        uncached=rates["uncached"],
        openssl=rates["openssl"],
        liboqs=rates.get("liboqs"),
        verified_per_second=rates["cached"].all_cores,
        verified_per_second_core=rates["cached"].core,
        ratio_to_openssl=round(rates["cached"].core / rates["openssl"].core, 2),
        ratio_to_liboqs=_ratio(rates, "cached", "liboqs"),
        uncached_ratio_to_openssl=round(rates["uncached"].core / rates["openssl"].core, 2),
        uncached_ratio_to_liboqs=_ratio(rates, "uncached", "liboqs"),
        cache_hit_rate=_hit_rate(kernel, before),
        uncached_hit_rate=_hit_rate(cold),
        disagreements=disagreements,
    )


def cache_mb_for(keys: int) -> int:
    """A cache with room for `keys` keys and a tenth more."""
    return keys * ENTRY_BYTES * 11 // 10_000_000 + 1


def sign_calls(keys: int, senders: int) -> tuple[list[Columns], list[Columns]]:
    """Calls of `senders` keys in random order, and calls in which each of `keys` comes once."""
    signer = DevelopmentSigner(ROLE, keys, provider("auto"), genesis_is_dev=True)
    table = signer.public_keys
    random = np.random.default_rng(65)
    count = -(-senders // ROWS_PER_CALL) * ROWS_PER_CALL
    index = random.permutation(np.arange(count) % senders)
    index = np.concatenate([index, np.arange(keys)]).astype(np.intp)
    messages = random.integers(0, 256, (len(index), 32)).astype(np.uint8)
    signatures = signer.sign(index, messages, CONTEXT_TRANSACTION)

    def calls(first: int, end: int, size: int) -> list[Columns]:
        parts = [slice(start, start + size) for start in range(first, end - size + 1, size)]
        columns = []
        for part in parts:
            distinct, places = np.unique(index[part], return_inverse=True)
            own = [table[key] for key in distinct.tolist()]
            columns.append(Columns(own, places, messages[part], signatures[part]))
        return columns

    return calls(0, count, ROWS_PER_CALL), calls(count, len(index), UNCACHED_ROWS_PER_CALL)


def _verified(verifier: BatchVerifier, columns: Columns) -> int:
    if not columns.verify(verifier).all():
        raise QnetError(Code.BAD_SIGNATURE, "the benchmark's own signatures do not verify")
    return len(columns.index)


def _by_library(library: Provider, columns: Columns, turn: int) -> int:
    count = len(columns.index)
    rows = [(turn * LIBRARY_ROWS_PER_CALL + i) % count for i in range(LIBRARY_ROWS_PER_CALL)]
    verdicts = library.verify_many(
        SCHEME,
        [columns.table[columns.index[row]] for row in rows],
        [columns.messages[row].tobytes() for row in rows],
        [columns.signatures[row].tobytes() for row in rows],
        CONTEXT_TRANSACTION,
    )
    if not all(verdicts):
        raise QnetError(Code.BAD_SIGNATURE, f"{library.name} refuses the benchmark's signatures")
    return len(rows)


def _disagreements(verifier: BatchVerifier, libraries: Sequence[Provider], columns: Columns) -> int:
    """Differences over a call of rows, every other one of them spoilt by a bit."""
    random = np.random.default_rng(66)
    signatures = columns.signatures.copy()
    spoilt = np.arange(0, len(signatures), 2)
    places = random.integers(0, signatures.shape[1], len(spoilt))
    signatures[spoilt, places] ^= np.uint8(1) << random.integers(0, 8, len(spoilt)).astype(np.uint8)
    mixed = Columns(columns.table, columns.index, columns.messages, signatures)
    verdicts = mixed.verify(verifier).tolist()
    return sum(
        verdict
        != library.verify(
            SCHEME,
            mixed.table[mixed.index[row]],
            mixed.messages[row].tobytes(),
            mixed.signatures[row].tobytes(),
            CONTEXT_TRANSACTION,
        )
        for library in libraries
        for row, verdict in enumerate(verdicts)
    )


def _measure(
    work: dict[str, Callable[[int], int]], options: VerifyOptions, say: Say
) -> dict[str, Rates]:
    turns = {name: itertools.count() for name in work}
    cores: dict[str, list[float]] = {name: [] for name in work}
    ones: dict[str, list[float]] = {name: [] for name in work}
    alls: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(options.rounds):
        say(f"round {turn + 1} of {options.rounds}")
        for name, call in work.items():
            one, core = _slice(call, turns[name], 1, options.slice_seconds)
            everything, _ = _slice(call, turns[name], _cores(), options.slice_seconds)
            cores[name].append(core)
            ones[name].append(one)
            alls[name].append(everything)
    return {
        name: Rates(
            round(statistics.median(cores[name]), 1),
            round(statistics.median(alls[name]), 1),
            # Of neighbours in time, so that a slow moment does not look like a missing core.
            round(
                statistics.median(a / o for a, o in zip(alls[name], ones[name], strict=True)),
                2,
            ),
        )
        for name in work
    }


def _slice(
    call: Callable[[int], int], turns: Iterator[int], threads: int, seconds: float
) -> tuple[float, float]:
    """(rows a second, rows a second of CPU) of `threads` threads that call until time is up."""
    results: list[tuple[int, float, float]] = []
    faults: list[BaseException] = []
    barrier = threading.Barrier(threads)

    def run() -> None:
        try:
            barrier.wait()
            begin, cpu_begin = time.perf_counter(), time.thread_time()
            rows = 0
            while time.perf_counter() - begin < seconds:
                rows += call(next(turns))
            results.append((rows, time.perf_counter() - begin, time.thread_time() - cpu_begin))
        except QnetError as fault:
            faults.append(fault)

    workers = [threading.Thread(target=run) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if faults:
        raise faults[0]
    wall = sum(rows / elapsed for rows, elapsed, _ in results)
    return wall, sum(rows for rows, _, _ in results) / sum(cpu for _, _, cpu in results)


def _ratio(rates: dict[str, Rates], name: str, library: str) -> float | None:
    other = rates.get(library)
    return None if other is None else round(rates[name].core / other.core, 2)


def _hit_rate(kernel: MlDsaVerifier, before: KeyCacheCounters | None = None) -> float:
    now = kernel.counters().cache
    hits, misses = now.hits, now.misses
    if before is not None:
        hits, misses = hits - before.hits, misses - before.misses
    return round(hits / max(hits + misses, 1), 4)


def _liboqs(say: Say) -> Provider | None:
    try:
        return liboqs_provider()
    except QnetError as missing:
        say(missing.detail)
        return None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
