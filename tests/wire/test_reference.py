"""docs/reference/wire.md says what the code does: types, limits, contexts and vectors."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import msgpack
import msgspec
import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey

from qnet_actors.links import handshake
from qnet_actors.wire import (
    batches,
    blocks,
    committee,
    dag,
    evidence,
    genesis,
    hashing,
    limits,
    messages,
    rules,
    schemes,
    snapshots,
    transactions,
)
from qnet_actors.wire.address import decode_address, encode_address
from qnet_actors.wire.batches import decode_batch
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.transactions import TRANSACTION_CODEC, transaction_id
from tests.wire import independent_client, make_vectors

PAGE = make_vectors.PAGE.read_text()
VECTORS = json.loads(make_vectors.VECTORS.read_text())

PUBLIC_NAMES = {"_BatchParts": "Batch", "_SignedHeader": "DagBlock"}
INTERNAL = {"Struct", "Payload"}
"""The base of all, and the two last fields of a body, which the page describes in words."""


def wire_types() -> dict[str, type[msgspec.Struct]]:
    modules = (
        batches,
        blocks,
        committee,
        dag,
        evidence,
        genesis,
        handshake,
        messages,
        rules,
        snapshots,
        transactions,
    )
    return {
        PUBLIC_NAMES.get(type_.__name__, type_.__name__): type_
        for module in modules
        for type_ in vars(module).values()
        if isinstance(type_, type)
        and issubclass(type_, msgspec.Struct)
        and type_.__name__ not in INTERNAL
    }


def described(type_: Any) -> str:
    """A type in the words of the page."""
    inspect = msgspec.inspect
    match type_:
        case inspect.IntType(ge=0, le=None):
            return "u64"
        case inspect.IntType(ge=0, le=most):
            for bits in (8, 16, 32):
                if most == 2**bits - 1:
                    return f"u{bits}"
            return f"u32 0-{most}"
        case inspect.BoolType():
            return "bool"
        case inspect.BytesType(min_length=None, max_length=None):
            return "bin"
        case inspect.BytesType(min_length=least, max_length=most) if least == most:
            return f"bin {most}"
        case inspect.BytesType(min_length=least, max_length=most):
            return f"bin {least or 0}-{most}"
        case inspect.StrType(min_length=least, max_length=most):
            return f"str {least}-{most}"
        case inspect.VarTupleType(item_type=item, min_length=least, max_length=most):
            return f"array of {described(item)} {least or 0}-{most}"
        case inspect.StructType(cls=cls):
            return PUBLIC_NAMES.get(cls.__name__, cls.__name__)
        case inspect.UnionType(types=types) if isinstance(types[-1], inspect.NoneType):
            return f"{described(types[0])} or nil"
        case inspect.UnionType(types=(*most, last)):
            return ", ".join(map(described, most)) + f" or {described(last)}"
    raise TypeError(type_)


def sections() -> dict[str, str]:
    """The text under each heading of the third level."""
    parts = re.split(r"^### (.+)$", PAGE, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("name", sorted(wire_types()))
def test_every_type_stands_there_field_by_field(name):
    section = sections()[name]
    table = section.partition("| field | type |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (\w+) \| ([^|]+) \|", table, flags=re.M)
    info = msgspec.inspect.type_info(wire_types()[name])
    assert isinstance(info, msgspec.inspect.StructType)
    fields = [(field.name, described(field.type)) for field in info.fields]
    assert rows == fields
    tag = info.tag
    assert ("Tag" in section.split("|")[0]) == (tag is not None)
    if tag is not None:
        assert f"Tag {tag}." in section


def test_no_type_stands_there_that_does_not_exist():
    with_fields = {name for name, text in sections().items() if "| field | type |" in text}
    assert with_fields == set(wire_types())


def test_every_limit_stands_there_with_its_value():
    rows = dict(re.findall(r"^\| ([A-Z0-9_]+) \| (\d+) \|$", PAGE, flags=re.M))
    values = {name: value for name, value in vars(limits).items() if name.isupper()}
    assert {name: int(value) for name, value in rows.items()} == {
        name: value for name, value in values.items() if name != "U64_MAX"
    }


def test_every_context_stands_there():
    contexts = [
        value for name, value in vars(hashing).items() if name.isupper() and isinstance(value, str)
    ]
    assert len(contexts) > 20
    assert [context for context in contexts if f"`{context}`" not in PAGE] == []
    signing = [value for name, value in vars(schemes).items() if name.startswith("CONTEXT_")]
    assert [context for context in signing if f"| `{context.decode()}` |" not in PAGE] == []


def test_the_numbers_of_gas_stand_there():
    for name, text in (
        ("Transfer", f"Gas: {transactions.GAS_TRANSFER:,}."),
        (
            "MultiTransfer",
            f"Gas: {transactions.GAS_TRANSFER:,}, and {transactions.GAS_PAYMENT} for",
        ),
        ("RotateKey", f"Gas: {transactions.GAS_ROTATE_KEY:,}."),
        ("Access", f"Gas: {transactions.GAS_ACCESS_ENTRY} for each entry"),
    ):
        assert text in " ".join(sections()[name].split())


def test_file_and_page_are_current():
    """Make both anew with: python -m tests.wire.make_vectors"""
    assert make_vectors.VECTORS.read_text() == make_vectors.text()
    assert make_vectors.page(VECTORS) == PAGE
    assert make_vectors.page_section(VECTORS) in PAGE


# What follows looks at the vectors without the package's own encoder and hashes.


def packed(value: Any) -> bytes:
    encoded: bytes = msgpack.packb(value, use_bin_type=True)
    return encoded


def derived(context: str, *parts: bytes) -> str:
    return blake3(b"".join(parts), derive_key_context=context).hexdigest()


def array_of(fields: Any) -> Any:
    """A vector's fields as the array that travels."""
    if isinstance(fields, dict):
        return [array_of(value) for value in fields.values()]
    if isinstance(fields, list):
        return [array_of(value) for value in fields]
    if isinstance(fields, str):
        # Nothing else in the vectors is 16 to 20 decimal digits long.
        is_number = 16 <= len(fields) <= 20 and fields.isdigit()
        return int(fields) if is_number else bytes.fromhex(fields)
    return fields


@pytest.mark.parametrize("name", VECTORS["bodies"])
def test_bodies_follow_from_their_fields(name):
    vector = VECTORS["bodies"][name]
    assert packed(array_of(vector["fields"])).hex() == vector["bytes"]
    assert derived("qnet tx v1", bytes.fromhex(vector["bytes"])) == vector["id"]


def test_integers_are_in_their_shortest_form():
    for number, encoded in VECTORS["integers"].items():
        assert packed(int(number)).hex() == encoded


def test_digests_follow_from_their_bytes():
    ledger, consensus, batch = VECTORS["ledger"], VECTORS["consensus"], VECTORS["batch"]
    for context, encoded, digest in (
        ("qnet block v1", ledger["block_header"], ledger["block_hash"]),
        ("qnet receipt v1", ledger["receipt"], ledger["receipt_hash"]),
        ("qnet checkpoint v1", ledger["checkpoint"], ledger["checkpoint_digest"]),
        ("qnet write set v1", ledger["write_set"], ledger["write_set_digest"]),
        ("qnet dag block v1", consensus["dag_slot"], consensus["dag_digest"]),
        ("qnet commit v1", consensus["commit"], consensus["commit_digest"]),
        ("qnet genesis v1", VECTORS["genesis"]["bytes"], VECTORS["genesis"]["chain_id"]),
        ("qnet batch v1", batch["header"], batch["digest"]),
        ("qnet batch bodies v1", batch["bodies"], batch["header_fields"]["bodies_root"]),
        ("qnet batch witnesses v1", batch["witnesses"], batch["header_fields"]["witnesses_root"]),
    ):
        assert derived(context, bytes.fromhex(encoded)) == digest
    parts = array_of(consensus["dag_header_fields"])[5:]
    content = derived("qnet dag content v1", packed(parts))
    assert content == consensus["dag_slot_fields"]["content"]
    for group, name in (
        (ledger, "block_header"),
        (ledger, "receipt"),
        (consensus, "dag_header"),
        (consensus, "dag_slot"),
        (consensus, "commit"),
        (batch, "header"),
    ):
        assert packed(array_of(group[f"{name}_fields"])).hex() == group[name]


def test_leaders_follow_from_the_rule():
    seed, leaders = b"z" * 32, []
    for round_ in range(16):
        digest = bytes.fromhex(derived("qnet leader v1", seed, round_.to_bytes(8, "big")))
        point = int.from_bytes(digest[:16], "big") % 10
        leaders.append(next(i for i, end in enumerate((1, 3, 6, 10)) if point < end))
    assert VECTORS["consensus"]["leaders of rounds 0-15"] == leaders
    assert (VECTORS["consensus"]["quorum"], VECTORS["consensus"]["validity"]) == (7, 4)


def test_proofs_follow_from_the_hellos():
    link = VECTORS["link"]
    hellos = bytes.fromhex(link["dialler_hello"]) + bytes.fromhex(link["acceptor_hello"])
    for role, name in ((1, "dialler_proof"), (2, "acceptor_proof")):
        assert derived("qnet link v1", bytes((role,)), bytes(32), hellos) == link[name]


def test_the_batch_holds_the_bodies_of_its_transactions():
    vector = VECTORS["batch"]
    batch = decode_batch(bytes.fromhex(vector["bytes"]))
    assert batch.digest.hex() == vector["digest"]
    bodies = [encode(batch.columns.body(row, batch.header)).hex() for row in range(2)]
    assert bodies == [VECTORS["bodies"][name]["bytes"] for name in vector["transactions"]]


# The independent client.


SEED = bytes.fromhex(VECTORS["transaction"]["seed"])


def test_the_transaction_verifies_and_decodes():
    vector = VECTORS["transaction"]
    id_ = bytes.fromhex(vector["id"])
    key = MLDSA65PublicKey.from_public_bytes(bytes.fromhex(vector["public_key"]))
    key.verify(bytes.fromhex(vector["signature"]), id_, vector["context"].encode())
    transaction = TRANSACTION_CODEC.decode(bytes.fromhex(vector["bytes"]))
    assert encode(transaction.body).hex() == vector["body"]
    assert transaction_id(encode(transaction.body)) == id_


def test_the_registration_follows_from_its_key():
    vector = VECTORS["registration"]
    fields = vector["body"]["fields"]
    action = array_of(fields["action"])
    assert packed(array_of(fields)).hex() == vector["body"]["bytes"]
    tag, scheme, public_key, _, proof = action
    assert (tag, proof.hex()) == (8, vector["proof"])
    name = bytes.fromhex(derived("qnet key v1", bytes((scheme,)), public_key))
    parts = (bytes.fromhex(fields["chain_id"]), bytes.fromhex(fields["sender"]), name)
    assert derived("qnet registration v1", *parts) == vector["digest"]
    context = vector["context"].encode()
    message = bytes((scheme, len(context))) + context + bytes.fromhex(vector["digest"])
    key = Ed25519PublicKey.from_public_bytes(public_key)
    key.verify(proof, message)
    assert Ed25519PrivateKey.from_private_bytes(bytes.fromhex(vector["seed"])).public_key() == key


def test_the_independent_client_makes_what_the_package_takes():
    account = independent_client.Account(SEED)
    chain_id = b"c" * 32
    id_, data = account.transfer(chain_id, 7, b"p" * 32, 10**9)
    # Its body is that of the vector; its signature is hedged, so it differs each time.
    assert id_.hex() == VECTORS["transaction"]["id"]
    transaction = TRANSACTION_CODEC.decode(data)
    assert transaction_id(encode(transaction.body)) == id_
    transactions.check_body(transaction.body, chain_id)
    transactions.check_witness(transaction.body, transaction.witness, frozenset({2}))
    key = MLDSA65PublicKey.from_public_bytes(transaction.witness.public_key)
    key.verify(transaction.witness.signature, id_, schemes.CONTEXT_TRANSACTION)
    assert account.address.hex() == VECTORS["transaction"]["key_id"]


@pytest.mark.parametrize("nonce", [0, 127, 128, 2**32, 2**64 - 1])
@pytest.mark.parametrize("amount", [0, 255, 256, 65_536, 2**64 - 1])
def test_the_independent_client_writes_shortest_integers(nonce, amount):
    _, data = independent_client.Account(SEED).transfer(b"c" * 32, nonce, b"p" * 32, amount, 300)
    body = TRANSACTION_CODEC.decode(data).body
    assert isinstance(body.action, transactions.Transfer)
    assert (body.nonce, body.action.amount, body.gas_price) == (nonce, amount, 300)


def test_the_independent_client_writes_and_reads_addresses():
    for vector in VECTORS["addresses"]:
        address = bytes.fromhex(vector["address"])
        for prefix, development in (("qnet", False), ("tqnet", True)):
            text = vector[prefix]
            assert independent_client.address_text(address, development) == text
            assert encode_address(address, development=development) == text
            assert independent_client.address_bytes(text, development) == address
            assert decode_address(text, development=development) == address
            broken = text[:-1] + ("q" if text[-1] != "q" else "p")
            with pytest.raises(ValueError, match="checksum"):
                independent_client.address_bytes(broken, development)
            with pytest.raises(QnetError) as caught:
                decode_address(broken, development=development)
            assert caught.value.code is Code.BAD_ADDRESS


def test_the_independent_client_imports_nothing_of_the_package():
    code = (
        "import sys, runpy; runpy.run_path(sys.argv[1]);"
        "sys.exit(any(name.split('.')[0] in ('qnet_actors', 'msgspec', 'tests')"
        " for name in sys.modules))"
    )
    command = [sys.executable, "-c", code, independent_client.__file__]
    assert subprocess.run(command, check=False).returncode == 0
