"""The `qnet` command."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from qnet_actors import __version__
from qnet_actors.commands import bench, chain, config, dev, keys, sim, validator

HELP = """A post-quantum ledger: run a network, hold keys, send and look things up.

Results go to stdout, one JSON object with --json; everything else goes to stderr. Exit codes: 0
done, 1 refused or failed, 2 wrong usage, 3 no gateway answers, 4 waited in vain, 5 a key or
passphrase does not serve, 130 interrupted. QNET_URL names the gateway, QNET_HOME the folder of
keys (~/.qnet).
"""

app = typer.Typer(
    name="qnet",
    help=HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """What stands before a command."""


app.command("dev")(dev.dev)
app.command("status")(chain.status)
app.command("balance")(chain.balance)
app.command("send")(chain.send)
app.command("tx")(chain.transaction)
app.command("block")(chain.block)
app.add_typer(bench.app, name="bench")
app.command("sim")(sim.sim)
app.add_typer(keys.app, name="key")
app.add_typer(config.app, name="config")
app.add_typer(validator.app, name="validator")


def main() -> None:
    """Runs the command; faults of the program itself are the only tracebacks."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
