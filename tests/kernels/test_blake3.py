"""The BLAKE3 kernel against the BLAKE3 library."""

from __future__ import annotations

import numpy as np
import pytest
from blake3 import blake3

from qnet_actors.kernels.blake3 import BLOCK_BYTES, context_key, hash_fixed, hash_short

CONTEXT = "qnet test v1"


def expected(message: bytes, context: str = CONTEXT) -> bytes:
    return blake3(message, derive_key_context=context).digest()


@pytest.mark.parametrize("count", [1, 15, 16, 17, 64, 100])
def test_messages_of_every_length(count):
    rng = np.random.default_rng(count)
    lengths = rng.integers(0, BLOCK_BYTES + 1, count).astype(np.uint32)
    rows = np.zeros((count, BLOCK_BYTES), dtype=np.uint8)
    for row, length in enumerate(lengths.tolist()):
        rows[row, :length] = rng.integers(0, 256, length)
    digests = hash_short(CONTEXT, rows, lengths)
    for row, length in enumerate(lengths.tolist()):
        assert digests[row].tobytes() == expected(rows[row, :length].tobytes())


@pytest.mark.parametrize("length", [0, 1, 32, 42, 63, 64])
def test_messages_of_one_length(length):
    rng = np.random.default_rng(length)
    messages = rng.integers(0, 256, (33, length)).astype(np.uint8)
    digests = hash_fixed("qnet state node v1", messages)
    for message, digest in zip(messages, digests, strict=True):
        assert digest.tobytes() == expected(message.tobytes(), "qnet state node v1")


@pytest.mark.parametrize("context", ["", "q", "x" * 64])
def test_contexts_of_one_block(context):
    digest = hash_fixed(context, np.zeros((1, 32), dtype=np.uint8))[0]
    assert digest.tobytes() == expected(bytes(32), context)


def test_longer_contexts_are_refused():
    with pytest.raises(ValueError, match="65 bytes"):
        context_key("x" * 65)


def test_no_messages():
    assert hash_fixed(CONTEXT, np.zeros((0, 32), dtype=np.uint8)).shape == (0, 32)
