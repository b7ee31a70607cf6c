"""Eight Keccak states at once, held to hashlib."""

from __future__ import annotations

import hashlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from qnet_actors.kernels import keccak


def shake256_rows(messages: list[bytes], size: int) -> list[bytes]:
    """SHAKE256 of eight messages of up to one length class, by `absorb8` and `squeeze8`."""
    blocks = len(messages[0]) // keccak.SHAKE256_BYTES + 1
    rows = np.zeros((keccak.LANES, blocks * keccak.SHAKE256_WORDS), dtype=np.uint64)
    octets = rows.view(np.uint8)
    for lane, message in enumerate(messages):
        octets[lane, : len(message)] = np.frombuffer(message, dtype=np.uint8)
        octets[lane, len(message)] = keccak.SUFFIX
        octets[lane, -1] |= keccak.LAST_BIT
    state = np.zeros(keccak.STATE_WORDS, dtype=np.uint64)
    for block in range(blocks):
        keccak.absorb8(
            state, rows.reshape(-1), block * keccak.SHAKE256_WORDS, blocks * keccak.SHAKE256_WORDS
        )
    out = np.zeros((keccak.LANES, keccak.SQUEEZED_WORDS), dtype=np.uint64)
    keccak.squeeze8(state, out.reshape(-1), 0, keccak.SQUEEZED_WORDS)
    return [row.tobytes()[:size] for row in out.view(np.uint8)]


@settings(max_examples=30)
@given(st.integers(0, 600), st.randoms(use_true_random=False))
def test_eight_messages(size, random):
    messages = [random.randbytes(size) for _ in range(keccak.LANES)]
    expected = [hashlib.shake_256(message).digest(136) for message in messages]
    assert shake256_rows(messages, 136) == expected


def test_lengths_around_a_block():
    for size in (0, 1, 134, 135, 136, 137, 271, 272, 273):
        messages = [bytes([lane]) * size for lane in range(keccak.LANES)]
        expected = [hashlib.shake_256(message).digest(136) for message in messages]
        assert shake256_rows(messages, 136) == expected


def test_one_at_a_time():
    for size in (0, 1, 34, 48, 134):
        seed = bytes(range(size))
        for rate, shake in ((168, hashlib.shake_128), (136, hashlib.shake_256)):
            out = np.empty(1000, dtype=np.uint8)
            keccak.shake(np.frombuffer(seed, dtype=np.uint8), rate, out)
            assert out.tobytes() == shake(seed).digest(1000)


def test_seed_of_rate_less_one_takes_both_padding_bits_in_one_byte():
    seed = bytes(135)
    out = np.empty(64, dtype=np.uint8)
    keccak.shake(np.frombuffer(seed, dtype=np.uint8), 136, out)
    assert out.tobytes() == hashlib.shake_256(seed).digest(64)
