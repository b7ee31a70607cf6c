"""The scripts are sound as files, and scripts/install refuses and skips when it should."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = sorted(
    path
    for path in [*(ROOT / "scripts").iterdir(), ROOT / ".ci" / "run"]
    if path.is_file() and not path.suffix
)
BASH = [path for path in COMMANDS if path.read_text().startswith("#!/usr/bin/env bash\n")]


def name(path: Path) -> str:
    return path.name


def install(root: Path, path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the scripts/install of `root` with nothing of our own environment but `path`."""
    return subprocess.run(
        [str(root / "scripts" / "install")],
        env={"PATH": str(path), **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    root = tmp_path / "a clone"
    shutil.copytree(ROOT / "scripts", root / "scripts")
    (root / "requirements.lock").write_text("nothing==1 --hash=sha256:00\n")
    return root


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """The commands scripts/install may use, and no Python."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for tool in ["bash", "env", "dirname", "mkdir", "sha256sum", "uname", "df", "awk"]:
        found = shutil.which(tool)
        assert found is not None
        (folder / tool).symlink_to(found)
    return folder


def fake(folder: Path, command: str, script: str) -> None:
    path = folder / command
    path.unlink(missing_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{script}\n")
    path.chmod(0o755)


def test_the_commands_a_newcomer_is_told_of_exist() -> None:
    expected = {"install", "install-liboqs", "qnet", "run", "test", "check", "lock"}
    assert expected <= {path.name for path in COMMANDS}


@pytest.mark.parametrize("path", COMMANDS, ids=name)
def test_is_executable_and_says_how_to_run_it(path: Path) -> None:
    assert os.access(path, os.X_OK)
    assert path.read_text().startswith("#!/usr/bin/env ")


@pytest.mark.parametrize("path", BASH, ids=name)
def test_is_valid_strict_bash(path: Path) -> None:
    subprocess.run(["bash", "-n", str(path)], check=True, capture_output=True)
    assert "\nset -euo pipefail\n" in path.read_text()


@pytest.mark.parametrize("path", BASH, ids=name)
def test_ends_no_process_by_name(path: Path) -> None:
    text = path.read_text()
    assert not any(command in text for command in ("pkill", "killall", "ray stop"))


def test_ci_runs_what_developers_run() -> None:
    assert "./scripts/test" in (ROOT / ".ci" / "run").read_text()


def test_install_refuses_a_machine_without_python(clone: Path, tools: Path) -> None:
    result = install(clone, tools)
    assert result.returncode == 2
    assert "found no Python 3.11, 3.12 or 3.13" in result.stderr
    assert result.stdout == ""
    assert not (clone / ".venv").exists()


def test_install_refuses_a_python_that_is_too_old(clone: Path, tools: Path) -> None:
    fake(tools, "python3", "exit 1")
    result = install(clone, tools, PYTHON="python3")
    assert result.returncode == 2
    assert "(tried: python3)" in result.stderr


def test_install_refuses_a_python_without_venv(clone: Path, tools: Path) -> None:
    fake(tools, "python3", "[[ $2 != *ensurepip* ]]")
    result = install(clone, tools)
    assert result.returncode == 2
    assert "python3-venv" in result.stderr


def test_install_refuses_a_full_disk(clone: Path, tools: Path) -> None:
    fake(tools, "python3", "exit 0")
    fake(tools, "df", "echo 'Filesystem 1M Used Available'; echo '/dev/x 9000 8900 100'")
    result = install(clone, tools)
    assert result.returncode == 2
    assert "found 100 MB" in result.stderr
    assert not (clone / ".venv").exists()


def test_install_does_nothing_when_the_environment_is_what_the_lock_says(
    clone: Path, tools: Path
) -> None:
    digest = hashlib.sha256((clone / "requirements.lock").read_bytes()).hexdigest()
    fake(tools, "python3", "exit 0")
    (clone / ".venv" / "bin").mkdir(parents=True)
    (clone / ".venv" / "bin" / "python").symlink_to(tools / "python3")
    (clone / ".venv" / "qnet-stamp").write_text(f"{digest}  - {clone}\n")

    result = install(clone, tools)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert not (clone / ".venv.lock").exists()

    # Another lock is another environment: it looks for a Python again.
    (clone / "requirements.lock").write_text("nothing==2 --hash=sha256:00\n")
    (tools / "python3").unlink()
    assert install(clone, tools).returncode == 2


def test_install_keeps_out_of_the_root_folder_without_a_home(clone: Path, tools: Path) -> None:
    install(clone, tools, HOME="")
    assert (clone / ".cache" / "home").is_dir()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the first argument is the machine's name"),
        (["a,ray.io/node-id=b", "--head"], "the first argument is the machine's name"),
        (["--head"], "the first argument is the machine's name"),
        (["a"], "say --head on the first machine"),
    ],
)
def test_cluster_node_wants_a_name_and_a_cluster(arguments: list[str], message: str) -> None:
    done = subprocess.run(
        [str(ROOT / "scripts" / "cluster-node"), *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert message in done.stderr


def test_a_command_imports_nothing_from_where_it_is_called(tmp_path: Path) -> None:
    """It reads keys, and who calls it may stand among somebody else's files."""
    (tmp_path / "typer.py").write_text("raise SystemExit('taken from the working directory')\n")
    done = subprocess.run(
        [str(ROOT / "scripts" / "qnet"), "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "validator" in done.stdout
