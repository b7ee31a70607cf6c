"""Transactions signed ahead of a run, kept on disk from run to run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from qnet_actors.crypto import KeyPair, Signer, development_key
from qnet_actors.crypto.providers import provider
from qnet_actors.wire.codec import encode
from qnet_actors.wire.hashing import hash32
from qnet_actors.wire.schemes import CONTEXT_TRANSACTION
from qnet_actors.wire.transactions import (
    GAS_TRANSFER,
    TRANSACTION_CODEC,
    TRANSACTION_VERSION,
    Body,
    Transaction,
    Transfer,
    Witness,
    transaction_id,
)

ROLE: Final = "benchmark"
CHUNK_TRANSACTIONS: Final = 256
FORMAT_VERSION: Final = 1
_SEED_CONTEXT: Final = "qnet benchmark payees v1"
_PAYEES_SEED: Final = 92_653

Progress = Callable[[str, int, int], None]
"""(what, done, in all)"""


Shape = Literal["uniform", "zipf", "hot"]
"""Whom the senders, in turn, pay: anybody; those of rank r with a weight of 1/r; one alone."""
SHAPES: Final[tuple[Shape, ...]] = ("uniform", "zipf", "hot")
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Workload:
    """What is signed: plain transfers among `senders` accounts, round robin, nonces from 0.

    Transaction i is of sender i modulo `senders`, pays another sender by `shape`, and carries the
    sender's public key where its nonce is 0.  Senders are never drawn: one that sends an eighth of
    all would have more under way than a pool takes of it.
    """

    chain_id: bytes
    senders: int
    count: int
    shape: Shape = "uniform"

    def sender(self, index: int) -> tuple[int, int]:
        """(sender, nonce) of transaction `index`."""
        return index % self.senders, index // self.senders

    def payee(self, index: int) -> int:
        """Whom transaction `index` pays."""
        if self.shape == "hot":
            return 0
        if self.shape == "zipf":
            return int(_payees(self.senders, self.chunks() * CHUNK_TRANSACTIONS)[index])
        digest = hash32(_SEED_CONTEXT, self.senders.to_bytes(8, "big"), index.to_bytes(8, "big"))
        return int.from_bytes(digest[:8], "big") % self.senders

    def chunks(self) -> int:
        """Files of whole chunks that hold all transactions."""
        return -(-self.count // CHUNK_TRANSACTIONS)

    def identity(self) -> str:
        """What the signed transactions hang on, except how many there are."""
        shape = "" if self.shape == "uniform" else f"|{self.shape} payees"
        return f"{FORMAT_VERSION}|{self.chain_id.hex()}|{self.senders}{shape}"


def zipf(accounts: int, count: int, seed: int) -> Indices:
    """Accounts of rank r with a weight of 1/r; of a longer series this one is the beginning."""
    steps = np.cumsum(1.0 / np.arange(1, accounts + 1))
    drawn = np.random.default_rng(seed).random(count) * steps[-1]
    picks: Indices = np.searchsorted(steps, drawn, side="right").astype(np.int64)
    return picks


@lru_cache(maxsize=2)
def _payees(accounts: int, count: int) -> Indices:
    return zipf(accounts, count, _PAYEES_SEED)


@dataclass(frozen=True, slots=True)
class Signed:
    """A transaction ready to be sent."""

    id: bytes
    wire: bytes


def benchmark_keys(senders: int, progress: Progress) -> list[KeyPair]:
    """The keys of the benchmark's accounts; public, like all development keys."""
    keys = []
    library = provider("auto")
    for index in range(senders):
        if index % 256 == 0:
            progress("making keys", index, senders)
        keys.append(development_key(ROLE, index, provider=library))
    progress("making keys", senders, senders)
    return keys


def sign_all(workload: Workload, keys: list[KeyPair], folder: Path, progress: Progress) -> Path:
    """Signs what the cache in `folder` lacks, on all cores; returns the chunks' folder.

    A chunk is a file of `CHUNK_TRANSACTIONS` consecutive transactions, written whole under another
    name and renamed, so an interrupted run leaves only good ones.
    """
    target = folder / hashlib.sha256(workload.identity().encode()).hexdigest()[:20]
    target.mkdir(parents=True, exist_ok=True)
    missing = [n for n in range(workload.chunks()) if not _chunk_file(target, n).exists()]
    if not missing:
        return target
    addresses = [key.key_id for key in keys]
    done = workload.chunks() - len(missing)
    progress("signing", done * CHUNK_TRANSACTIONS, workload.count)
    with ProcessPoolExecutor(
        os.cpu_count(),
        mp_context=get_context("spawn"),
        initializer=_start_signer,
        initargs=(workload, keys, addresses, target),
    ) as pool:
        for _ in pool.map(_sign_chunk, missing):
            done += 1
            progress("signing", min(done * CHUNK_TRANSACTIONS, workload.count), workload.count)
    return target


def read_signed(target: Path, count: int, first: int = 0) -> Iterator[Signed]:
    """`count` transactions from number `first` on, in order; what stands before is not read."""
    end = first + count
    for chunk in range(first // CHUNK_TRANSACTIONS, -(-end // CHUNK_TRANSACTIONS)):
        data = _chunk_file(target, chunk).read_bytes()
        position = 0
        start = chunk * CHUNK_TRANSACTIONS
        for number in range(start, min(start + CHUNK_TRANSACTIONS, end)):
            length = int.from_bytes(data[position : position + 4], "big")
            if number >= first:
                wire = data[position + 36 : position + 36 + length]
                yield Signed(data[position + 4 : position + 36], wire)
            position += 36 + length


_signer_state: tuple[Workload, list[KeyPair], list[bytes], Path] | None = None


def _start_signer(
    workload: Workload, keys: list[KeyPair], addresses: list[bytes], target: Path
) -> None:
    global _signer_state
    _signer_state = (workload, keys, addresses, target)


def _sign_chunk(chunk: int) -> None:
    if _signer_state is None:
        raise RuntimeError("the signing process was not started with its workload")
    workload, keys, addresses, target = _signer_state
    library = provider("auto")
    parts = []
    for index in range(chunk * CHUNK_TRANSACTIONS, (chunk + 1) * CHUNK_TRANSACTIONS):
        sender, nonce = workload.sender(index)
        body = Body(
            version=TRANSACTION_VERSION,
            chain_id=workload.chain_id,
            sender=addresses[sender],
            key_id=addresses[sender],
            nonce=nonce,
            valid_until=0,
            gas_limit=GAS_TRANSFER,
            gas_price=1,
            access=(),
            action=Transfer(addresses[workload.payee(index)], 1 + index % 1_000),
        )
        id_ = transaction_id(encode(body))
        key = keys[sender]
        signature = Signer(key, library).sign(id_, CONTEXT_TRANSACTION)
        public_key = key.public_key if nonce == 0 else b""
        wire = encode(Transaction(body, Witness(key.scheme, signature, public_key)))
        parts.append(len(wire).to_bytes(4, "big") + id_ + wire)
    file = _chunk_file(target, chunk)
    temporary = file.with_suffix(f".{os.getpid()}")
    temporary.write_bytes(b"".join(parts))
    temporary.replace(file)


def _chunk_file(target: Path, chunk: int) -> Path:
    return target / f"{chunk:06d}.transactions"


def check_signed(signed: Signed) -> Transaction:
    """Decodes a transaction of the cache; raises `QnetError` where the file was damaged."""
    return TRANSACTION_CODEC.decode(signed.wire)
