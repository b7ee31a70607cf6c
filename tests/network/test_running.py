"""A real network on Ray: four processes, post-quantum signatures, a gateway, DuckDB."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from qnet_actors.client import AsyncClient, Client, build, sign
from qnet_actors.crypto import Signer
from qnet_actors.network.launch import Network, agreed_root
from qnet_actors.wire.transactions import MultiTransfer, Payment, Transfer
from tests.network.conftest import Running

INDEPENDENT = Path(__file__).parents[1] / "wire" / "independent_client.py"
WAIT_SECONDS = 40.0

pytestmark = [pytest.mark.network, pytest.mark.timeout(180)]


def until(condition: Callable[[], bool], what: str) -> None:
    """Waits for a condition outside this process; fails with `what` where it does not come."""
    give_up = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < give_up, what


def test_transfers_are_executed_and_final(running: Running) -> None:
    alice, bob = running.signers(0, 2)
    with Client(running.url) as client:
        before = client.balance(bob.key_id)
        receipt = client.transfer(alice, bob.key_id, 250, wait="final", timeout_ms=30_000)
        assert receipt.status == "final"
        assert receipt.receipt is not None
        assert receipt.receipt.succeeded
        assert client.balance(bob.key_id) == before + 250


def test_accounts_and_transactions_are_proved(running: Running) -> None:
    alice, bob = running.signers(5, 2)
    with Client(running.url, chain_id=running.chain_id) as client:
        sent = client.transfer(alice, bob.key_id, 11, wait="final", timeout_ms=30_000)
        assert sent.block is not None
        for address in (alice.key_id, bob.key_id):
            shown, proved = client.account(address), client.account(address, prove=True)
            assert proved.proved
            assert proved.height >= sent.block.height
            assert (proved.balance, proved.nonce) == (shown.balance, shown.nonce)
        assert not client.account(b"\x05" * 32, prove=True).balance
        final = client.final_transaction(sent.id)
        assert (final.header.height, final.index) == (sent.block.height, sent.block.index)
        assert final.receipt.status == 0


def test_the_past_of_an_account(running: Running) -> None:
    alice, bob = running.signers(7, 2)
    with Client(running.url) as client:
        before = client.balance(bob.key_id)
        sent = client.transfer(alice, bob.key_id, 13, wait="executed", timeout_ms=30_000)
        place = sent.block
        assert place is not None

        def known() -> bool:
            return client.account_transactions(bob.key_id).height >= place.height

        until(known, "the history does not come to the block")
        for account, was_sent in ((alice, True), (bob, False)):
            newest = client.account_transactions(account.key_id).transactions[0]
            assert (newest.id, newest.height, newest.index) == (sent.id, place.height, place.index)
            assert (newest.sent, newest.amount, newest.kind) == (was_sent, 13, "transfer")
        assert client.account(bob.key_id, height=place.height).balance == before + 13
        assert client.account(bob.key_id, height=place.height - 1).balance == before


def test_several_payments_at_once(running: Running) -> None:
    alice, bob, carol = running.signers(0, 3)
    action = MultiTransfer((Payment(bob.key_id, 3), Payment(carol.key_id, 4)))
    with Client(running.url) as client:
        before = [client.balance(payee.key_id) for payee in (bob, carol)]
        client.send(alice, action, wait="executed", timeout_ms=30_000)
        after = [client.balance(payee.key_id) for payee in (bob, carol)]
    assert [b - a for a, b in zip(before, after, strict=True)] == [3, 4]


def test_a_rotated_key_signs_for_the_old_address(running: Running) -> None:
    old, new = running.signers(3, 2)
    with Client(running.url) as client:
        client.rotate_key(old, new.key_id, wait="executed", timeout_ms=30_000)
        assert client.account(old.key_id).key_id == new.key_id.hex()
        sent = client.transfer(
            new, running.accounts[0].key_id, 1, sender=old.key_id, wait="executed"
        )
        assert sent.receipt is not None
        assert sent.receipt.succeeded


def test_a_client_made_from_the_wire_format_alone_gets_a_receipt(running: Running) -> None:
    key = running.accounts[5]
    done = subprocess.run(
        [sys.executable, str(INDEPENDENT), "--url", running.url, "--seed-hex", key.secret.hex()],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["status"] in ("executed", "final")
    assert answer["receipt"]["code"] == "success"


def test_a_killed_validator_comes_back_and_nothing_batched_is_lost(running: Running) -> None:
    network: Any = running.network
    assert isinstance(network, Network)
    victim = network.process_ids()["validator-2"]
    killed: list[float] = []

    def kill() -> None:
        os.kill(victim, signal.SIGKILL)
        killed.append(time.monotonic())

    signers = running.signers(8, 16)
    sent = asyncio.run(_send_through_a_crash(running.url, signers, kill))
    assert killed

    def back() -> bool:
        statuses = network.statuses()
        return statuses[2] is not None and statuses[2].ready

    until(back, "the killed validator does not come back")
    assert network.process_ids()["validator-2"] != victim

    with Client(running.url) as client:
        for id_ in sent:
            receipt = client.wait(id_, "executed", timeout_ms=30_000).receipt
            assert receipt is not None
            assert receipt.succeeded
        for signer in signers:
            assert client.account(signer.key_id).nonce == len(sent) // len(signers)

    height = max(status.height for status in network.statuses() if status is not None)
    _, root = agreed_root(network, height)
    assert root is not None, "state roots differ, or the validator did not catch up"
    assert [m.get("equivocations") for m in network.measurements()] == [0, 0, 0, 0]


async def _send_through_a_crash(
    url: str, signers: Sequence[Signer], kill: Callable[[], None]
) -> list[bytes]:
    """Sends rounds of transfers, kills after some, and repeats what was not acknowledged.

    What is returned is what the gateway said is batched, which is all of it.
    """
    rounds, kill_at = 30, 10
    acknowledged: list[bytes] = []
    async with AsyncClient(url) as client:
        chain_id, _ = await client.network()
        for nonce in range(rounds):
            open_ = {}
            for position, signer in enumerate(signers):
                payee = signers[(position + 1) % len(signers)].key_id
                body = build(
                    chain_id=chain_id,
                    sender=signer.key_id,
                    signer=signer,
                    nonce=nonce,
                    action=Transfer(payee, 1),
                )
                signed = sign(body, signer, with_key=nonce == 0)
                open_[signed.id.hex()] = signed
            if nonce == kill_at:
                kill()
            give_up = time.monotonic() + WAIT_SECONDS
            while open_:
                assert time.monotonic() < give_up, "transactions are not batched"
                results = await client.submit_many(
                    [signed.data for signed in open_.values()], wait="batched", timeout_ms=5_000
                )
                for id_, result in zip(list(open_), results, strict=True):
                    # A nonce that is too low was executed already: an earlier try came through.
                    if result.code in ("success", "nonce_too_low"):
                        acknowledged.append(open_.pop(id_).id)
    return acknowledged
