"""Commands that ask a gateway or send through it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qnet_actors.commands import wallet
from qnet_actors.commands.amounts import format_amount, parse_amount
from qnet_actors.commands.options import (
    AMOUNT_HELP,
    JsonOption,
    PassphraseFile,
    Stage,
    TimeoutOption,
    UrlOption,
    WaitOption,
)
from qnet_actors.commands.output import emit, fields, reported, say
from qnet_actors.wire.codes import Code, QnetError

if TYPE_CHECKING:
    from qnet_actors.client import Client, Transaction
    from qnet_actors.client.models import Sync


def status(url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Show where the network stands."""
    with reported(as_json), open_client(url) as client:
        answer = client.status()

        def lines() -> Iterator[tuple[str, Any]]:
            yield "network", answer.name + (" (development)" if answer.development else "")
            yield from fields(answer, "chain_id", "height", "final_height", "epoch", "round")
            yield from fields(answer, "commit_index", "pool_transactions", "gas_price_min")
            yes = "yes, an observer" if answer.sync.phase == "observing" else "yes"
            yield "ready", yes if answer.ready else f"no: {_behind(answer.sync)}"

        emit(answer, as_json, lines)


def _behind(sync: Sync) -> str:
    if sync.phase != "snapshot":
        return "it is catching up"
    return f"{sync.parts} of {sync.parts_total} parts of the snapshot at {sync.height} are here"


def balance(
    account: Annotated[str, typer.Argument(help="An address, a key's name, or dev:N.")],
    chain_id: Annotated[
        str | None,
        typer.Option(
            help="Believe only what a quorum of this network certified.", show_default=False
        ),
    ] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what an account holds.

    With --chain-id it is the newest certified state, about a second old, and checked by proof:
    whoever answers cannot lie.
    """
    with reported(as_json), open_client(url, chain_id) as client:
        answer = client.account(resolve(account), prove=chain_id is not None)

        def lines() -> Iterator[tuple[str, Any]]:
            yield "address", answer.address
            yield "balance", f"{format_amount(answer.balance)} ({answer.balance} units)"
            yield from fields(answer, "nonce", "height")
            if answer.proved:
                yield "proved", "yes"

        emit(answer, as_json, lines)


def send(
    to: Annotated[str, typer.Argument(help="An address, a key's name, or dev:N.")],
    amount: Annotated[str, typer.Argument(help=AMOUNT_HELP)],
    key: Annotated[
        str, typer.Option("--from", help="The key that signs: its name, or dev:N.")
    ] = "default",
    sender: Annotated[
        str | None,
        typer.Option(help="The account's address, where its key was rotated.", show_default=False),
    ] = None,
    wait: WaitOption = "executed",
    timeout_s: TimeoutOption = 10.0,
    gas_price: Annotated[int, typer.Option(min=1, help="Units for each unit of gas.")] = 1,
    nonce: Annotated[
        int | None, typer.Option(min=0, help="Instead of the next one.", show_default=False)
    ] = None,
    passphrase_file: PassphraseFile = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send an amount to an account.

    A transaction that was included but failed (its receipt says why) ends with exit code 1.
    """
    with reported(as_json), open_client(url) as client:
        units = parse_amount(amount)
        payee = resolve(to)
        _, development = client.network()
        signer = wallet.load_signer(key, passphrase_file, development)
        done = client.transfer(
            signer,
            payee,
            units,
            sender=sender,
            nonce=nonce,
            gas_price=gas_price,
            wait=None if wait == "received" else wait,
            timeout_ms=round(timeout_s * 1_000),
        )
        show_transaction(done, as_json)


def transaction(
    id_: Annotated[str, typer.Argument(metavar="ID", help="The transaction's id.")],
    wait: Annotated[
        Stage | None, typer.Option(help="Wait until it has come so far.", show_default=False)
    ] = None,
    timeout_s: TimeoutOption = 10.0,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a transaction: status, block, receipt.

    One that was included but failed ends with exit code 1.
    """
    with reported(as_json), open_client(url) as client:
        if wait is None or wait == "received":
            answer = client.transaction(id_)
        else:
            answer = client.wait(id_, wait, round(timeout_s * 1_000))
        show_transaction(answer, as_json)


def block(
    selector: Annotated[str, typer.Argument(help="A height, a hash, or latest.")] = "latest",
    transactions: Annotated[
        bool, typer.Option("--transactions", "-t", help="With up to 1,000 transactions.")
    ] = False,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a block."""
    with reported(as_json), open_client(url) as client:
        answer = client.block(selector, transactions=transactions, limit=1_000)

        def lines() -> Iterator[tuple[str, Any]]:
            yield "hash", answer.hash
            yield "final", "yes" if answer.final else "not yet"
            yield from fields(
                answer.header,
                "height",
                "parent",
                "timestamp_ms",
                "epoch",
                "commit_index",
                "transaction_count",
                "failed_count",
                "gas_used",
            )
            for item in answer.transactions or ():
                yield "transaction", f"{item.id} {item.receipt.code}"

        emit(answer, as_json, lines)
        if answer.next_offset is not None:
            say(f"qnet: only the first {answer.next_offset} transactions are shown")


def resolve(account: str) -> bytes | str:
    """An address as it is, or that of a key by its name."""
    if account.lower().startswith(("qnet1", "tqnet1")):
        return account
    return wallet.public_identity(account)[2]


def open_client(url: str | None, chain_id: str | None = None) -> Client:
    """A client of the gateway; `chain_id` in hex.  Raises `QnetError(INVALID_PARAMETER)`."""
    from qnet_actors.client import Client

    if chain_id is None:
        return Client(url)
    try:
        pinned = bytes.fromhex(chain_id)
    except ValueError:
        pinned = b""
    if len(pinned) != 32:
        raise QnetError(Code.INVALID_PARAMETER, "a chain id is 64 hex digits; see qnet status")
    return Client(url, chain_id=pinned)


def show_transaction(answer: Transaction, as_json: bool) -> None:
    """Prints it; exit code 1 where it was included and failed."""

    def lines() -> Iterator[tuple[str, Any]]:
        yield from fields(answer, "id", "status")
        if answer.block is not None:
            yield "block", f"{answer.block.height} ({answer.block.hash}), {answer.block.index}"
        if answer.receipt is not None:
            yield "receipt", f"{answer.receipt.code}, gas used {answer.receipt.gas_used}"

    emit(answer, as_json, lines)
    if answer.receipt is not None and not answer.receipt.succeeded:
        code = Code[answer.receipt.code.upper()]
        say(f"qnet: {code.label}: {QnetError(code).detail}")
        raise typer.Exit(1)
