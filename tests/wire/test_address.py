"""Addresses in text: bech32m with its published vectors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnet_actors.wire import address as address_module
from qnet_actors.wire.address import decode_address, encode_address
from qnet_actors.wire.codes import Code, QnetError
from tests.strategies import digests

CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def refused(text: str, *, development: bool = False) -> str:
    with pytest.raises(QnetError) as caught:
        decode_address(text, development=development)
    assert caught.value.code is Code.BAD_ADDRESS
    return caught.value.detail


@given(digests, st.booleans())
def test_addresses_survive_a_round_trip(address, development):
    text = encode_address(address, development=development)
    assert text.startswith("tqnet1" if development else "qnet1")
    assert len(text) == (64 if development else 63)
    assert set(text.rpartition("1")[2]) <= set(CHARSET)
    assert decode_address(text, development=development) == address
    assert decode_address(text.upper(), development=development) == address


# BIP 350, "Test vectors for Bech32m": valid strings, by their human-readable part.
BIP350_VALID = [
    "A1LQFN3A",
    "a1lqfn3a",
    "an83characterlonghumanreadablepartthatcontainsthetheexcludedcharactersbioandnumber11sg7hg6",
    "abcdef1l7aum6echk45nj3s0wdvt2fg8x9yrzpqzd3ryx",
    "11llllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllludsr8",
    "split1checkupstagehandshakeupstreamerranterredcaperredlc445v",
    "?1v759aa",
]
# And invalid ones: a checksum of the wrong length, of characters not in the set, calculated with
# the other constant.
BIP350_INVALID = ["in1muywd", "mm1crxm3i", "au1s5cgom", "M1VUXWEZ", "16plkw9", "1p2gdwpf"]


def checksum_holds(text: str) -> bool:
    prefix, _, data = text.lower().rpartition("1")
    if not prefix or any(character not in CHARSET for character in data):
        return False
    values = [CHARSET.index(character) for character in data]
    polymod, expand = address_module._polymod, address_module._expand
    return len(data) >= 6 and polymod([*expand(prefix), *values]) == 0x2BC830A3


@pytest.mark.parametrize("text", BIP350_VALID)
def test_published_checksums_hold(text):
    assert checksum_holds(text)


@pytest.mark.parametrize("text", BIP350_INVALID)
def test_published_bad_checksums_do_not_hold(text):
    assert not checksum_holds(text)
    refused(text)


@pytest.mark.parametrize("text", BIP350_VALID)
def test_valid_bech32m_of_other_uses_is_refused(text):
    refused(text)


@given(digests, st.integers(0, 57), st.sampled_from(CHARSET))
def test_one_wrong_character_is_noticed(address, place, character):
    text = encode_address(address, development=False)
    changed = text[: 5 + place] + character + text[6 + place :]
    if changed != text:
        assert "checksum" in refused(changed)


@given(digests, st.integers(0, 56))
def test_two_swapped_characters_are_noticed(address, place):
    text = encode_address(address, development=False)
    at = 5 + place
    changed = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    if changed != text:
        assert "checksum" in refused(changed)


@given(digests)
def test_the_checksum_of_bech32_is_refused(address):
    """BIP 173 has the constant 1 where BIP 350 has another."""
    data = address_module._regroup(address, 8, 5, pad=True)
    prefix = address_module._expand("qnet")
    checksum = address_module._polymod([*prefix, *data, *[0] * 6]) ^ 1
    data += [checksum >> 5 * (5 - i) & 31 for i in range(6)]
    assert "checksum" in refused("qnet1" + "".join(CHARSET[value] for value in data))


def with_checksum(prefix: str, data: list[int]) -> str:
    values = [*address_module._expand(prefix), *data, *[0] * 6]
    checksum = address_module._polymod(values) ^ 0x2BC830A3
    data = data + [checksum >> 5 * (5 - i) & 31 for i in range(6)]
    return prefix + "1" + "".join(CHARSET[value] for value in data)


@pytest.mark.parametrize("padding", range(1, 16))
def test_padding_that_is_not_zero_is_refused(padding):
    data = address_module._regroup(b"a" * 32, 8, 5, pad=True)
    # 256 bits take 52 characters, of which the last holds one bit and four of padding.
    assert len(data) == 52
    data[-1] |= padding
    assert refused(with_checksum("qnet", data)) == "bad padding"


def test_a_superfluous_character_is_refused():
    data = address_module._regroup(b"a" * 32, 8, 5, pad=True)
    assert "33 bytes" in refused(with_checksum("qnet", [*data, 0]))
    assert refused(with_checksum("qnet", [*data, 0, 0])) == "bad padding"


@pytest.mark.parametrize("size", [0, 1, 20, 31, 33, 40])
def test_another_length_is_refused(size):
    data = address_module._regroup(bytes(size), 8, 5, pad=True)
    refused(with_checksum("qnet", data))
    with pytest.raises(QnetError):
        encode_address(bytes(size), development=False)


def test_an_address_of_the_other_kind_of_network_is_told():
    real, test = (encode_address(b"a" * 32, development=d) for d in (False, True))
    assert refused(real, development=True) == "addresses of this network begin with tqnet1"
    assert refused(test) == "addresses of this network begin with qnet1"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "qnet",
        "qnet1",
        "qnet1qqqqq",
        "qnet1" + "q" * 200,
        "Qnet1" + "q" * 58,
        "qnet1" + "b" * 58,
        "qnet1" + "é" * 58,
        "qnet1" + "İ" * 20,
        " qnet1" + "q" * 58,
        "\ud800",
        "q\0net1" + "q" * 58,
    ],
)
def test_what_is_no_address_is_refused(text):
    refused(text)


@given(st.text(max_size=100), st.booleans())
def test_any_text_is_an_address_or_refused(text, development):
    try:
        address = decode_address(text, development=development)
    except QnetError as error:
        assert error.code is Code.BAD_ADDRESS  # noqa: PT017
    else:
        assert encode_address(address, development=development) == text.lower()
