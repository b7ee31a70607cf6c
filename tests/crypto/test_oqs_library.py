"""Looking for liboqs never starts liboqs-python's own clone and build."""

from __future__ import annotations

import ctypes.util
import importlib.abc
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from qnet_actors.crypto.providers import oqs_library
from qnet_actors.wire.codes import Code, QnetError


@pytest.fixture
def bare_machine(monkeypatch, tmp_path):
    """A machine without liboqs, where starting any program fails the test."""

    def refuse(*arguments, **_):
        pytest.fail(f"a program was started: {arguments}")

    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("OQS_INSTALL_PATH", raising=False)
    monkeypatch.delenv("PYOQS_VERSION", raising=False)
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    monkeypatch.setattr(subprocess, "run", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    for name in [name for name in sys.modules if name.partition(".")[0] == "oqs"]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


def put_library(folder: Path, source: Path | None) -> Path:
    path = folder / "lib" / "liboqs.so"
    path.parent.mkdir(parents=True)
    if source is None:
        path.write_bytes(b"not a library")
    else:
        shutil.copy(source, path)
    return path


def some_library() -> Path:
    """A shared library that loads, but is not liboqs."""
    import _ctypes

    return Path(_ctypes.__file__)


class NoImport(importlib.abc.MetaPathFinder):
    """Fails the test when `oqs` is imported."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        assert fullname != "oqs", "oqs was imported without its library"


def test_without_a_library_the_package_is_not_imported(bare_machine, monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [NoImport(), *sys.meta_path])
    with pytest.raises(QnetError) as missing:
        oqs_library.load_oqs()
    assert missing.value.code == Code.PROVIDER_MISSING
    assert "install-liboqs" in missing.value.detail


def test_the_order_of_search(bare_machine, monkeypatch):
    assert oqs_library.find_library() is None
    home = put_library(bare_machine / "home" / "_oqs", some_library())
    assert oqs_library.find_library() == (bare_machine / "home" / "_oqs", str(home))
    configured = put_library(bare_machine / "configured", some_library())
    monkeypatch.setenv("OQS_INSTALL_PATH", str(bare_machine / "configured"))
    assert oqs_library.find_library() == (bare_machine / "configured", str(configured))
    put_library(bare_machine / "prefix" / "liboqs", None)
    assert oqs_library.find_library() == (bare_machine / "configured", str(configured))
    monkeypatch.delenv("OQS_INSTALL_PATH")
    home.unlink()
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: str(configured))
    assert oqs_library.find_library() == (None, str(configured))


def test_a_library_that_is_not_liboqs_is_refused_in_silence(bare_machine, capfd):
    put_library(bare_machine / "prefix" / "liboqs", some_library())
    before = dict(os.environ)
    with pytest.raises(QnetError) as missing:
        oqs_library.load_oqs()
    assert missing.value.code == Code.PROVIDER_MISSING
    assert "does not go with liboqs-python" in missing.value.detail
    assert dict(os.environ) == before
    assert capfd.readouterr() == ("", "")


def test_the_installer_stays_shut_even_when_the_library_vanishes(bare_machine, monkeypatch, capfd):
    gone = bare_machine / "gone"
    monkeypatch.setattr(oqs_library, "find_library", lambda: (gone, str(gone / "liboqs.so")))
    with pytest.raises(QnetError) as missing:
        oqs_library.load_oqs()
    assert missing.value.code == Code.PROVIDER_MISSING
    assert capfd.readouterr() == ("", "")
