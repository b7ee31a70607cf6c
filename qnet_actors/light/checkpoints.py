"""Checkpoint certificates, and the headers that lead from a certified block back to another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Final, Protocol

from qnet_actors.wire.blocks import BLOCK_VERSION, BlockHeader, Certificate, Checkpoint
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.committee import Committee
from qnet_actors.wire.schemes import CONTEXT_CHECKPOINT, Scheme

HEADERS_MAX: Final = 1_024
"""Checkpoints are about a second apart, so a chain has a dozen headers."""


class CertificateVerifier(Protocol):
    """The part of `crypto.BatchVerifier` that certificates need."""

    def verify(
        self,
        public_keys: Sequence[bytes],
        messages: Sequence[bytes],
        signatures: Sequence[bytes],
        context: bytes,
        scheme: Scheme,
    ) -> Iterable[Any]:
        """For each row something true where it carries a valid signature."""


def check_certificate(
    chain_id: bytes, committee: Committee, certificate: Certificate, verifier: CertificateVerifier
) -> None:
    """Raises `QnetError(BAD_CERTIFICATE)` unless a quorum of `committee` signed; CPU work."""
    checkpoint = certificate.checkpoint
    authors = [vote.author for vote in certificate.votes]
    if (
        checkpoint.chain_id != chain_id
        or checkpoint.committee != committee.digest
        or checkpoint.epoch != committee.epoch
        or checkpoint.version != BLOCK_VERSION
    ):
        raise QnetError(Code.BAD_CERTIFICATE, "of another network or epoch")
    if authors != sorted(set(authors)) or any(author >= len(committee) for author in authors):
        raise QnetError(Code.BAD_CERTIFICATE, "authors are unknown or do not rise")
    if not committee.has_quorum(authors):
        raise QnetError(Code.BAD_CERTIFICATE, "less than a quorum")
    digest = checkpoint.digest()
    by_scheme: dict[int, list[tuple[bytes, bytes]]] = {}
    for vote in certificate.votes:
        member = committee.members[vote.author]
        by_scheme.setdefault(member.scheme, []).append((member.public_key, vote.signature))
    for scheme, pairs in by_scheme.items():
        good = verifier.verify(
            [key for key, _ in pairs],
            [digest] * len(pairs),
            [signature for _, signature in pairs],
            CONTEXT_CHECKPOINT,
            Scheme(scheme),
        )
        verdicts = [bool(verdict) for verdict in good]
        if len(verdicts) != len(pairs) or not all(verdicts):
            raise QnetError(Code.BAD_CERTIFICATE, "a signature does not verify")


def check_headers(checkpoint: Checkpoint, headers: Sequence[BlockHeader]) -> None:
    """Raises `QnetError(BAD_PROOF)` unless `headers` rise, one by one, to the certified block.

    Each header names the one before by its hash, so one certificate proves all of them.
    """
    if not 1 <= len(headers) <= HEADERS_MAX:
        raise QnetError(Code.BAD_PROOF, f"a chain of {len(headers)} headers")
    last = headers[-1]
    if last.height != checkpoint.height or last.hash() != checkpoint.block_hash:
        raise QnetError(Code.BAD_PROOF, "the headers do not end at the certified block")
    for before, after in pairwise(headers):
        if after.parent != before.hash() or after.height != before.height + 1:
            raise QnetError(Code.BAD_PROOF, f"header {after.height} does not follow the one before")
