"""The keystore: round trips, what it refuses, and that it tells nothing."""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from qnet_actors.crypto import (
    KeyPair,
    development_key,
    keystore,
    read_keystore,
    read_keystore_header,
    read_passphrase,
    simulator_provider,
    write_keystore,
)
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.schemes import Scheme

PASSPHRASE = b"correct horse"
PAIR = development_key("account", 1)


@pytest.fixture
def path(tmp_path):
    """A keystore with the cheapest derivation that is accepted."""
    path = tmp_path / "key.json"
    write_keystore(path, PAIR, PASSPHRASE, log2_n=14)
    return path


def refusal(call: Callable[[], object]) -> QnetError:
    with pytest.raises(QnetError) as refused:
        call()
    return refused.value


def test_round_trip(path):
    assert read_keystore(path, PASSPHRASE) == PAIR
    header = read_keystore_header(path)
    assert (header.scheme, header.public_key) == (PAIR.scheme, PAIR.public_key)


def test_every_scheme_is_kept(tmp_path):
    for scheme in (Scheme.ED25519, Scheme.HYBRID_ED25519_ML_DSA_65):
        pair = development_key("account", 1, scheme)
        write_keystore(tmp_path / scheme.name, pair, PASSPHRASE, log2_n=14)
        assert read_keystore(tmp_path / scheme.name, PASSPHRASE) == pair


def test_the_default_cost_is_128_mib(tmp_path):
    write_keystore(tmp_path / "key.json", PAIR, PASSPHRASE)
    parameters = read_keystore_header(tmp_path / "key.json").scrypt
    assert 128 * parameters.r * 2**parameters.log2_n == 128 * 2**20


def test_two_keystores_of_one_key_share_nothing_secret(path, tmp_path):
    write_keystore(tmp_path / "other.json", PAIR, PASSPHRASE, log2_n=14)
    one, two = (json.loads(p.read_text()) for p in (path, tmp_path / "other.json"))
    assert one["ciphertext"] != two["ciphertext"]
    assert one["header"]["nonce"] != two["header"]["nonce"]
    assert one["header"]["scrypt"]["salt"] != two["header"]["scrypt"]["salt"]


def test_the_secret_is_not_in_the_file(path):
    content = path.read_bytes()
    for form in (PAIR.secret, PAIR.secret.hex().encode(), base64.b64encode(PAIR.secret)):
        assert form not in content


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o377])
def test_mode_is_0600_whatever_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_keystore(tmp_path / "key.json", PAIR, PASSPHRASE, log2_n=14)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key.json").stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["key.json"]


def test_a_keystore_is_never_overwritten(path):
    before = path.read_bytes()
    other = development_key("account", 2)
    error = refusal(lambda: write_keystore(path, other, PASSPHRASE, log2_n=14))
    assert error.code == Code.KEYSTORE_EXISTS
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["key.json"]


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_keystore(tmp_path / "key.json", PAIR, PASSPHRASE, log2_n=14)
    assert os.listdir(tmp_path) == []


def test_file_and_folder_reach_the_disk(tmp_path, monkeypatch):
    synced = []
    real = os.fsync

    def record(descriptor):
        synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    write_keystore(tmp_path / "key.json", PAIR, PASSPHRASE, log2_n=14)
    assert synced == [False, True]


def test_a_wrong_passphrase_tells_nothing(path):
    wrong = refusal(lambda: read_keystore(path, b"wrong horse"))
    assert wrong.code == Code.BAD_PASSPHRASE
    document = json.loads(path.read_text())
    flipped = bytearray(base64.b64decode(document["ciphertext"]))
    flipped[0] ^= 1
    document["ciphertext"] = base64.b64encode(flipped).decode()
    path.write_text(json.dumps(document))
    altered = refusal(lambda: read_keystore(path, PASSPHRASE))
    assert (altered.code, altered.detail) == (wrong.code, wrong.detail)
    assert "horse" not in str(wrong)
    assert wrong.__cause__ is None


def test_the_header_is_authenticated(path):
    original = path.read_text()
    other = development_key("account", 2)
    changes: dict[str, Callable[[dict[str, Any]], None]] = {
        "public_key": lambda header: header.update(
            public_key=base64.b64encode(other.public_key).decode()
        ),
        "nonce": lambda header: header.update(nonce=base64.b64encode(bytes(12)).decode()),
        "salt": lambda header: header["scrypt"].update(salt=base64.b64encode(bytes(32)).decode()),
        "cost": lambda header: header["scrypt"].update(log2_n=15),
        "parallelism": lambda header: header["scrypt"].update(p=2),
    }
    for change in changes.values():
        document = json.loads(original)
        change(document["header"])
        path.write_text(json.dumps(document))
        error = refusal(lambda: read_keystore(path, PASSPHRASE))
        assert error.code == Code.BAD_PASSPHRASE
    document = json.loads(original)
    document["header"] = dict(reversed(document["header"].items()))
    path.write_text(json.dumps(document, indent=7))
    assert read_keystore(path, PASSPHRASE) == PAIR, "layout of the file does not matter"


@pytest.mark.parametrize(
    "parameters",
    [
        {"log2_n": 20},
        {"log2_n": 63},
        {"log2_n": 10**30},
        {"log2_n": 13},
        {"log2_n": -1},
        {"log2_n": 14.5},
        {"r": 9},
        {"r": 0},
        {"r": 2**30},
        {"p": 0},
        {"p": 5},
        {"p": 2**30},
        {"salt": ""},
        {"extra": 1},
    ],
    ids=str,
)
def test_other_scrypt_parameters_are_refused_before_any_work(path, monkeypatch, parameters):
    document = json.loads(path.read_text())
    document["header"]["scrypt"].update(parameters)
    path.write_text(json.dumps(document))
    monkeypatch.setattr(keystore, "Scrypt", lambda **_: pytest.fail("the derivation ran"))
    assert refusal(lambda: read_keystore(path, PASSPHRASE)).code == Code.KEYSTORE_MALFORMED


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"version": True},
        {"scheme": 77},
        {"scheme": 255},
        {"scheme": 3},
        {"kdf": "none"},
        {"cipher": "none"},
        {"nonce": ""},
        {"public_key": ""},
        {"public_key": "%"},
        {"extra": 1},
    ],
    ids=str,
)
def test_other_headers_are_refused(path, change):
    document = json.loads(path.read_text())
    document["header"].update(change)
    path.write_text(json.dumps(document))
    for read in (partial(read_keystore_header, path), partial(read_keystore, path, PASSPHRASE)):
        assert refusal(read).code == Code.KEYSTORE_MALFORMED


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 60_000,
        b'{"header": {}, "ciphertext": ""}',
        b" " * (keystore.FILE_BYTES_MAX + 1),
    ],
    ids=["empty", "object", "array", "null", "not text", "deep", "hollow", "too large"],
)
def test_other_files_are_refused(path, content):
    path.write_bytes(content)
    assert refusal(lambda: read_keystore(path, PASSPHRASE)).code == Code.KEYSTORE_MALFORMED


def test_a_missing_file_and_a_folder(tmp_path):
    assert refusal(lambda: read_keystore(tmp_path / "none", PASSPHRASE)).code == Code.NOT_FOUND
    assert refusal(lambda: read_keystore(tmp_path, PASSPHRASE)).code == Code.KEYSTORE_MALFORMED


def test_what_is_not_kept(tmp_path):
    path = tmp_path / "key.json"
    simulated = simulator_provider().generate(Scheme.KEYED_HASH, bytes(32))
    mismatched = KeyPair(PAIR.scheme, PAIR.public_key, bytes(32))
    refused: tuple[tuple[Callable[[], object], Code], ...] = (
        (lambda: write_keystore(path, simulated, PASSPHRASE), Code.SCHEME_REFUSED),
        (lambda: write_keystore(path, mismatched, PASSPHRASE), Code.INVALID_PARAMETER),
        (lambda: write_keystore(path, PAIR, PASSPHRASE, log2_n=13), Code.INVALID_PARAMETER),
        (lambda: write_keystore(path, PAIR, PASSPHRASE, log2_n=20), Code.INVALID_PARAMETER),
        (lambda: write_keystore(path, PAIR, b""), Code.BAD_PASSPHRASE),
        (lambda: write_keystore(path, PAIR, bytes(1025)), Code.BAD_PASSPHRASE),
        (lambda: read_keystore(path, b""), Code.BAD_PASSPHRASE),
    )
    for call, code in refused:
        assert refusal(call).code == code
    assert os.listdir(tmp_path) == []


def test_the_passphrase_comes_from_a_file_or_the_environment(tmp_path):
    file = tmp_path / "passphrase"
    for content in (b"open sesame", b"open sesame\n", b"open sesame\r\n"):
        file.write_bytes(content)
        environment = {"QNET_PASSPHRASE_FILE": str(file), "QNET_PASSPHRASE": "another"}
        assert read_passphrase(environment) == b"open sesame"
    file.write_bytes(b" two lines \n\n")
    assert read_passphrase({"QNET_PASSPHRASE_FILE": str(file)}) == b" two lines \n"
    assert read_passphrase({"QNET_PASSPHRASE": "öffne"}) == "öffne".encode()
    file.write_bytes(b"x" * 1024 + b"\r\n")
    assert read_passphrase({"QNET_PASSPHRASE_FILE": str(file)}) == b"x" * 1024


def test_passphrases_that_are_refused(tmp_path, monkeypatch):
    file = tmp_path / "passphrase"
    file.write_bytes(b"x" * 1025)
    empty = tmp_path / "empty"
    empty.write_bytes(b"\n")
    for environment in (
        {},
        {"QNET_PASSPHRASE": ""},
        {"QNET_PASSPHRASE_FILE": str(tmp_path / "none")},
        {"QNET_PASSPHRASE_FILE": str(tmp_path)},
        {"QNET_PASSPHRASE_FILE": str(file)},
        {"QNET_PASSPHRASE_FILE": str(empty)},
    ):
        error = refusal(partial(read_passphrase, environment))
        assert error.code == Code.BAD_PASSPHRASE
        assert "xxx" not in str(error)
    monkeypatch.setenv("QNET_PASSPHRASE", "from the process")
    monkeypatch.delenv("QNET_PASSPHRASE_FILE", raising=False)
    assert read_passphrase() == b"from the process"
