"""The kernel cache: where it lies, when it is another, and that every kernel module warms."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from qnet_actors.kernels import cache
from qnet_actors.wire.codes import Code, QnetError


def test_root_follows_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("QNET_CACHE", str(tmp_path / "elsewhere"))
    assert cache.cache_root() == tmp_path / "elsewhere"
    monkeypatch.delenv("QNET_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_root() == tmp_path / ".cache" / "qnet"


def test_digest_covers_kernels_and_whoever_names_numba(monkeypatch, tmp_path):
    package = tmp_path / "qnet_actors"
    (package / "crypto").mkdir(parents=True)
    (package / "wire").mkdir()
    kernel, other = package / "crypto" / "vectors.py", package / "wire" / "plain.py"
    kernel.write_text("import numba\nX = 1\n")
    other.write_text("X = 1\n")
    monkeypatch.setattr(cache, "_PACKAGE", package)
    before = cache.source_digest()
    other.write_text("X = 2\n")
    assert cache.source_digest() == before
    kernel.write_text("import numba\nX = 2\n")
    assert cache.source_digest() != before


def test_unusable_directory_is_refused_with_advice(monkeypatch, tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("")
    monkeypatch.setenv("QNET_CACHE", str(blocker))
    with pytest.raises(QnetError, match="QNET_CACHE") as caught:
        cache.use_cache.__wrapped__()
    assert caught.value.code is Code.CONFIGURATION_INVALID


def test_directory_of_another_user_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("QNET_CACHE", str(tmp_path))
    monkeypatch.setattr("os.getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(QnetError, match="another user"):
        cache.use_cache.__wrapped__()


def test_old_directories_are_pruned(tmp_path):
    import os

    for age in range(12):
        directory = tmp_path / f"d{age}"
        directory.mkdir()
        os.utime(directory, (1_000_000 - age, 1_000_000 - age))
    cache._prune(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {f"d{age}" for age in range(8)}


def test_warm_loads_every_kernel_module():
    seen: list[str] = []
    cache.warm(lambda name, seconds: seen.append(name) if seconds >= 0 else None)
    assert seen == cache.kernel_modules()


def test_importing_the_package_does_not_load_numba():
    code = "import qnet_actors.kernels.cache, sys; sys.exit('numba' in sys.modules)"
    root = Path(cache.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
