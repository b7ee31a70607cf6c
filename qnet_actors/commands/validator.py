"""`qnet validator`: a place in the committee, and a stopped validator's data directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qnet_actors.commands import wallet
from qnet_actors.commands.amounts import parse_amount
from qnet_actors.commands.chain import open_client, show_transaction
from qnet_actors.commands.options import (
    AMOUNT_HELP,
    JsonOption,
    PassphraseFile,
    Stage,
    TimeoutOption,
    UrlOption,
    WaitOption,
)
from qnet_actors.commands.output import emit, reported, say

if TYPE_CHECKING:
    from qnet_actors.client import Client
    from qnet_actors.crypto import Signer
    from qnet_actors.wire.transactions import Action

app = typer.Typer(
    no_args_is_help=True, help="A place in the committee; a stopped validator's data."
)

OwnerOption = Annotated[
    str, typer.Option("--from", help="The account that stakes: its key's name, or dev:N.")
]


@dataclass(frozen=True, slots=True)
class Sending:
    """How an action is sent: by whose key, how far it is waited for, and how it is shown."""

    owner: str
    wait: Stage
    timeout_s: float
    passphrase_file: Path | None
    as_json: bool

    def signer(self, client: Client, name: str | None = None) -> Signer:
        """That of the owner, or of another key by its name."""
        _, development = client.network()
        return wallet.load_signer(name or self.owner, self.passphrase_file, development)

    def send(self, client: Client, signer: Signer, action: Action) -> None:
        done = client.send(
            signer,
            action,
            wait=None if self.wait == "received" else self.wait,
            timeout_ms=round(self.timeout_s * 1_000),
        )
        show_transaction(done, self.as_json)


@app.command("register")
def register(
    validator: Annotated[
        str, typer.Argument(help="The validator's own key: its name, or dev-validator:N.")
    ],
    stake_: Annotated[str, typer.Option("--stake", help=AMOUNT_HELP)],
    owner: OwnerOption = "default",
    wait: WaitOption = "executed",
    timeout_s: TimeoutOption = 10.0,
    passphrase_file: PassphraseFile = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Become a validator from the next epoch on, or change its key.

    The validator's key signs that the account may register it, so both keys are needed here.
    """
    sending = Sending(owner, wait, timeout_s, passphrase_file, as_json)
    with reported(as_json), open_client(url) as client:
        from qnet_actors.wire.transactions import register_validator

        units = parse_amount(stake_)
        chain_id, _ = client.network()
        own, signer = sending.signer(client, validator), sending.signer(client)
        action = register_validator(own, chain_id, signer.key_id, units)
        sending.send(client, signer, action)


@app.command("stake")
def stake(
    amount: Annotated[str, typer.Argument(help=AMOUNT_HELP)],
    owner: OwnerOption = "default",
    wait: WaitOption = "executed",
    timeout_s: TimeoutOption = 10.0,
    passphrase_file: PassphraseFile = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add to a registered validator's stake, from the next epoch on."""
    sending = Sending(owner, wait, timeout_s, passphrase_file, as_json)
    with reported(as_json), open_client(url) as client:
        from qnet_actors.wire.transactions import Stake

        action = Stake(parse_amount(amount))
        sending.send(client, sending.signer(client), action)


@app.command("unstake")
def unstake(
    amount: Annotated[str, typer.Argument(help=f"{AMOUNT_HELP} 0: only pay out.")],
    owner: OwnerOption = "default",
    wait: WaitOption = "executed",
    timeout_s: TimeoutOption = 10.0,
    passphrase_file: PassphraseFile = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take stake back: all of it leaves the committee with the next epoch.

    It is held for some epochs more, in which it can still be punished; what was held long enough
    is paid out by the next call.
    """
    sending = Sending(owner, wait, timeout_s, passphrase_file, as_json)
    with reported(as_json), open_client(url) as client:
        from qnet_actors.wire.transactions import Unstake

        action = Unstake(parse_amount(amount))
        sending.send(client, sending.signer(client), action)


@app.command("approve")
def approve(
    changes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME=VALUE...", help="Parameters to change, such as round_delay_ms=80."
        ),
    ] = None,
    protocol_version: Annotated[
        int | None, typer.Option(help="The next version of the protocol.")
    ] = None,
    owner: OwnerOption = "default",
    wait: WaitOption = "executed",
    timeout_s: TimeoutOption = 10.0,
    passphrase_file: PassphraseFile = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Approve other rules for the next epoch, as an owner of the present committee's stake.

    They are the present rules with these changes, and come once owners of a quorum of the stake
    approved the same in one epoch. An approval that is executed in a later epoch does nothing.
    Approve without a change to take an approval back.
    """
    sending = Sending(owner, wait, timeout_s, passphrase_file, as_json)
    with reported(as_json), open_client(url) as client:
        from qnet_actors.commands.approving import changed_rules, spelled
        from qnet_actors.wire.transactions import Approve

        present = client.validators()
        rules = changed_rules(present.rules, changes or [], protocol_version)
        # All values are approved, also those that only the gateway named.
        say(f"approves in epoch {present.epoch} {spelled(rules)}")
        sending.send(client, sending.signer(client), Approve(present.epoch, rules))


@app.command("resync")
def resync(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Its data directory, such as data/validator-2.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Set a stopped validator's ledger aside; the next start takes it from its peers.

    For damaged data, or after a halt because a quorum certified another block.  What it has signed
    is kept, so it signs nothing twice. Delete the directory that was set aside when nobody needs
    it any more.
    """
    with reported(as_json):
        from qnet_actors.network.directory import set_ledger_aside

        result = {"directory": str(directory), "set_aside": str(set_ledger_aside(directory))}
        emit(result, as_json, lambda: iter(result.items()))
