"""Finding the liboqs shared library before `oqs` is imported.

Importing `oqs` without the library starts a clone and a build by itself, prints to standard output,
and ends the process when that fails.  So the library is looked for and loaded here first, and the
import is told of a version to install that does not exist, which makes its installer stop at once.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Final

from qnet_actors.wire.codes import Code, QnetError

_SUFFIX: Final = "dylib" if sys.platform == "darwin" else "so"
_INSTALL_VARIABLE: Final = "OQS_INSTALL_PATH"
_lock: Final = threading.Lock()


def find_library() -> tuple[Path | None, str] | None:
    """The install folder (None: the system loader) and the library's path or name.

    Looked for in this order: `<sys.prefix>/liboqs`, `$OQS_INSTALL_PATH`, the folder `_oqs` in the
    home directory where liboqs-python installs, and the system loader.  A file that does not load
    is passed over.
    """
    folders = [Path(sys.prefix) / "liboqs"]
    if configured := os.environ.get(_INSTALL_VARIABLE):
        folders.append(Path(configured))
    folders.append(Path.home() / "_oqs")
    for folder in folders:
        for library_folder in ("lib", "lib64"):
            path = folder / library_folder / f"liboqs.{_SUFFIX}"
            if path.is_file() and _loads(str(path)):
                return folder, str(path)
    name = ctypes.util.find_library("oqs")
    return (None, name) if name and _loads(name) else None


def load_oqs() -> tuple[ModuleType, str]:
    """The `oqs` module and the library that it stands on.

    Raises `QnetError(PROVIDER_MISSING)` when the library is absent, too old for the installed
    liboqs-python, or that package is not installed.
    """
    with _lock:
        found = find_library()
        if found is None:
            raise QnetError(
                Code.PROVIDER_MISSING,
                "liboqs is not on this machine; scripts/install-liboqs builds it",
            )
        folder, library = found
        try:
            with _import_environment(folder):
                import oqs
        except (ImportError, AttributeError, OSError, RuntimeError, ValueError, SystemExit) as why:
            raise QnetError(
                Code.PROVIDER_MISSING,
                f"liboqs at {library} does not go with liboqs-python ({type(why).__name__}); "
                "scripts/install-liboqs builds a version that does",
            ) from None
        return oqs, library


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


@contextmanager
def _import_environment(folder: Path | None) -> Iterator[None]:
    """Point the import at `folder`, keep it silent, and keep its installer from running."""
    # The module logs to standard output when imported, which would spoil a program's own output.
    logging.getLogger("oqs.oqs").disabled = True
    wanted = {"PYOQS_VERSION": "none: never install"}
    if folder is not None:
        wanted[_INSTALL_VARIABLE] = str(folder)
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        with warnings.catch_warnings():
            # A minor version apart is a warning there; the provider's self-test decides here.
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
