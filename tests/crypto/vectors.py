"""Published vectors, as the package `cryptography-vectors` carries them."""

from __future__ import annotations

from collections.abc import Iterator

import cryptography_vectors


def records(path: str) -> Iterator[dict[str, bytes]]:
    """The blocks of a `.rsp` file under `asymmetric/`, their hexadecimal fields as bytes."""
    fields: dict[str, bytes] = {}
    with cryptography_vectors.open_vector_file(f"asymmetric/{path}", "r") as file:
        for line in file:
            name, separator, value = line.partition("=")
            name = name.strip()
            if not separator or name in {"mlen", "smlen"}:
                continue
            if name == "count":
                if fields:
                    yield fields
                fields = {}
            else:
                fields[name] = bytes.fromhex(value.strip())
    if fields:
        yield fields
