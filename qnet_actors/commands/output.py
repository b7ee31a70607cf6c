"""What commands print and how they end: results on stdout, all else on stderr, stable exit codes.

0 done; 1 refused or failed; 2 wrong usage; 3 no gateway answers; 4 the wait was over before the
transaction had come so far; 5 a key or passphrase does not serve; 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn

import msgspec
import typer

from qnet_actors.durable import named_faults
from qnet_actors.wire.codes import Code, QnetError

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
TIMED_OUT: Final = 4
BAD_KEY: Final = 5

_EXIT_CODES: Final = {
    Code.INVALID_PARAMETER: USAGE,
    Code.BAD_ADDRESS: USAGE,
    Code.CONFIGURATION_INVALID: USAGE,
    Code.NODE_UNREACHABLE: UNREACHABLE,
    Code.NOT_READY: UNREACHABLE,
    Code.WAIT_TIMEOUT: TIMED_OUT,
    Code.BAD_PASSPHRASE: BAD_KEY,
    Code.KEYSTORE_MALFORMED: BAD_KEY,
    Code.KEYSTORE_EXISTS: BAD_KEY,
    Code.DEVELOPMENT_KEY_REFUSED: BAD_KEY,
}


def exit_code(error: QnetError) -> int:
    """The exit code that stands for a refusal."""
    return _EXIT_CODES.get(error.code, FAILED)


def say(text: str) -> None:
    """A line for the person, on stderr."""
    typer.echo(text, err=True)


def emit(value: Any, as_json: bool, lines: Callable[[], Iterator[tuple[str, Any]]]) -> None:
    """Prints a result: one JSON object, or a line for each of its parts."""
    if as_json:
        typer.echo(msgspec.json.encode(value))
        return
    rows = list(lines())
    width = max((len(name) for name, _ in rows), default=0)
    for name, part in rows:
        typer.echo(f"{name:<{width}}  {part}")


def fields(value: Any, *names: str) -> Iterator[tuple[str, Any]]:
    """Fields of a result as lines; those that are None are left out."""
    for name in names:
        part = getattr(value, name)
        if part is not None:
            yield name.replace("_", " "), part


@contextmanager
def reported(as_json: bool) -> Iterator[None]:
    """Ends the command with a message and an exit code where it is refused."""
    try:
        with named_faults():
            yield
    except QnetError as error:
        fail(error, as_json)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except BrokenPipeError:
        # Whoever read our output has enough; a second message would fail as well.
        sys.stderr.close()
        raise typer.Exit(FAILED) from None


def fail(error: QnetError, as_json: bool) -> NoReturn:
    """Prints a refusal and ends the command."""
    if as_json:
        document = {"error": {"code": error.code.label, "detail": error.detail}}
        typer.echo(msgspec.json.encode(document))
    say(f"qnet: {error.code.label}: {error.detail}")
    raise typer.Exit(exit_code(error)) from None
