"""Every decoder of what comes from outside, as a function of bytes.

A harness answers whether its decoder took the bytes.  It raises where the decoder breaks its
promise: with anything else than a `QnetError` of the codes that belong to it, or where what was
taken is not written as it was read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any
from unittest import mock

import msgspec

from qnet_actors.crypto import KeyPair
from qnet_actors.crypto.keystore import read_keystore_header, write_keystore
from qnet_actors.gateway import events, queries, sockets, submission
from qnet_actors.ledger.blocks import Identity, genesis_tip
from qnet_actors.ledger.verify import check_certificate, check_records
from qnet_actors.links.handshake import HELLO_CODEC, PROOF_CODEC, Hello, Proof
from qnet_actors.mempool import frames
from qnet_actors.mempool.frames import FrameFile
from qnet_actors.mempool.logs import _executed_marks, _SequenceMark
from qnet_actors.mempool.segments import FileBatchStore
from qnet_actors.mempool.validity import Refused, open_batch
from qnet_actors.validators.checks import BlockRules
from qnet_actors.validators.journal import frame, read_frames
from qnet_actors.validators.journal_entries import BlockEntry
from qnet_actors.validators.recovery import first_snapshot
from qnet_actors.wire import blocks, genesis, messages, transactions
from qnet_actors.wire.address import decode_address, encode_address
from qnet_actors.wire.batches import build_batch, decode_batch, encode_bodies
from qnet_actors.wire.codec import Codec, encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.dag import COMMIT_CODEC, Commit, decode_dag_block
from qnet_actors.wire.schemes import Scheme
from tests.fuzz import proofs, within
from tests.fuzz.within import scratch
from tests.gateway.ledger import CHAIN_ID, Ledger, Wallet
from tests.ledger.test_registry import report
from tests.validators.support import VERIFIER, batch_ref, genesis_blocks, make_block, make_genesis

WALLET = Wallet(7)
GENESIS = make_genesis()
COMMITTEE = GENESIS.committee()
IDENTITY = Identity(CHAIN_ID, COMMITTEE.digest)
RULES = BlockRules(COMMITTEE, VERIFIER, GENESIS.chain_id())
SCHEMES = frozenset({int(Scheme.KEYED_HASH)})
STORED = frozenset({Code.DATA_CORRUPT, Code.DATA_VERSION})


class Broken(Exception):
    """A decoder broke its promise."""


@dataclass(frozen=True)
class Harness:
    """`run` raises QnetError where the bytes are refused, with a code for which `refuses` holds."""

    name: str
    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    refuses: Callable[[Code], bool] = lambda code: 100 <= code < 300
    cuts: bool = False
    """Damage is cut off and never refused."""

    def takes(self, data: bytes) -> bool:
        """Whether the bytes are taken; raises `Broken`."""
        try:
            self.run(data)
        except QnetError as error:
            if not self.refuses(error.code):
                raise Broken(f"{self.name} refuses with {error}") from error
            if not error.detail or len(error.detail) > 1_000:
                raise Broken(f"{self.name} gives no useful reason: {error.detail!r}") from error
            return False
        except Broken:
            raise
        except Exception as error:
            raise Broken(f"{self.name}: {type(error).__name__}: {error}") from error
        return True


def same(again: bytes, data: bytes) -> None:
    if again != data:
        raise Broken("what was decoded is written otherwise than it was read")


def canonical(codec: Codec[Any], data: bytes) -> None:
    same(encode(codec.decode(data)), data)


def judged(check: Callable[[], object], code: Code) -> None:
    """What decodes may be refused by its check, with one code."""
    try:
        check()
    except QnetError as error:
        if error.code != code:
            raise Broken(f"a check refuses with {error}") from error


def run_transaction(data: bytes) -> None:
    canonical(transactions.TRANSACTION_CODEC, data)
    transactions.check_body(transactions.TRANSACTION_CODEC.decode(data).body, CHAIN_ID)


def run_batch(data: bytes) -> None:
    opened = open_batch(data, CHAIN_ID, SCHEMES)
    same(decode_batch(data).encode(), data)
    if isinstance(opened, Refused):
        raise QnetError(opened.code)
    same(
        encode_bodies(
            [
                opened.batch.columns.body(row, opened.batch.header)
                for row in range(opened.batch.header.count)
            ]
        ),
        bytes(opened.batch.bodies),
    )


def run_dag_block(data: bytes) -> None:
    block = decode_dag_block(data)
    same(block.encoded, data)
    RULES.check_form(block)


def run_record(data: bytes) -> None:
    canonical(blocks.BLOCK_RECORD_CODEC, data)
    judged(lambda: check_records(IDENTITY, genesis_tip(GENESIS), [data]), Code.DATA_CORRUPT)


def run_certificate(data: bytes) -> None:
    certificate = blocks.CERTIFICATE_CODEC.decode(data)
    same(encode(certificate), data)
    judged(
        lambda: check_certificate(IDENTITY, COMMITTEE, certificate, VERIFIER), Code.BAD_CERTIFICATE
    )


def run_genesis(data: bytes) -> None:
    canonical(genesis.GENESIS_CODEC, data)
    genesis.check_genesis(genesis.GENESIS_CODEC.decode(data))


def run_body(data: bytes) -> None:
    """The first byte says what the content type is."""
    type_ = submission.JSON_TYPE if data[:1] == b"j" else submission.MSGPACK_TYPE
    for one in submission.read_submission(data[1:], type_).transactions:
        submission.parse_transaction(one)


def run_terms(data: bytes) -> None:
    """What is looked at before anything is checked: never refuses."""
    submission.terms_of(data)


def run_socket(data: bytes) -> None:
    sockets.read_request(data.decode("utf-8", "replace"))


def run_address(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    same(encode_address(decode_address(text, development=True), development=True).encode(), data)


def run_journal(data: bytes) -> None:
    """A segment: whole frames are read, what is torn at its end is reported."""
    journalled, sound_bytes = read_frames(data)
    if sound_bytes + journalled.torn_bytes != len(data):
        raise Broken("bytes of the journal are neither sound nor torn")
    again, _ = read_frames(data[:sound_bytes])
    if (again.snapshot, again.entries, again.torn_bytes) != (
        journalled.snapshot,
        journalled.entries,
        0,
    ):
        raise Broken("the sound part of a journal reads otherwise without what is torn")


def run_keystore(data: bytes) -> None:
    path = scratch() / "key.json"
    path.write_bytes(data)
    read_keystore_header(path)


def run_stored(name: str, data: bytes) -> None:
    """A file of the batch store: what is torn is cut, and the second start finds the same."""
    directory = scratch() / "batches"
    directory.mkdir(exist_ok=True)
    for old in directory.iterdir():
        old.unlink()
    (directory / name).write_bytes(data)
    found = []
    # What is found does not depend on flushes, which would take nine tenths of the time.
    with mock.patch("os.fsync"), mock.patch.object(frames, "_sync"):
        for _ in range(2):
            store = FileBatchStore(directory, power=True)
            try:
                found.append((store.load(), store.bytes_cut))
            finally:
                store.close()
    (first, _), (second, cut) = found
    if first != second or cut:
        raise Broken(f"{name}: the second start finds something else than the first")


def transaction_seeds() -> list[bytes]:
    payments = tuple(transactions.Payment(bytes([n]) * 32, n) for n in range(1, 4))
    return [
        WALLET.transfer(0),
        WALLET.transfer(2**40, action=transactions.MultiTransfer(payments), gas_limit=10**6),
        WALLET.transfer(1, action=transactions.RotateKey(b"\1" * 32), gas_limit=10**6),
        *(
            WALLET.transfer(2, action=action, gas_limit=10**6)
            for action in (report(1), transactions.Stake(2**40), transactions.Unstake(7))
        ),
    ]


def batch_seeds() -> list[bytes]:
    decoded = [transactions.TRANSACTION_CODEC.decode(data) for data in transaction_seeds()]
    return [
        build_batch(part, chain_id=CHAIN_ID, epoch=0, author=1, shard=0, sequence=5).encode()
        for part in (decoded[:1], decoded, decoded * 4)
    ]


def dag_seeds() -> list[bytes]:
    first = make_block(1, 1, genesis_blocks(GENESIS), batches=[batch_ref(1), batch_ref(2)])
    parents = [make_block(1, author, genesis_blocks(GENESIS)).ref for author in range(4)]
    return [first.encoded, make_block(2, 1, parents).encoded]


@cache
def ledger() -> Ledger:
    made = Ledger()
    made.account(WALLET.address).balance = 10**15
    decoded = [transactions.TRANSACTION_CODEC.decode(data) for data in transaction_seeds()]
    made.execute([transaction.body for transaction in decoded])
    made.certify()
    return made


def record_seeds() -> list[bytes]:
    return [encode(ledger().records[0][0])]


def certificate_seeds() -> list[bytes]:
    return [encode(ledger().certificate)]


def message_seeds() -> list[bytes]:
    digest = b"\7" * 32
    refs = genesis_blocks(GENESIS)
    sent: list[messages.Message] = [
        messages.Batches((batch_seeds()[0],)),
        messages.BatchAcks((digest, digest)),
        messages.BatchRequest((digest,)),
        messages.Keys((messages.PublicKey(2, digest),)),
        messages.KeyRequest((digest,)),
        messages.DagBlocks(tuple(dag_seeds())),
        messages.DagRequest(refs),
        messages.PeerStatus(0, 1, 2**20, 2**40, 4, 5),
        messages.LedgerRequest(1, 64),
        messages.LedgerBlocks((record_seeds()[0],), ledger().certificate),
        messages.Evidence((report(1).equivocation, report(2).equivocation)),
        messages.SnapshotRequest(2**40, 3),
        messages.SnapshotPart(7, 0, digest),
    ]
    return [encode(message) for message in sent]


def commit_seeds() -> list[bytes]:
    refs = genesis_blocks(GENESIS)
    return [encode(Commit(0, 1, b"\1" * 32, 10**12, refs[0], refs))]


def body_seeds() -> list[bytes]:
    one, *rest = transaction_seeds()
    json = msgspec.json.encode(submission.JsonSubmission(transaction=one))
    many = msgspec.json.encode(submission.JsonSubmission(transactions=rest))
    return [b"m" + one, b"m" + msgspec.msgpack.encode(rest), b"j" + json, b"j" + many]


def socket_seeds() -> list[bytes]:
    return [
        b'{"type":"subscribe","to":"blocks","transactions":true}',
        b'{"type":"subscribe","to":"transaction","id":"' + b"0f" * 32 + b'"}',
        b'{"type":"unsubscribe","to":"blocks"}',
    ]


def query_seeds() -> list[bytes]:
    asked: list[queries.Query] = [
        queries.StatusQuery(),
        queries.AccountQuery(b"\1" * 32),
        queries.BlockQuery(None, 0, 10),
        queries.BlockQuery(b"\1" * 32),
        queries.BlocksQuery(2**40, 100),
        queries.AccountProofQuery(b"\1" * 32, 2**40),
        queries.TransactionProofQuery(b"\2" * 32),
        queries.HandOffQuery(2**40),
        queries.ActivityQuery(b"\1" * 32, (2**40, 3), 100),
        queries.EventsQuery(b"topic", b"\1" * 32, (5, 1, 2), 1),
    ]
    return [encode(query) for query in asked]


def event_seeds() -> list[bytes]:
    record, block_hash = ledger().records[0]
    certificate = blocks.CERTIFICATE_CODEC.decode(certificate_seeds()[0])
    checkpoint = events.CheckpointEvent(certificate.checkpoint)
    status = events.StatusEvent("batched", b"\1" * 64)
    return [encode(event) for event in (events.block_event(record, block_hash), checkpoint, status)]


def journal_seeds() -> list[bytes]:
    snapshot = frame([first_snapshot(GENESIS, COMMITTEE, 1)])
    return [snapshot, snapshot + b"".join(frame([BlockEntry(data)]) for data in dag_seeds())]


def keystore_seeds() -> list[bytes]:
    from qnet_actors.crypto.providers import openssl_provider

    pair: KeyPair = openssl_provider().generate(Scheme.ML_DSA_65, b"\5" * 32)
    path = scratch() / "made.json"
    path.unlink(missing_ok=True)
    write_keystore(path, pair, b"a passphrase", log2_n=14)
    return [path.read_bytes()]


def framed(payloads: list[bytes]) -> bytes:
    path = scratch() / "frames"
    file = FrameFile(path, 0)
    try:
        file.append(payloads)
    finally:
        file.close()
    return path.read_bytes()


def key_seeds() -> list[bytes]:
    return [framed([encode(messages.PublicKey(2, bytes([n]) * 32)) for n in range(3)])]


def mark_seeds() -> list[bytes]:
    digests = [bytes([n]) * 32 for n in range(3)]
    marks = _executed_marks(digests, 2**40, 7)
    return [framed([*marks, encode(_SequenceMark(1, 0, 2**20))])]


def _of_peers(code: Code) -> bool:
    return 100 <= code < 400


HARNESSES: tuple[Harness, ...] = (
    Harness("transaction", run_transaction, transaction_seeds),
    Harness("batch", run_batch, batch_seeds),
    Harness("batch_shard", within.run_shard, batch_seeds, cuts=True),
    Harness("dag_block", run_dag_block, dag_seeds, _of_peers),
    Harness("message", partial(canonical, messages.MESSAGE_CODEC), message_seeds),
    Harness("commit", partial(canonical, COMMIT_CODEC), commit_seeds),
    Harness(
        "hello",
        partial(canonical, HELLO_CODEC),
        lambda: [encode(Hello(2, CHAIN_ID, b"\4" * 32, b"\5" * 32))],
    ),
    Harness("proof", partial(canonical, PROOF_CODEC), lambda: [encode(Proof(b"\6" * 70))]),
    Harness("block_record", run_record, record_seeds),
    Harness("certificate", run_certificate, certificate_seeds),
    Harness(
        "genesis",
        run_genesis,
        lambda: [encode(GENESIS)],
        lambda code: 100 <= code < 200 or code == Code.CONFIGURATION_INVALID,
    ),
    Harness("proved_account", proofs.run_account, proofs.account_seeds, _of_peers),
    Harness("hand_off", proofs.run_hand_off, proofs.hand_off_seeds, _of_peers),
    Harness("proved_transaction", proofs.run_transaction, proofs.transaction_seeds, _of_peers),
    Harness("snapshot_manifest", within.run_manifest, lambda: [within.parts()[0]], _of_peers),
    Harness("snapshot_section", within.run_section, lambda: [within.parts()[1]], _of_peers),
    Harness("gateway_body", run_body, body_seeds),
    Harness("gas_price", run_terms, transaction_seeds, cuts=True),
    Harness("pool", within.run_pool, within.pool_seeds),
    Harness("call", within.run_call, within.call_seeds),
    Harness("answer", partial(canonical, queries.ANSWER_CODEC), within.answer_seeds),
    Harness(
        "submit_answer", partial(canonical, queries.SUBMIT_ANSWER_CODEC), within.submit_answer_seeds
    ),
    Harness("poll_answer", partial(canonical, events.POLL_CODEC), within.poll_seeds),
    Harness("client_reply", within.run_reply, within.reply_seeds),
    Harness("client_refusal", within.run_refusal, within.refusal_seeds, cuts=True),
    Harness("client_message", within.run_message, within.message_seeds),
    Harness("socket_request", run_socket, socket_seeds),
    Harness("query", partial(canonical, queries.QUERY_CODEC), query_seeds),
    Harness("event", partial(canonical, events.EVENT_CODEC), event_seeds),
    Harness(
        "address",
        run_address,
        lambda: [encode_address(b"\3" * 32, development=True).encode()],
    ),
    Harness("keystore", run_keystore, keystore_seeds, lambda code: code == Code.KEYSTORE_MALFORMED),
    Harness("journal", run_journal, journal_seeds, STORED.__contains__),
    Harness(
        "batch_segment",
        partial(run_stored, "segment-000000000001.log"),
        lambda: [framed(batch_seeds())],
        STORED.__contains__,
        cuts=True,
    ),
    Harness(
        "mark_log", partial(run_stored, "marks.log"), mark_seeds, STORED.__contains__, cuts=True
    ),
    Harness("offences", within.run_offences, within.offence_seeds, cuts=True),
    Harness("directory", within.run_directory, within.directory_seeds, STORED.__contains__),
    Harness(
        "settings",
        within.run_settings,
        within.settings_seeds,
        lambda code: code == Code.CONFIGURATION_INVALID,
    ),
    Harness("key_log", partial(run_stored, "keys.log"), key_seeds, STORED.__contains__, cuts=True),
)
BY_NAME = {harness.name: harness for harness in HARNESSES}
