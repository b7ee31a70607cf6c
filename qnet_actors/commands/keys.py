"""`qnet key`: the encrypted keys in QNET_HOME."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import typer

from qnet_actors.commands import wallet
from qnet_actors.commands.options import JsonOption, PassphraseFile
from qnet_actors.commands.output import emit, reported

app = typer.Typer(no_args_is_help=True, help="Keys: make one, show its addresses, list them.")

Name = Annotated[str, typer.Argument(help="The key's name, or dev:N for a development key.")]
SchemeName = Literal["ml-dsa-44", "ml-dsa-65", "ml-dsa-87", "ed25519"]


@app.command("new")
def new(
    name: Name,
    scheme: Annotated[SchemeName, typer.Option(help="The signature scheme.")] = "ml-dsa-65",
    passphrase_file: PassphraseFile = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and keep it encrypted (mode 0600).

    There is no way back to a key whose file or passphrase is lost. Networks take ML-DSA-65 unless
    their genesis says otherwise.
    """
    with reported(as_json):
        import secrets

        from qnet_actors.crypto import select_provider, write_keystore
        from qnet_actors.crypto.key_pair import SEED_BYTES
        from qnet_actors.wire.schemes import Scheme

        path = wallet.key_path(name)
        passphrase = wallet.ask_passphrase(passphrase_file, confirm=True)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        chosen = Scheme[scheme.upper().replace("-", "_")]
        pair = select_provider().provider.generate(chosen, secrets.token_bytes(SEED_BYTES))
        write_keystore(path, pair, passphrase)
        _show(name, as_json)


@app.command("show")
def show(name: Name, as_json: JsonOption = False) -> None:
    """Show a key's scheme, key id and addresses; needs no passphrase."""
    with reported(as_json):
        _show(name, as_json)


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """List the keys of QNET_HOME."""
    with reported(as_json):
        keys = [_identity(name) for name in wallet.key_names()]

        def lines() -> Iterator[tuple[str, Any]]:
            for key in keys:
                yield key["name"], key["address"]

        emit({"keys": keys}, as_json, lines)


def _identity(name: str) -> dict[str, str]:
    from qnet_actors.wire.address import encode_address
    from qnet_actors.wire.schemes import Scheme

    scheme, _, key_id = wallet.public_identity(name)
    return {
        "name": name,
        "scheme": Scheme(scheme).name.lower(),
        "key_id": key_id.hex(),
        "address": encode_address(key_id, development=False),
        "development_address": encode_address(key_id, development=True),
    }


def _show(name: str, as_json: bool) -> None:
    identity = _identity(name)
    emit(
        identity,
        as_json,
        lambda: ((label.replace("_", " "), value) for label, value in identity.items()),
    )
