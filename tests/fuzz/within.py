"""What a validator is told by its peers about snapshots, by its gateways, and by its own disk; and
what a gateway is told by validators, and a client by a gateway: as functions of bytes.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from qnet_actors.client import models
from qnet_actors.client.calls import (
    PROBLEM_TYPE,
    Call,
    Reply,
    decoder,
    exchange,
    problem_error,
    read_message,
)
from qnet_actors.commands.config import read_configuration
from qnet_actors.gateway import backend, events, queries
from qnet_actors.ledger.blocks import Identity
from qnet_actors.ledger.catchup import Refused, Rules
from qnet_actors.ledger.joining import Manifest, check_manifest, check_part
from qnet_actors.ledger.serving import read_part
from qnet_actors.network import directory, node, offences
from qnet_actors.rooms import Room, Submit, SubmitResult
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.messages import SnapshotRequest
from tests.ledger.rig import VERIFIER
from tests.ledger.test_joining import GENESIS, source
from tests.ledger.test_registry import report
from tests.mempool.test_admission import ALICE
from tests.mempool.world import Driver, make_driver


@cache
def scratch() -> Path:
    """A directory of this process, gone with it."""
    path = Path(tempfile.mkdtemp(prefix="qnet-fuzz-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def refused(answer: Refused | None) -> None:
    """A peer's answer that is passed over with a reason."""
    if answer is not None:
        raise QnetError(Code.BAD_CERTIFICATE, answer.reason)


# Snapshots


@cache
def parts() -> tuple[bytes, ...]:
    """The manifest of a certified snapshot, and its first section."""
    log = source()
    manifest = read_part(log, SnapshotRequest(0, 0))
    return manifest.data, read_part(log, SnapshotRequest(manifest.height, 1)).data


@cache
def rules() -> Rules:
    committee = GENESIS.committee()
    return Rules(Identity(GENESIS.chain_id(), committee.digest), committee, VERIFIER)


def manifest_of(data: bytes) -> Manifest | Refused:
    return check_manifest(rules(), data, GENESIS.parameters.gc_depth, 0)


def run_manifest(data: bytes) -> None:
    answer = manifest_of(data)
    refused(answer if isinstance(answer, Refused) else None)


@cache
def good_manifest() -> Manifest:
    manifest = manifest_of(parts()[0])
    assert isinstance(manifest, Manifest)
    return manifest


def run_section(data: bytes) -> None:
    refused(check_part(good_manifest(), 1, data))


def run_shard(data: bytes) -> None:
    """Where a peer's batch belongs is read before it is checked: never refuses."""
    node._author_shard(node._header_bytes(data))


# Between a gateway and its validators


class Validator:
    """Answers whatever it is asked."""

    index = 0

    async def submit(self, transactions: list[bytes]) -> list[backend.Result]:
        return [(int(Code.SUCCESS), bytes(32), "") for _ in transactions]

    async def query(self, request: queries.Query) -> queries.Answer:
        return queries.EvidenceAnswer(())

    async def poll(self, after: int, timeout_ms: int) -> tuple[int, list[bytes]]:
        return after, []


def at_once(work: Coroutine[Any, Any, bytes]) -> bytes:
    """The result of what waits for nothing."""
    try:
        work.send(None)
    except StopIteration as ended:
        result: bytes = ended.value
        return result
    raise AssertionError("it waits")


def run_call(data: bytes) -> None:
    """The first byte is the number of the call."""
    frames = backend.BackendFrames(Validator())
    answer = at_once(frames.answer(data[0] if data else 0, data[1:]))
    for codec in (queries.ANSWER_CODEC, queries.SUBMIT_ANSWER_CODEC, events.POLL_CODEC):
        try:
            found = codec.decode(answer)
        except QnetError:
            continue
        if isinstance(found, queries.Fault):
            raise QnetError(Code(found.code), found.detail)
        return
    raise AssertionError("no gateway could read the answer")


def call_seeds() -> list[bytes]:
    return [
        b"\x01" + encode(queries.SubmitFrame((ALICE.send(0),))),
        b"\x02" + encode(queries.StatusQuery()),
        b"\x03" + encode(events.PollFrame(2**40, 500)),
    ]


def answer_seeds() -> list[bytes]:
    return [encode(queries.EvidenceAnswer(())), encode(queries.Fault(int(Code.BUSY), "later"))]


def submit_answer_seeds() -> list[bytes]:
    taken = (int(Code.SUCCESS), bytes(32), "")
    return [encode(queries.SubmitAnswer((taken, (int(Code.BUSY), b"", "later"))))]


def poll_seeds() -> list[bytes]:
    return [encode(events.PollAnswer(2**40, (b"event",)))]


@cache
def empty_pool() -> Driver:
    return make_driver()


def run_pool(data: bytes) -> None:
    """One transaction as a pool takes it: the compiled reading first."""
    driver = empty_pool()
    driver.give(Submit(1, (data,)))
    ((code, _, detail),) = driver.sent.events(Room.GATEWAY, SubmitResult)[-1].results
    if code == Code.SUCCESS:
        empty_pool.cache_clear()
    else:
        if driver.shard.metrics.pool_transactions:
            raise AssertionError("what was refused was kept")
        raise QnetError(Code(code), detail)


def pool_seeds() -> list[bytes]:
    return [ALICE.send(0), ALICE.send(3, price=11)]


# A client of a gateway

MODELS = (
    models.Status,
    models.Account,
    models.Block,
    models.Transaction,
    models.Submission,
    models.Validators,
)


def run_reply(data: bytes) -> None:
    """The first byte says what was asked for."""
    decode: Callable[[bytes], Any] = decoder(MODELS[(data[0] if data else 0) % len(MODELS)])
    flow = exchange(Call("GET", "/"), decode, 0)
    next(flow)
    with suppress(StopIteration):
        flow.send(Reply(200, "application/json", None, data[1:]))


def run_refusal(data: bytes) -> None:
    """Whatever a gateway refuses with, there is a code."""
    problem_error(Reply(503, PROBLEM_TYPE, None, data))


def refusal_seeds() -> list[bytes]:
    return [b'{"code":"busy","detail":"later","status":503,"more":[{"a":[1]}]}']


def reply_seeds() -> list[bytes]:
    transaction = {"id": "00" * 32, "status": "executed", "block": None, "receipt": None}
    return [
        bytes([MODELS.index(models.Transaction)]) + msgspec.json.encode(transaction),
        bytes([MODELS.index(models.Submission)]) + b'{"results":[]}',
    ]


def run_message(data: bytes) -> None:
    read_message(data)


def message_seeds() -> list[bytes]:
    return [
        b'{"type":"final","height":"7","block_hash":"00"}',
        b'{"type":"missed","first_height":"1","last_height":"2","dropped":true}',
    ]


# Files


def run_offences(data: bytes) -> None:
    path = scratch() / "offences"
    path.write_bytes(data)
    kept = offences.OffenceFile(path).load()
    if kept and encode(offences.Offences(kept)) != data:
        raise AssertionError("what was decoded is written otherwise than it was read")


def offence_seeds() -> list[bytes]:
    return [encode(offences.Offences((report(1), report(2))))]


FILES = ("identity", "addresses", "machines", "shards")


def run_directory(data: bytes) -> None:
    """A small file of a data directory; the first byte says which."""
    path = scratch() / FILES[(data[0] if data else 0) % len(FILES)]
    path.write_bytes(data[1:])
    match path.name:
        case "identity":
            directory._known_version(path)
            directory._decode(directory._IDENTITY, path)
        case "addresses":
            directory._decode(directory._ENDPOINTS, path)
        case "machines":
            directory.known_machines(scratch())
        case "shards":
            directory._decode(directory._SHARDS, path)


def directory_seeds() -> list[bytes]:
    endpoint = directory.Endpoint(bytes(32), "127.0.0.1", 7_000)
    written = (
        directory._Identity(directory.FORMAT_VERSION, bytes(32), 1, 2**20),
        directory._Endpoints((endpoint, endpoint)),
        directory._Machines(("one", "two")),
        directory._Shards(4),
    )
    return [bytes([number]) + encode(value) for number, value in enumerate(written)]


def run_settings(data: bytes) -> None:
    path = scratch() / "net.toml"
    path.write_bytes(data)
    read_configuration(path)


def settings_seeds() -> list[bytes]:
    return [
        b'[network]\ndirectory = "kept"\nvalidators = 7\nkeep = { retention = "full" }\n',
        b"[gateway]\nwaits_max = 9\nclient_requests = { per_s = 5, burst = 9 }\n",
    ]
