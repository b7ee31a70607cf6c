"""Where compiled kernels are kept, how they are declared, and how all are made ready.

numba keeps a compiled function beside a hash of the one file that it stands in; it does not see
that a function of another file, which was compiled into it, has changed.  So the directory's name
holds a hash of every kernel source, with numba's version and the processor's name.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import pkgutil
import shutil
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

from qnet_actors.wire.codes import Code, QnetError

F = TypeVar("F", bound=Callable[..., Any])

_PACKAGE: Final = Path(__file__).parents[1]
_DIRECTORIES_KEPT: Final = 8
ENVIRONMENT_VARIABLE: Final = "QNET_CACHE"


def cache_root() -> Path:
    """`$QNET_CACHE`, or `~/.cache/qnet`."""
    configured = os.environ.get(ENVIRONMENT_VARIABLE)
    return Path(configured) if configured else Path.home() / ".cache" / "qnet"


def source_digest() -> str:
    """A hash over every source of the package that names numba or stands among the kernels."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        source = path.read_bytes()
        if path.parent == Path(__file__).parent or b"numba" in source:
            digest.update(str(path.relative_to(_PACKAGE)).encode() + b"\0")
            digest.update(hashlib.sha256(source).digest())
    return digest.hexdigest()


@cache
def use_cache() -> Path:
    """Points numba at the directory of these kernels, creating it; once a process.

    Raises `QnetError(CONFIGURATION_INVALID)` where the directory cannot be made or belongs to
    another user: what lies in it is loaded as code.
    """
    import llvmlite.binding
    import numba

    identity = f"{source_digest()}|{numba.__version__}|{llvmlite.binding.get_host_cpu_name()}"
    root = cache_root() / "kernels"
    directory = root / hashlib.sha256(identity.encode()).hexdigest()[:20]
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.utime(directory)
        owner = directory.stat().st_uid
    except OSError as error:
        raise QnetError(
            Code.CONFIGURATION_INVALID,
            f"the kernel cache {directory} cannot be used ({error.strerror}); "
            f"set {ENVIRONMENT_VARIABLE} to a directory of your own",
        ) from error
    if owner != os.getuid():
        raise QnetError(
            Code.CONFIGURATION_INVALID,
            f"the kernel cache {directory} belongs to another user; "
            f"set {ENVIRONMENT_VARIABLE} to a directory of your own",
        )
    _prune(root)
    # numba reads its environment anew whenever that has changed, so both are set.
    os.environ["NUMBA_CACHE_DIR"] = str(directory)
    numba.config.CACHE_DIR = str(directory)  # type: ignore[attr-defined]
    return directory


def _prune(root: Path) -> None:
    """Removes the directories of older sources, but for the ones used last."""
    directories = sorted(root.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for directory in directories[_DIRECTORIES_KEPT:]:
        shutil.rmtree(directory, ignore_errors=True)


def kernel(*signatures: str, **options: Any) -> Callable[[F], F]:
    """Declares a compiled function: cached on disk, without the GIL, without Python's errors.

    With `signatures` (numba type strings) it is compiled, or loaded from the cache, where it is
    defined, and takes these types only; an argument of another type raises TypeError.
    """
    import numba

    use_cache()
    options = {"cache": True, "nogil": True, "error_model": "numpy"} | options
    # numba's declared types know no list of signatures beside options in a mapping.
    njit: Any = numba.njit

    def declare(function: F) -> F:
        compiled: F = njit(list(signatures) or None, **options)(function)
        return compiled

    return declare


def kernel_modules() -> list[str]:
    """The full names of the kernel modules, sorted."""
    names = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])]
    return [f"qnet_actors.kernels.{name}" for name in sorted(names) if name != "cache"]


def warm(progress: Callable[[str, float], None] | None = None) -> None:
    """Compiles, or loads from the cache, every kernel; `progress` is told (module, seconds)."""
    for name in kernel_modules():
        started = time.perf_counter()
        importlib.import_module(name).warm()
        if progress is not None:
            progress(name, time.perf_counter() - started)
