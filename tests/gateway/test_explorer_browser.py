"""The explorer in a real browser, before a gateway over fakes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from html import unescape
from pathlib import Path

import msgspec
import pytest
from websockets.sync.client import connect

from qnet_actors.gateway.settings import Settings
from qnet_actors.wire.address import encode_address
from qnet_actors.wire.codes import Code, QnetError
from tests.gateway.ledger import Wallet, id_of
from tests.gateway.serving import ThreadedWorld, threaded_world

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
ALICE = Wallet(0)
HOSTILE = "<img src=x onerror=document.title=1>"

pytestmark = [
    pytest.mark.network,
    pytest.mark.long,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium in PATH"),
]

Dump = Callable[[str], str]


@pytest.fixture
def dump(tmp_path: Path) -> Dump:
    """The document of a URL as the browser has it after some seconds of its own clock."""

    def run(url: str) -> str:
        command = [
            str(CHROMIUM),
            "--headless",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            f"--user-data-dir={tmp_path}",
            "--virtual-time-budget=6000",
            "--dump-dom",
        ]
        if os.geteuid() == 0:
            # Chromium's sandbox does not work for root, who runs containers.
            command.append("--no-sandbox")
        done = subprocess.run([*command, url], capture_output=True, text=True, timeout=90)
        assert done.returncode == 0, done.stderr[-2_000:]
        return done.stdout

    return run


def text(document: str) -> str:
    """What is to be read, without tags; pieces stand apart by spaces."""
    body = document.partition("<body")[2].partition("<noscript")
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body[0] + body[2])).split())


def run_blocks(w: ThreadedWorld, count: int) -> None:
    """Blocks of one transfer each, of which all but the last are final."""

    def run() -> None:
        backend = w.backends[0]
        first = w.ledger.height
        w.ledger.genesis_ms = time.time_ns() // 1_000_000 - 20_000
        for nonce in range(first, first + count):
            assert backend._admit(ALICE.transfer(nonce, amount=1_500_000_000))[0] == Code.SUCCESS
            if nonce == first + count - 1:
                backend.certify()
            backend.execute()

    w.call(run)


def test_the_overview_shows_the_network(dump):
    with threaded_world(4, auto=False) as w:
        run_blocks(w, 30)
        document = dump(w.url)
        shown = text(document)
        assert 'data-state="live"' in document
        assert "test, development" in shown
        assert "Height 30" in shown
        assert "Final height 29 1 not final yet" in shown
        assert "Validators connected 4 of 4 all linked" in shown
        assert "1.5 QNET success 30" in shown
        assert "executed 29" in shown
        assert "peak 10 tx/s" in shown
        assert f'href="#/tx/{id_of(ALICE.transfer(29, amount=1_500_000_000)).hex()}"' in document
        assert f'href="#/account/{encode_address(ALICE.address, development=True)}"' in document
        assert re.search(r'class="bars" d="M\d', document)
        assert 'id="trouble" class="notice" role="alert" hidden' in document


def test_a_network_without_blocks_says_so(dump):
    with threaded_world(1, auto=False) as w:
        shown = text(dump(w.url))
        assert "Height 0" in shown
        assert "There is no block yet." in shown
        assert "No transactions in the last two minutes" in shown


def test_without_a_socket_it_polls(dump):
    with threaded_world(1, auto=False, settings=Settings(sockets_max=1)) as w:
        run_blocks(w, 3)
        with connect(w.url.replace("http", "ws") + "/api/v1/ws"):
            document = dump(w.url)
        assert 'data-state="polling"' in document
        assert "Height 3" in text(document)


def test_what_the_network_says_is_text(dump, monkeypatch):
    with threaded_world(1, auto=False) as w:
        (backend,) = w.backends
        status = backend._status
        monkeypatch.setattr(
            backend, "_status", lambda: msgspec.structs.replace(status(), name=HOSTILE)
        )
        document = dump(w.url)
        assert HOSTILE in text(document)
        assert "<img src=x" not in document
        assert "<title>QNet explorer</title>" in document


def test_a_dead_validator_is_named_with_its_code(dump):
    with threaded_world(1, auto=False) as w:
        w.backends[0].fault = QnetError(Code.NOT_READY)
        shown = text(dump(w.url))
        assert Code.NOT_READY.description in shown
        assert "Trying again." in shown


def test_a_block_a_transaction_and_an_account(dump):
    with threaded_world(1, auto=False) as w:
        run_blocks(w, 2)
        id_ = id_of(ALICE.transfer(0, amount=1_500_000_000)).hex()
        address = encode_address(ALICE.address, development=True)
        shown = text(dump(f"{w.url}/#/block/1"))
        assert "Block 1" in shown
        assert "Status final" in shown
        assert "Transactions 1 to 1 of 1" in shown
        shown = text(dump(f"{w.url}/#/tx/{id_}"))
        assert f"Id {id_} Status final Result success Block 1 , position 0" in shown
        assert f"From {address}" in shown
        assert "Amount 1.5 QNET" in shown
        shown = text(dump(f"{w.url}/#/account/{address}"))
        assert f"Address {address}" in shown
        assert "Nonce 2" in shown


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("block/99", Code.NOT_FOUND),
        ("tx/" + "00" * 32, Code.NOT_FOUND),
        ("tx/nothing", Code.INVALID_PARAMETER),
        ("account/nobody", Code.BAD_ADDRESS),
        ("elsewhere/1", Code.NOT_FOUND),
    ],
)
def test_what_cannot_be_shown_says_why(dump, path, code):
    with threaded_world(1, auto=False) as w:
        assert f"Code: {code.label}" in text(dump(f"{w.url}/#/{path}"))
