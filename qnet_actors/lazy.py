"""What a package offers is loaded when it is first asked for: importing one name costs no other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy(package: str, modules: Mapping[str, tuple[str, ...]]) -> Callable[[str], Any]:
    """The `__getattr__` of a package (PEP 562), from its modules and what it offers of each.

    A name is written as in an import: "name", or "name as offered".
    """
    homes: dict[str, tuple[str, str]] = {}
    for module, names in modules.items():
        for entry in names:
            name, _, offered = entry.partition(" as ")
            homes[offered or name] = module, name

    def load(offered: str) -> Any:
        if offered not in homes:
            raise AttributeError(f"module {package!r} has no attribute {offered!r}")
        module, name = homes[offered]
        return getattr(import_module(f"{package}.{module}"), name)

    return load
