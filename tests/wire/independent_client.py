"""A client written from docs/reference/wire.md alone: it imports nothing of the package.

    python tests/wire/independent_client.py --url http://127.0.0.1:8080 --seed-hex <64 digits> \\
        --payee tqnet1... --amount 5

It needs `msgpack`, `cryptography`, `blake3` and Python.  The receipt goes to standard output as
JSON; a refusal goes to standard error, with exit code 1.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
import urllib.error
import urllib.request
from typing import Any

import msgpack
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey

ML_DSA_65 = 2
VERSION = 1
TRANSFER = 1
GAS_TRANSFER = 1_000
CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def derived(context: str, data: bytes) -> bytes:
    """BLAKE3-256 in derive-key mode."""
    return blake3(data, derive_key_context=context).digest()


def pack(value: Any) -> bytes:
    """MessagePack with shortest forms, which is what `msgpack` writes."""
    encoded: bytes = msgpack.packb(value, use_bin_type=True)
    return encoded


def polymod(values: list[int]) -> int:
    checksum = 1
    for value in values:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for bit, constant in enumerate(
            (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
        ):
            if top >> bit & 1:
                checksum ^= constant
    return checksum


def prefix_values(prefix: str) -> list[int]:
    return [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]


def address_text(address: bytes, development: bool) -> str:
    """Bech32m of 32 bytes."""
    prefix = "tqnet" if development else "qnet"
    bits = int.from_bytes(address, "big") << 4
    values = [bits >> 5 * (51 - i) & 31 for i in range(52)]
    checksum = polymod(prefix_values(prefix) + values + [0] * 6) ^ 0x2BC830A3
    values += [checksum >> 5 * (5 - i) & 31 for i in range(6)]
    return prefix + "1" + "".join(CHARSET[value] for value in values)


def address_bytes(text: str, development: bool) -> bytes:
    """The 32 bytes of an address; raises ValueError."""
    if text != text.lower() and text != text.upper():
        raise ValueError("mixed case")
    prefix, _, data = text.lower().rpartition("1")
    if prefix != ("tqnet" if development else "qnet") or len(data) != 58:
        raise ValueError("not an address of this kind of network")
    values = [CHARSET.index(character) for character in data]
    if polymod(prefix_values(prefix) + values) != 0x2BC830A3:
        raise ValueError("the checksum is wrong")
    bits = 0
    for value in values[:52]:
        bits = bits << 5 | value
    if bits & 15:
        raise ValueError("bad padding")
    return (bits >> 4).to_bytes(32, "big")


class Account:
    """A key made from a 32-byte seed, and the address that it has when it is the first key."""

    def __init__(self, seed: bytes) -> None:
        self._key = MLDSA65PrivateKey.from_seed_bytes(seed)
        self.public_key = self._key.public_key().public_bytes_raw()
        self.key_id = derived("qnet key v1", bytes((ML_DSA_65,)) + self.public_key)
        self.address = self.key_id

    def transfer(
        self, chain_id: bytes, nonce: int, payee: bytes, amount: int, gas_price: int = 1
    ) -> tuple[bytes, bytes]:
        """(transaction id, wire bytes) of a signed transfer."""
        body = pack(
            [
                VERSION,
                chain_id,
                self.address,
                self.key_id,
                nonce,
                0,
                GAS_TRANSFER,
                gas_price,
                [],
                [TRANSFER, payee, amount],
            ]
        )
        id_ = derived("qnet tx v1", body)
        signature = self._key.sign(id_, b"qnet/tx/v1")
        # An array of two: the body as it was hashed, and the witness.
        return id_, b"\x92" + body + pack([ML_DSA_65, signature, self.public_key])


def ask(url: str, document: Any = None) -> Any:
    """The JSON answer to a GET, or to a POST of `document`; raises urllib's HTTPError."""
    data = None if document is None else json.dumps(document).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def submit_transfer(url: str, seed: bytes, payee: str | None, amount: int) -> Any:
    """Sends `amount` to `payee` (None: to the sender itself) and returns the receipt's JSON."""
    status = ask(f"{url}/api/v1/status")
    development = status["development"]
    account = Account(seed)
    own = address_text(account.address, development)
    nonce = int(ask(f"{url}/api/v1/accounts/{own}/next-nonce")["next_nonce"])
    target = account.address if payee is None else address_bytes(payee, development)
    id_, data = account.transfer(bytes.fromhex(status["chain_id"]), nonce, target, amount)
    answer = ask(
        f"{url}/api/v1/tx/submit?wait=executed&timeout_ms=10000",
        {"transaction": base64.b64encode(data).decode()},
    )
    if answer["id"] != id_.hex():
        raise ValueError(
            f"the gateway names the transaction {answer['id']}, here it is {id_.hex()}"
        )
    return answer


def main() -> int:
    parser = argparse.ArgumentParser(description="Sends a transfer and prints its receipt.")
    parser.add_argument("--url", required=True, help="the gateway, such as http://127.0.0.1:8080")
    parser.add_argument("--seed-hex", required=True, help="the seed of an ML-DSA-65 key")
    parser.add_argument("--payee", help="an address; without it the sender pays itself")
    parser.add_argument("--amount", type=int, default=1, help="in the smallest unit")
    arguments = parser.parse_args()
    seed = bytes.fromhex(arguments.seed_hex)
    try:
        receipt = submit_transfer(
            arguments.url.rstrip("/"), seed, arguments.payee, arguments.amount
        )
    except urllib.error.HTTPError as error:
        sys.stderr.write(f"{error.code}: {error.read().decode(errors='replace')}\n")
        return 1
    except (urllib.error.URLError, ValueError, KeyError) as error:
        sys.stderr.write(f"{error!r}\n")
        return 1
    sys.stdout.write(json.dumps(receipt) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
