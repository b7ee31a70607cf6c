"""Makes tests/wire/vectors.json:  python -m tests.wire.make_vectors

Everything but one signature follows from the inputs.  ML-DSA signatures are hedged, so the one that
stands in the file is kept as long as it verifies.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey

from qnet_actors.links.handshake import LINK_VERSION, Hello, Role, proof_digest
from qnet_actors.wire import hashing
from qnet_actors.wire.address import encode_address
from qnet_actors.wire.batches import BatchRef, build_batch
from qnet_actors.wire.blocks import BlockHeader, Checkpoint, Event, Receipt, WriteSet
from qnet_actors.wire.codec import encode
from qnet_actors.wire.committee import Committee, Member
from qnet_actors.wire.dag import (
    BlockRef,
    CheckpointVote,
    Commit,
    DagHeader,
    header_digest,
    header_slot,
)
from qnet_actors.wire.genesis import Genesis, GenesisAccount, Parameters
from qnet_actors.wire.messages import BatchAcks, PeerStatus
from qnet_actors.wire.rules import EpochRules
from qnet_actors.wire.schemes import CONTEXT_REGISTRATION, CONTEXT_TRANSACTION, Scheme, key_id
from qnet_actors.wire.transactions import (
    Access,
    Action,
    Approve,
    Body,
    MultiTransfer,
    Payment,
    RotateKey,
    Transaction,
    Transfer,
    Witness,
    register_validator,
    registration_digest,
    transaction_id,
)

VECTORS = Path(__file__).parent / "vectors.json"
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "wire.md"
SEED = bytes(range(32))
LONG_BYTES = 400
"""What is longer stands in the page by its size and SHA-256 only."""


def pattern(letter: str) -> bytes:
    """32 times one byte: easy to write in any language."""
    return letter.encode() * 32


CHAIN = pattern("c")


def make(kept_signature: bytes | None) -> dict[str, Any]:
    """All the vectors, as JSON holds them: bytes in hex, everything else as it is."""
    return {
        "integers": {str(n): encode(n).hex() for n in _INTEGERS},
        "hashing": _hashing(),
        "addresses": _addresses(),
        "bodies": {name: _body(body) for name, body in _bodies().items()},
        "transaction": _transaction(kept_signature),
        "registration": _registration(),
        "batch": _batch(),
        "consensus": _consensus(),
        "ledger": _ledger(),
        "genesis": _genesis(),
        "messages": _messages(),
        "link": _link(),
    }


_INTEGERS = (0, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**64 - 1)


def _hashing() -> dict[str, Any]:
    def root(*leaves: bytes) -> str:
        return hashing.merkle_root(
            hashing.TRANSACTIONS_LEAF, hashing.TRANSACTIONS_NODE, list(leaves)
        ).hex()

    return {
        "hash(qnet tx v1, empty)": hashing.hash32(hashing.TRANSACTION).hex(),
        "hash(qnet batch v1, 00 01 02)": hashing.hash32(hashing.BATCH, b"\0\1\2").hex(),
        "merkle(a)": root(pattern("a")),
        "merkle(a, b)": root(pattern("a"), pattern("b")),
        "merkle(a, b, c)": root(pattern("a"), pattern("b"), pattern("c")),
    }


def _addresses() -> list[dict[str, str]]:
    return [
        {
            "address": address.hex(),
            "qnet": encode_address(address, development=False),
            "tqnet": encode_address(address, development=True),
        }
        for address in (bytes(32), bytes(range(32)), b"\xff" * 32)
    ]


def _bodies() -> dict[str, Body]:
    def body(nonce: int, action: Action, **changes: Any) -> Body:
        plain = Body(
            version=1,
            chain_id=CHAIN,
            sender=pattern("s"),
            key_id=pattern("k"),
            nonce=nonce,
            valid_until=0,
            gas_limit=1_000,
            gas_price=1,
            access=(),
            action=action,
        )
        return msgspec.structs.replace(plain, **changes)

    payments = (Payment(pattern("p"), 1), Payment(pattern("q"), 2**64 - 2))
    return {
        "transfer": body(7, Transfer(pattern("p"), 1_000_000_000)),
        "multi_transfer": body(
            300, MultiTransfer(payments), gas_limit=1_500, gas_price=2**31, valid_until=70_000
        ),
        "rotate_key": body(
            2**64 - 1,
            RotateKey(pattern("r")),
            gas_limit=2**31,
            access=(Access(pattern("a"), b"key", True), Access(pattern("b"), b"", False)),
        ),
        "approve": body(
            1, Approve(300, EpochRules(2, Parameters(round_delay_ms=80))), gas_limit=60_000
        ),
    }


def _body(body: Body) -> dict[str, Any]:
    data = encode(body)
    return {"fields": _fields(body), "bytes": data.hex(), "id": transaction_id(data).hex()}


def _fields(value: Any) -> Any:
    """A struct as JSON: fields by name, bytes in hex, the tag of a union as `tag`."""
    if isinstance(value, msgspec.Struct):
        tag = type(value).__struct_config__.tag
        fields = {name: _fields(getattr(value, name)) for name in value.__struct_fields__}
        return fields if tag is None else {"tag": tag, **fields}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [_fields(item) for item in value]
    # Some readers of JSON hold every number as a float64.
    return str(value) if isinstance(value, int) and value >= 2**53 else value


def _transaction(kept: bytes | None) -> dict[str, Any]:
    key = MLDSA65PrivateKey.from_seed_bytes(SEED)
    public_key = key.public_key().public_bytes_raw()
    own_id = key_id(Scheme.ML_DSA_65, public_key)
    transfer = _bodies()["transfer"]
    body = msgspec.structs.replace(transfer, sender=own_id, key_id=own_id)
    id_ = transaction_id(encode(body))
    signature = kept
    try:
        key.public_key().verify(kept or b"", id_, CONTEXT_TRANSACTION)
    except InvalidSignature:
        signature = None
    signature = signature or key.sign(id_, CONTEXT_TRANSACTION)
    whole = encode(Transaction(body, Witness(Scheme.ML_DSA_65, signature, public_key)))
    return {
        "seed": SEED.hex(),
        "public_key": public_key.hex(),
        "key_id": own_id.hex(),
        "address": encode_address(own_id, development=True),
        "body": encode(body).hex(),
        "id": id_.hex(),
        "context": CONTEXT_TRANSACTION.decode(),
        "signature": signature.hex(),
        "bytes": whole.hex(),
    }


class _Ed25519:
    """A validator key whose signatures are always the same."""

    scheme = Scheme.ED25519

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(SEED)
        self.public_key = self._key.public_key().public_bytes_raw()

    def sign(self, message: bytes, context: bytes) -> bytes:
        return self._key.sign(bytes((self.scheme, len(context))) + context + message)


def _registration() -> dict[str, Any]:
    signer = _Ed25519()
    action = register_validator(signer, CHAIN, pattern("s"), 10**9)
    body = msgspec.structs.replace(_bodies()["transfer"], gas_limit=60_000, action=action)
    digest = registration_digest(CHAIN, body.sender, action.scheme, action.public_key)
    return {
        "seed": SEED.hex(),
        "digest": digest.hex(),
        "context": CONTEXT_REGISTRATION.decode(),
        "proof": action.proof.hex(),
        "body": _body(body),
    }


def _batch() -> dict[str, Any]:
    bodies = [_bodies()["transfer"], _bodies()["multi_transfer"]]
    witnesses = [
        Witness(Scheme.ED25519, b"\1" * 64, pattern("u")),
        Witness(Scheme.ED25519, b"\2" * 64, b""),
    ]
    batch = build_batch(
        [Transaction(b, w) for b, w in zip(bodies, witnesses, strict=True)],
        chain_id=CHAIN,
        epoch=0,
        author=3,
        shard=1,
        sequence=300,
    )
    return {
        "transactions": ["transfer", "multi_transfer"],
        "bodies": batch.bodies.hex(),
        "witnesses": batch.witnesses.hex(),
        "header": batch.header_bytes.hex(),
        "header_fields": _fields(batch.header),
        "digest": batch.digest.hex(),
        "bytes": batch.encode().hex(),
    }


def _consensus() -> dict[str, Any]:
    header = DagHeader(
        version=1,
        epoch=0,
        round=2,
        author=1,
        timestamp_ms=1_700_000_000_000,
        ancestors=(BlockRef(1, 1, pattern("a")), BlockRef(1, 0, pattern("b"))),
        batches=(BatchRef(0, 5, pattern("d")),),
        votes=(CheckpointVote(10, pattern("e"), b"signature"),),
    )
    commit = Commit(
        epoch=0,
        index=1,
        previous=bytes(32),
        timestamp_ms=1_700_000_000_000,
        leader=BlockRef(1, 0, pattern("b")),
        blocks=(BlockRef(1, 0, pattern("b")),),
    )
    committee = Committee(_members(), 0, pattern("z"))
    return {
        "dag_header": encode(header).hex(),
        "dag_header_fields": _fields(header),
        "dag_slot": encode(header_slot(header)).hex(),
        "dag_slot_fields": _fields(header_slot(header)),
        "dag_digest": header_digest(header).hex(),
        "commit": encode(commit).hex(),
        "commit_fields": _fields(commit),
        "commit_digest": commit.digest().hex(),
        "committee_digest": committee.digest.hex(),
        "quorum": committee.quorum,
        "validity": committee.validity,
        "leaders of rounds 0-15": [committee.leader(round_) for round_ in range(16)],
    }


def _members() -> tuple[Member, ...]:
    """Four validators of stakes 1 to 4, for committee and genesis."""
    return tuple(
        Member(Scheme.ED25519, pattern(letter), stake, pattern("w"))
        for stake, letter in enumerate("ghij", 1)
    )


def _ledger() -> dict[str, Any]:
    header = BlockHeader(
        version=1,
        chain_id=CHAIN,
        epoch=0,
        height=1,
        parent=CHAIN,
        commit_index=3,
        commit_digest=pattern("d"),
        timestamp_ms=1_700_000_000_000,
        transactions_root=pattern("t"),
        receipts_root=pattern("r"),
        write_set_digest=pattern("w"),
        transaction_count=2,
        failed_count=1,
        gas_used=2_500,
    )
    receipt = Receipt(pattern("i"), 1, 1_500, b"data", (Event(pattern("f"), b"topic", b"event"),))
    checkpoint = Checkpoint(
        chain_id=CHAIN,
        height=1,
        block_hash=header.hash(),
        state_root=pattern("x"),
        commit_index=3,
        commit_digest=pattern("d"),
        committee=pattern("m"),
        epoch=0,
        version=1,
    )
    writes = WriteSet(
        pattern("a") + pattern("b"),
        (5).to_bytes(8, "little") + (0).to_bytes(8, "little"),
        (10**9).to_bytes(8, "little") + (1).to_bytes(8, "little"),
        pattern("k") + bytes(32),
    )
    return {
        "block_header": encode(header).hex(),
        "block_header_fields": _fields(header),
        "block_hash": header.hash().hex(),
        "receipt": encode(receipt).hex(),
        "receipt_fields": _fields(receipt),
        "receipt_hash": receipt.hash().hex(),
        "checkpoint": encode(checkpoint).hex(),
        "checkpoint_digest": checkpoint.digest().hex(),
        "write_set": encode(writes).hex(),
        "write_set_digest": writes.digest().hex(),
    }


def _genesis() -> dict[str, Any]:
    genesis = Genesis(
        version=1,
        name="vectors",
        development=True,
        timestamp_ms=1_700_000_000_000,
        schemes=(Scheme.ML_DSA_65, Scheme.ED25519),
        parameters=Parameters(),
        members=_members(),
        accounts=(GenesisAccount(pattern("s"), 10**18),),
    )
    return {
        "bytes": encode(genesis).hex(),
        "fields": _fields(genesis),
        "chain_id": genesis.chain_id().hex(),
        "epoch_seed": genesis.committee().seed.hex(),
    }


def _messages() -> dict[str, str]:
    return {
        "peer_status": encode(PeerStatus(0, 12, 7, 300, 11, 290)).hex(),
        "batch_acks": encode(BatchAcks((pattern("d"),))).hex(),
    }


def _link() -> dict[str, str]:
    dialler = encode(Hello(LINK_VERSION, CHAIN, pattern("a"), pattern("n")))
    acceptor = encode(Hello(LINK_VERSION, CHAIN, pattern("b"), pattern("o")))
    return {
        "dialler_hello": dialler.hex(),
        "acceptor_hello": acceptor.hex(),
        "dialler_proof": proof_digest(Role.DIALLER, bytes(32), dialler, acceptor).hex(),
        "acceptor_proof": proof_digest(Role.ACCEPTOR, bytes(32), dialler, acceptor).hex(),
    }


PAGE_HEAD = """\
## Test vectors

Made by `python -m tests.wire.make_vectors`, which writes `tests/wire/vectors.json` and this
section. Bytes are in hex, in lines of 96 digits; `s*32` stands for 32 times the ASCII code of that
letter. What is longer than 400 bytes is given by its size and SHA-256 and stands in the file. In
the file, integers over 2^53 - 1 are decimal strings.
"""


def page_section(vectors: dict[str, Any]) -> str:
    """The end of docs/reference/wire.md."""
    lines = [PAGE_HEAD]
    for name, group in vectors.items():
        lines += [f"### Vectors: {name}", "", "```", *_page_lines(group, ""), "```", ""]
    return "\n".join(lines)


def _page_lines(value: Any, indent: str) -> Iterator[str]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for name, item in items:
        if isinstance(item, dict) or (isinstance(item, list) and not _all_integers(item)):
            yield f"{indent}{name}:"
            yield from _page_lines(item, indent + "  ")
            continue
        shown = _shown(item)
        if len(shown) == 1:
            yield f"{indent}{name} = {shown[0]}"
        else:
            yield f"{indent}{name} ="
            yield from (f"{indent}  {line}" for line in shown)


def _all_integers(items: list[Any]) -> bool:
    return all(type(item) is int for item in items)


def _shown(value: Any) -> list[str]:
    """A leaf as lines of the page."""
    if not isinstance(value, str):
        return [json.dumps(value)]
    try:
        data = bytes.fromhex(value)
    except ValueError:
        return [value]
    if len(data) == 32 and len(set(data)) == 1 and chr(data[0]) in ascii_lowercase:
        return [f"{chr(data[0])}*32"]
    if len(data) > LONG_BYTES:
        return [f"{len(data)} bytes, SHA-256 {sha256(data).hexdigest()}"]
    return textwrap.wrap(value, 96) or ["(empty)"]


def kept_signature() -> bytes | None:
    """The signature that the file holds."""
    if not VECTORS.exists():
        return None
    return bytes.fromhex(json.loads(VECTORS.read_text())["transaction"]["signature"])


def text() -> str:
    """The file's text."""
    return json.dumps(make(kept_signature()), indent=1) + "\n"


def page(vectors: dict[str, Any]) -> str:
    """docs/reference/wire.md with its last section made anew."""
    return PAGE.read_text().partition("## Test vectors\n")[0] + page_section(vectors)


if __name__ == "__main__":
    VECTORS.write_text(text())
    PAGE.write_text(page(json.loads(VECTORS.read_text())))
