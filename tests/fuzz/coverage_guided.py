"""One harness under atheris: `python -m tests.fuzz.coverage_guided NAME [libFuzzer options]`.

scripts/fuzz installs atheris and runs this.  Decoding itself is native code and has no coverage;
what is watched is the Python around it.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from qnet_actors.kernels.cache import kernel_modules


def main(atheris: Any, name: str, arguments: list[str]) -> None:
    """Runs until the time in `arguments` is over; a `Broken` ends it with the input in a file."""
    # Imported before, they stay as they are: instrumented bytecode does not compile.
    for module in kernel_modules():
        import_module(module)
    with atheris.instrument_imports(include=["qnet_actors"], enable_loader_override=False):
        from tests.fuzz.harnesses import BY_NAME
        from tests.fuzz.within import scratch

    harness = BY_NAME[name]
    corpus = scratch() / name
    corpus.mkdir()
    for number, seed in enumerate(harness.seeds()):
        (corpus / str(number)).write_bytes(seed)
    found = Path("results/fuzz")
    found.mkdir(parents=True, exist_ok=True)
    prefix = f"-artifact_prefix={found}/{name}-"
    atheris.Setup([sys.argv[0], *arguments, prefix, str(corpus)], harness.takes)
    atheris.Fuzz()


if __name__ == "__main__":
    main(import_module("atheris"), sys.argv[1], sys.argv[2:])
