"""Hypothesis strategies for every wire type; bounds are met and touched."""

from __future__ import annotations

import msgspec
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from qnet_actors.wire import (
    batches,
    blocks,
    dag,
    evidence,
    genesis,
    limits,
    messages,
    rules,
    transactions,
)
from qnet_actors.wire.committee import Member
from qnet_actors.wire.hashing import ZERO_DIGEST
from qnet_actors.wire.schemes import SCHEME_SIZES, Scheme

_EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x100, 0xFFFF, 0x10000, 0xFFFFFFFF, 0x100000000)


def unsigned(maximum: int = limits.U64_MAX, minimum: int = 0) -> SearchStrategy[int]:
    """Integers, where MessagePack changes its form more often than elsewhere."""
    edges = [edge for edge in (*_EDGES, maximum - 1, maximum) if minimum <= edge <= maximum]
    return st.sampled_from(edges) | st.integers(minimum, maximum)


def tuples(items: SearchStrategy, minimum: int = 0, maximum: int = 4) -> SearchStrategy[tuple]:
    """Tuples of `minimum` to `maximum` items."""
    return st.lists(items, min_size=minimum, max_size=maximum).map(tuple)


digests = st.binary(min_size=32, max_size=32)
u8, u16, u32, u64 = (unsigned(2**bits - 1) for bits in (8, 16, 32, 64))
schemes = st.sampled_from(list(Scheme)).map(int)
small_schemes = st.sampled_from([int(Scheme.ED25519), int(Scheme.KEYED_HASH)])
"""Schemes of short signatures, for tests in which many are drawn."""

payments = st.builds(transactions.Payment, payee=digests, amount=u64)
transfers = st.builds(transactions.Transfer, payee=digests, amount=u64)
multi_transfers = st.builds(transactions.MultiTransfer, payments=tuples(payments, 1))
rotations = st.builds(transactions.RotateKey, key_id=digests)
parameters = st.builds(
    genesis.Parameters,
    **{
        name: u64 if name in ("block_gas_max", "stake_min") else u32
        for name in genesis.Parameters.__struct_fields__
        if name != "power_durability"
    },
    power_durability=st.booleans(),
)
epoch_rules = st.builds(rules.EpochRules, version=u32, parameters=parameters)
registry_actions: SearchStrategy[transactions.Action] = st.one_of(
    st.builds(
        transactions.RegisterValidator,
        scheme=st.just(255),
        public_key=st.binary(min_size=32, max_size=32),
        stake=u64,
        proof=st.binary(min_size=32, max_size=32),
    ),
    st.builds(transactions.Stake, amount=u64),
    st.builds(transactions.Unstake, amount=u64),
    st.builds(transactions.Approve, epoch=u64, rules=epoch_rules),
)
actions: SearchStrategy[transactions.Action] = st.one_of(
    transfers, multi_transfers, rotations, registry_actions
)
accesses = st.builds(
    transactions.Access, contract=digests, key=st.binary(max_size=256), write=st.booleans()
)


@st.composite
def bodies(
    draw: st.DrawFn, *, chain_id: bytes | None = None, valid: bool = False, plain: bool = False
) -> transactions.Body:
    """Bodies; with `valid` those that `check_body` takes, with `plain` plain transfers only."""
    access = () if plain else draw(tuples(accesses, 0, 2))
    action: transactions.Action = draw(transfers if plain else actions)
    if valid:
        small = limits.U64_MAX // limits.PAYEES_MAX
        if isinstance(action, transactions.MultiTransfer):
            action = transactions.MultiTransfer(
                tuple(msgspec.structs.replace(p, amount=p.amount % small) for p in action.payments)
            )
        if isinstance(action, transactions.RotateKey) and action.key_id == ZERO_DIGEST:
            action = transactions.RotateKey(b"\1" * 32)
    least_gas = transactions.intrinsic_gas(len(access), action) if valid else 0
    return transactions.Body(
        version=transactions.TRANSACTION_VERSION if valid else draw(u8),
        chain_id=draw(digests) if chain_id is None else chain_id,
        sender=draw(digests),
        key_id=draw(digests),
        nonce=draw(u64),
        valid_until=draw(u64),
        gas_limit=draw(unsigned(limits.GAS_LIMIT_MAX, least_gas)),
        gas_price=draw(unsigned(limits.GAS_PRICE_MAX, 1 if valid else 0)),
        access=access,
        action=action,
    )


@st.composite
def witnesses(draw: st.DrawFn, scheme: int | None = None) -> transactions.Witness:
    """Witnesses of the right sizes, with noise for a signature."""
    scheme = draw(small_schemes) if scheme is None else scheme
    sizes = SCHEME_SIZES[Scheme(scheme)]
    signature = draw(st.binary(min_size=sizes.signature, max_size=sizes.signature))
    key = draw(st.just(b"") | st.binary(min_size=sizes.public_key, max_size=sizes.public_key))
    return transactions.Witness(scheme, signature, key)


def signed(body: SearchStrategy, scheme: int | None = None) -> SearchStrategy:
    """Transactions of the given bodies, with noise for a signature."""
    return st.builds(transactions.Transaction, body=body, witness=witnesses(scheme))


raw_witnesses = st.builds(
    transactions.Witness,
    scheme=u8,
    signature=st.binary(max_size=300),
    public_key=st.binary(max_size=300),
)
raw_transactions = st.builds(transactions.Transaction, body=bodies(), witness=raw_witnesses)


@st.composite
def made_batches(
    draw: st.DrawFn, *, valid: bool = True, plain: bool = False, count_max: int = 6
) -> batches.Batch:
    """Batches of one to `count_max` transactions; without `valid` some break static rules."""
    chain_id, scheme = draw(digests), draw(small_schemes)
    body = bodies(chain_id=chain_id, valid=True, plain=plain)
    if not valid:
        wrong = bodies(chain_id=chain_id).map(lambda b: msgspec.structs.replace(b, version=1))
        body = body | wrong
    transactions_ = draw(tuples(signed(body, scheme), 1, count_max))
    return batches.build_batch(
        transactions_,
        chain_id=chain_id,
        epoch=draw(u64),
        author=draw(u16),
        shard=draw(st.integers(0, limits.SHARDS_MAX - 1)),
        sequence=draw(u64),
    )


batch_refs = st.builds(batches.BatchRef, shard=u8, sequence=u64, digest=digests)
block_refs = st.builds(dag.BlockRef, round=u64, author=u16, digest=digests)
signatures = st.binary(max_size=40)
checkpoint_votes = st.builds(dag.CheckpointVote, height=u64, digest=digests, signature=signatures)
dag_headers = st.builds(
    dag.DagHeader,
    version=u8,
    epoch=u64,
    round=u64,
    author=u16,
    timestamp_ms=u64,
    ancestors=tuples(block_refs),
    batches=tuples(batch_refs),
    votes=tuples(checkpoint_votes, 0, 2),
)
dag_blocks = st.builds(dag.DagBlock, dag_headers, signatures)
commits = st.builds(
    dag.Commit,
    epoch=u64,
    index=u64,
    previous=digests,
    timestamp_ms=u64,
    leader=block_refs,
    blocks=tuples(block_refs),
)
block_headers = st.builds(
    blocks.BlockHeader,
    version=u8,
    chain_id=digests,
    epoch=u64,
    height=u64,
    parent=digests,
    commit_index=u64,
    commit_digest=digests,
    timestamp_ms=u64,
    transactions_root=digests,
    receipts_root=digests,
    write_set_digest=digests,
    transaction_count=u32,
    failed_count=u32,
    gas_used=u64,
)
events = st.builds(
    blocks.Event, source=digests, topic=st.binary(max_size=64), data=st.binary(max_size=40)
)
receipts = st.builds(
    blocks.Receipt,
    transaction_id=digests,
    status=u16,
    gas_used=u64,
    return_data=st.binary(max_size=40),
    events=tuples(events, 0, 2),
)
checkpoints = st.builds(
    blocks.Checkpoint,
    chain_id=digests,
    height=u64,
    block_hash=digests,
    state_root=digests,
    commit_index=u64,
    commit_digest=digests,
    committee=digests,
    epoch=u64,
    version=u8,
)
certificates = st.builds(
    blocks.Certificate,
    checkpoint=checkpoints,
    votes=tuples(st.builds(blocks.CertificateVote, author=u16, signature=signatures)),
)
write_sets = st.builds(
    blocks.WriteSet,
    addresses=st.binary(max_size=64),
    nonces=st.binary(max_size=16),
    balances=st.binary(max_size=16),
    key_ids=st.binary(max_size=64),
)
block_records = st.builds(
    blocks.BlockRecord,
    header=block_headers,
    commits=tuples(commits, 0, 2),
    bodies=tuples(st.binary(max_size=40)),
    receipts=tuples(st.binary(max_size=40)),
    write_set=write_sets,
    checkpoint=st.none() | checkpoints,
)


@st.composite
def members(draw: st.DrawFn, scheme: int | None = None) -> Member:
    """Committee members whose keys are noise of the right size."""
    scheme = draw(small_schemes) if scheme is None else scheme
    size = SCHEME_SIZES[Scheme(scheme)].public_key
    return Member(
        scheme=scheme,
        public_key=draw(st.binary(min_size=size, max_size=size)),
        stake=draw(st.integers(1, 2**40)),
        reward=draw(digests),
    )


geneses = st.builds(
    genesis.Genesis,
    version=st.just(genesis.GENESIS_VERSION),
    name=st.text(min_size=1, max_size=16),
    development=st.just(True),
    timestamp_ms=u64,
    schemes=st.just((int(Scheme.ED25519), int(Scheme.KEYED_HASH))),
    parameters=st.builds(genesis.Parameters),
    members=st.lists(
        members(), min_size=1, max_size=4, unique_by=(lambda m: m.public_key, lambda m: m.reward)
    ).map(tuple),
    accounts=st.lists(
        st.builds(genesis.GenesisAccount, address=digests, balance=st.integers(0, 2**50)),
        max_size=4,
        unique_by=lambda account: account.address,
    ).map(tuple),
)
"""Geneses that `check_genesis` takes."""

_blobs = tuples(st.binary(max_size=40), 1)
signed_slots = st.builds(
    evidence.SignedSlot,
    slot=st.builds(
        dag.Slot,
        version=u8,
        epoch=u64,
        round=u64,
        author=u16,
        timestamp_ms=u64,
        content=digests,
    ),
    signature=signatures,
)
equivocations = st.builds(evidence.Equivocation, first=signed_slots, second=signed_slots)
public_keys = st.builds(messages.PublicKey, scheme=u8, public_key=st.binary(max_size=40))
all_messages: SearchStrategy[messages.Message] = st.one_of(
    st.builds(messages.Batches, batches=_blobs),
    st.builds(messages.BatchAcks, digests=tuples(digests, 1)),
    st.builds(messages.BatchRequest, digests=tuples(digests, 1)),
    st.builds(messages.Keys, keys=tuples(public_keys)),
    st.builds(messages.KeyRequest, key_ids=tuples(digests, 1)),
    st.builds(messages.DagBlocks, blocks=_blobs),
    st.builds(messages.SnapshotRequest, height=u64, part=u32),
    st.builds(messages.SnapshotPart, height=u64, part=u32, data=st.binary(max_size=40)),
    st.builds(messages.Evidence, equivocations=tuples(equivocations, 1)),
    st.builds(messages.DagRequest, refs=tuples(block_refs, 1)),
    st.builds(
        messages.PeerStatus,
        epoch=u64,
        round=u64,
        commit_index=u64,
        height=u64,
        your_round=u64,
        final_height=u64,
    ),
    st.builds(messages.LedgerRequest, first_height=u64, count_max=u32),
    st.builds(
        messages.LedgerBlocks,
        records=tuples(st.binary(max_size=40)),
        certificate=st.none() | certificates,
    ),
)
