"""What the packages offer: every name that they list, and nothing else."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest

import qnet_actors

ROOT = Path(qnet_actors.__file__).parent
PACKAGES = sorted(
    path.parent.name for path in ROOT.glob("*/__init__.py") if "= lazy(" in path.read_text()
)


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_offers_what_it_lists_and_what_type_checkers_see(name):
    package = import_module(f"qnet_actors.{name}")
    seen = {}
    for node in ast.walk(ast.parse((ROOT / name / "__init__.py").read_text())):
        if isinstance(node, ast.ImportFrom) and f"qnet_actors.{name}." in (node.module or ""):
            for alias in node.names:
                seen[alias.asname or alias.name] = (str(node.module), alias.name)
    assert sorted(seen) == sorted(package.__all__)
    for offered, (module, own_name) in seen.items():
        assert getattr(package, offered) is getattr(import_module(module), own_name)


def test_what_is_not_offered_is_no_attribute():
    assert len(PACKAGES) > 5
    for name in PACKAGES:
        with pytest.raises(AttributeError, match="no attribute 'nothing'"):
            import_module(f"qnet_actors.{name}").nothing  # noqa: B018
