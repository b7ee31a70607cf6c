"""`qnet validator`: a validator's data directory, while it is stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qnet_actors.commands.output import JsonOption, emit, reported

app = typer.Typer(no_args_is_help=True, help="A stopped validator's data directory.")


@app.callback()
def _group() -> None:
    """What keeps a single command a command of a group."""


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
