"""The independent client against a gateway of a few lines that answers as the page says."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from qnet_actors.wire.address import decode_address, encode_address
from qnet_actors.wire.codec import encode
from qnet_actors.wire.transactions import (
    TRANSACTION_CODEC,
    Transaction,
    Transfer,
    check_body,
    check_witness,
    transaction_id,
)
from tests.wire import independent_client

CHAIN = b"c" * 32
SEED = bytes(range(32))
PAYEE = encode_address(b"p" * 32, development=True)


class Gateway(ThreadingHTTPServer):
    """Takes what the package's codec takes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.submitted: list[Transaction] = []
        self.asked: list[bytes] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Gateway

    def do_GET(self) -> None:
        if self.path == "/api/v1/status":
            self.answer(200, {"chain_id": CHAIN.hex(), "development": True})
            return
        start, address, end = self.path.rsplit("/", 2)
        assert (start, end) == ("/api/v1/accounts", "next-nonce")
        self.server.asked.append(decode_address(address, development=True))
        self.answer(200, {"address": address, "next_nonce": "300"})

    def do_POST(self) -> None:
        assert self.path == "/api/v1/tx/submit?wait=executed&timeout_ms=10000"
        document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        transaction = TRANSACTION_CODEC.decode(base64.b64decode(document["transaction"]))
        check_body(transaction.body, CHAIN)
        check_witness(transaction.body, transaction.witness, frozenset({2}))
        if transaction.body.action == Transfer(b"p" * 32, 2**64 - 1):
            self.answer(409, {"code": "insufficient_funds"})
            return
        self.server.submitted.append(transaction)
        id_ = transaction_id(encode(transaction.body)).hex()
        self.answer(202, {"id": id_, "status": "executed", "receipt": {"code": "success"}})

    def answer(self, status: int, document: object) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its parent's name
        """Says nothing: the tests look at what was taken."""


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    server = Gateway()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def run(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, independent_client.__file__, "--url", url, "--seed-hex", SEED.hex()]
    return subprocess.run([*command, *arguments], check=False, capture_output=True, text=True)


def test_a_transfer_is_built_signed_submitted_and_its_receipt_printed(gateway):
    done = run(gateway.url + "/", "--payee", PAYEE, "--amount", "5")
    assert (done.returncode, done.stderr) == (0, "")
    receipt = json.loads(done.stdout)
    (transaction,) = gateway.submitted
    assert receipt["id"] == transaction_id(encode(transaction.body)).hex()
    assert receipt["receipt"] == {"code": "success"}
    assert transaction.body.action == Transfer(b"p" * 32, 5)
    assert transaction.body.nonce == 300
    assert gateway.asked == [transaction.body.sender] == [transaction.body.key_id]


def test_a_refusal_is_told_with_its_code(gateway):
    done = run(gateway.url, "--payee", PAYEE, "--amount", str(2**64 - 1))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == '409: {"code": "insufficient_funds"}\n'


def test_an_address_of_another_kind_of_network_is_refused_before_anything_is_sent(gateway):
    done = run(gateway.url, "--payee", encode_address(b"p" * 32, development=False))
    assert done.returncode == 1
    assert "not an address of this kind of network" in done.stderr
    assert gateway.submitted == []


def test_no_gateway_is_told_without_a_traceback():
    done = run("http://127.0.0.1:1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "refused" in done.stderr
    assert "Traceback" not in done.stderr
