"""Options that several commands have, with one name, one help text and one meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

import typer

AMOUNT_HELP: Final = 'QNET, as "1.5"; or "1500000000units".'
# What an option in floating point is held to: infinity is neither a rate nor a time.
RATE_MAX: Final = 1_000_000
SECONDS_MAX: Final = 86_400

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object, errors included.")]
UrlOption = Annotated[
    str | None,
    typer.Option("--url", envvar="QNET_URL", help="The gateway.", show_default=False),
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        help="Read the passphrase from this file. Else QNET_PASSPHRASE_FILE, QNET_PASSPHRASE, or "
        "a question on the terminal.",
        show_default=False,
    ),
]
Stage = Literal["received", "batched", "executed", "final"]
WaitOption = Annotated[Stage, typer.Option(help="Return when it has come so far.")]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", min=0, max=SECONDS_MAX, help="Seconds to wait for the stage.")
]
Provider = Literal["auto", "openssl", "liboqs"]
ProviderOption = Annotated[Provider, typer.Option(help="What signs and verifies.")]
