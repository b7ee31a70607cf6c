"""Whether the kernels compute the standard on this machine: embedded vectors, before first use."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from importlib.resources import files
from typing import NamedTuple

import numpy as np

from qnet_actors.crypto.mldsa import reference
from qnet_actors.crypto.mldsa.verifier import MlDsaVerifier
from qnet_actors.wire.schemes import Scheme


class Case(NamedTuple):
    """A signature and the verdict that it must get."""

    name: str
    public_key: bytes
    message: bytes
    signature: bytes
    context: bytes
    valid: bool


def cases() -> list[Case]:
    """The embedded vectors, each followed by copies with one fault."""
    return [case for record in _records() for case in (record, *_faults(record))]


def failure(verifier: MlDsaVerifier) -> str | None:
    """The name of the first case that `verifier` gets wrong; None when it gets all right.

    Every case is verified in each of eight lanes, beside others, with keys new to the cache and
    then with keys held by it.
    """
    by_form: dict[tuple[int, bytes], list[Case]] = {}
    for case in cases():
        by_form.setdefault((len(case.message), case.context), []).append(case)
    for part in by_form.values():
        # Eight times over an odd number of rows brings each into every lane.
        rows = (part + part[: 1 - len(part) % 2]) * 8
        for _ in range(2):
            for case, given in zip(rows, _verdicts(verifier, rows), strict=True):
                if given != case.valid:
                    return f"{case.name} was {'accepted' if given else 'refused'}"
    return None


def _records() -> Iterator[Case]:
    text = files(__package__).joinpath("self_test.json").read_text()
    for number, record in enumerate(json.loads(text)["records"]):
        fields = {name: base64.b64decode(value) for name, value in record.items()}
        yield Case(f"record {number}", **fields, valid=True)


def _faults(case: Case) -> Iterator[Case]:
    signature = case.signature
    hint = reference.SIGNATURE_BYTES - reference.OMEGA - reference.K
    # z of zero packed bits is gamma1, beyond the norm; so is z of ones, -(gamma1 - 1).
    for name, start, replacement in (
        ("challenge", 0, bytes([signature[0] ^ 1])),
        ("response", 1700, bytes([signature[1700] ^ 0x40])),
        ("largest response", reference.CHALLENGE_BYTES, bytes(3)),
        ("smallest response", hint - 3, b"\xff" * 3),
        ("hint", hint, bytes([signature[hint] ^ 1])),
        ("hint count", hint + reference.OMEGA, bytes([reference.OMEGA + 1])),
        ("hint behind the last", hint + reference.OMEGA - 1, b"\x07"),
    ):
        faulty = signature[:start] + replacement + signature[start + len(replacement) :]
        if faulty != signature:
            yield case._replace(name=f"{case.name}, other {name}", signature=faulty, valid=False)
    yield case._replace(
        name=f"{case.name}, other message", message=case.message + b"\0", valid=False
    )
    key = case.public_key[:40] + bytes([case.public_key[40] ^ 1]) + case.public_key[41:]
    yield case._replace(name=f"{case.name}, other key", public_key=key, valid=False)


def _verdicts(verifier: MlDsaVerifier, rows: list[Case]) -> list[bool]:
    """Verdicts of rows with one context and one length of messages."""
    messages = np.frombuffer(b"".join(case.message for case in rows), dtype=np.uint8)
    signatures = np.frombuffer(b"".join(case.signature for case in rows), dtype=np.uint8)
    verdicts: list[bool] = verifier.verify_columns(
        Scheme.ML_DSA_65,
        [case.public_key for case in rows],
        np.arange(len(rows), dtype=np.intp),
        messages.reshape(len(rows), -1),
        signatures.reshape(len(rows), -1),
        rows[0].context,
    ).tolist()
    return verdicts
