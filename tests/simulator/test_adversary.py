"""What the lying validator sends."""

from collections import Counter
from dataclasses import dataclass, field
from random import Random

import pytest

from qnet_actors.crypto import Signer, development_key, simulator_provider
from qnet_actors.simulator.adversary import Adversary, Attack
from qnet_actors.wire.batches import build_batch, decode_batch
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import QnetError
from qnet_actors.wire.dag import (
    BlockRef,
    CheckpointVote,
    DagBlock,
    DagHeader,
    decode_dag_block,
    header_digest,
)
from qnet_actors.wire.messages import (
    MESSAGE_CODEC,
    BatchAcks,
    Batches,
    DagBlocks,
    Message,
    PeerStatus,
)
from qnet_actors.wire.schemes import CONTEXT_CHECKPOINT, Scheme, dag_context
from qnet_actors.wire.transactions import Body, Transaction, Transfer, Witness

PROVIDER = simulator_provider()
KEY = development_key("validator", 0, Scheme.KEYED_HASH, PROVIDER)
CHAIN_ID = b"c" * 32
ZERO = bytes(32)
STATUS = PeerStatus(0, 10, 10, 10, 10, 10)


@dataclass
class Sent:
    """Links that note what was sent, and to whom."""

    messages: list[tuple[Message, tuple[int, ...] | None]] = field(default_factory=list)

    def send(self, source: int, message: Message, peers: tuple[int, ...] | None) -> None:
        assert source == 0
        self.messages.append((MESSAGE_CODEC.decode(encode(message)), peers))


def liar(*active: Attack, favoured: tuple[int, ...] = (1,)) -> tuple[Adversary, Sent]:
    sent = Sent()
    adversary = Adversary(
        0,
        4,
        Signer(KEY, PROVIDER),
        CHAIN_ID,
        sent,  # type: ignore[arg-type]
        Random(3),
        Counter(),
    )
    adversary.active, adversary._favoured = list(active), list(favoured)
    return adversary, sent


def own_block(round_: int = 5) -> bytes:
    ancestors = tuple(BlockRef(round_ - 1, author, ZERO) for author in range(4))
    votes = (CheckpointVote(3, ZERO, b"s"),)
    header = DagHeader(1, 0, round_, 0, 77, ancestors, (), votes)
    return DagBlock(
        header, Signer(KEY, PROVIDER).sign(header_digest(header), dag_context(CHAIN_ID))
    ).encoded


def is_signed(data: bytes) -> bool:
    block = decode_dag_block(data)
    return PROVIDER.verify(
        Scheme.KEYED_HASH, KEY.public_key, block.digest, block.signature, dag_context(CHAIN_ID)
    )


def test_without_an_attack_it_says_what_it_means():
    adversary, sent = liar()
    adversary.outgoing(DagBlocks((own_block(),)), None)
    assert sent.messages == [(DagBlocks((own_block(),)), None)]
    adversary.choose()
    assert 1 <= len(adversary.active) <= 3
    adversary.rest()
    assert adversary.active == []


def test_equivocation_is_two_signed_blocks_of_one_slot_the_same_each_time():
    adversary, sent = liar(Attack.EQUIVOCATE)
    for _ in range(2):
        adversary.outgoing(DagBlocks((own_block(),)), None)
    blocks = {peers: message.blocks[0] for message, peers in sent.messages if peers}  # type: ignore[union-attr]
    assert blocks[1,] == own_block()
    assert blocks[2,] == blocks[3,] != own_block()
    twin = decode_dag_block(blocks[2,])
    assert (twin.ref.round, twin.ref.author) == (5, 0)
    assert is_signed(blocks[2,])
    assert len(sent.messages) == 6
    assert len({message.blocks[0] for message, _ in sent.messages}) == 2  # type: ignore[union-attr]


def test_withholding_sends_to_the_favoured_only():
    adversary, sent = liar(Attack.WITHHOLD, favoured=(2,))
    adversary.outgoing(DagBlocks((own_block(),)), None)
    assert [peers for _, peers in sent.messages] == [(2,)]


def test_a_broken_signature_goes_ahead_of_the_good_block():
    adversary, sent = liar(Attack.BAD_SIGNATURE)
    adversary.outgoing(DagBlocks((own_block(),)), (1,))
    bad, good = [message.blocks[0] for message, _ in sent.messages]  # type: ignore[union-attr]
    assert (is_signed(bad), is_signed(good)) == (False, True)


def test_bad_ancestors_are_signed():
    adversary, sent = liar(Attack.BAD_ANCESTORS)
    adversary.outgoing(DagBlocks((own_block(),)), (1,))
    bad, good = [message.blocks[0] for message, _ in sent.messages]  # type: ignore[union-attr]
    assert is_signed(bad)
    assert decode_dag_block(bad).header.ancestors != decode_dag_block(good).header.ancestors


def test_a_wrong_vote_is_a_signed_one():
    adversary, sent = liar(Attack.WRONG_VOTE)
    adversary.outgoing(DagBlocks((own_block(),)), (1,))
    ((message, _),) = sent.messages
    (vote,) = decode_dag_block(message.blocks[0]).header.votes  # type: ignore[union-attr]
    assert vote.digest != ZERO
    assert PROVIDER.verify(
        Scheme.KEYED_HASH, KEY.public_key, vote.digest, vote.signature, CONTEXT_CHECKPOINT
    )


def test_a_stolen_batch_is_named_as_an_own_one_in_every_copy_of_the_block():
    adversary, sent = liar(Attack.STOLEN_BATCH)
    adversary.outgoing(BatchAcks((bytes([7]) * 32,)), (1,))
    for _ in range(2):
        adversary.outgoing(DagBlocks((own_block(),)), None)
    blocks = {message.blocks[0] for message, _ in sent.messages if isinstance(message, DagBlocks)}
    (data,) = blocks
    assert decode_dag_block(data).header.batches[-1].digest == bytes([7]) * 32
    assert is_signed(data)


def test_a_block_of_another_time_is_signed():
    adversary, sent = liar(Attack.TIMESTAMPS)
    adversary.outgoing(DagBlocks((own_block(),)), (1,))
    ((message, _),) = sent.messages
    assert decode_dag_block(message.blocks[0]).header.timestamp_ms != 77  # type: ignore[union-attr]
    assert is_signed(message.blocks[0])  # type: ignore[union-attr]


def test_lies_of_a_status_are_higher():
    adversary, sent = liar(Attack.LYING_STATUS)
    adversary.outgoing(STATUS, None)
    ((lie, _),) = sent.messages
    assert isinstance(lie, PeerStatus)
    assert lie.commit_index > STATUS.commit_index


def batch_bytes() -> bytes:
    body = Body(1, ZERO, KEY.key_id, KEY.key_id, 0, 0, 1_000, 1, (), Transfer(ZERO, 1))
    transaction = Transaction(body, Witness(255, bytes(32), KEY.public_key))
    return build_batch(
        [transaction], chain_id=ZERO, epoch=0, author=0, shard=0, sequence=1
    ).encode()


def test_broken_batches_go_ahead_and_some_of_them_decode():
    good = batch_bytes()
    adversary, sent = liar(Attack.BROKEN_BATCHES)
    for _ in range(20):
        adversary.outgoing(Batches((good,)), None)
    broken = [message.batches[0] for message, _ in sent.messages[::2]]  # type: ignore[union-attr]
    assert all(message.batches == (good,) for message, _ in sent.messages[1::2])  # type: ignore[union-attr]
    assert good not in broken
    decoded = 0
    for data in broken:
        try:
            decoded += decode_batch(data).digest != decode_batch(good).digest
        except QnetError:
            continue
    assert 0 < decoded < 20


def test_batches_are_withheld_from_some_and_requests_not_answered():
    adversary, sent = liar(Attack.WITHHELD_BATCHES, favoured=(3,))
    adversary.outgoing(Batches((batch_bytes(),)), None)
    assert [peers for _, peers in sent.messages] == [(3,)]
    adversary, sent = liar(Attack.NO_ANSWERS)
    adversary.outgoing(Batches((batch_bytes(),)), (2,))
    assert sent.messages == []


@pytest.mark.parametrize("attack", list(Attack))
def test_whatever_it_says_decodes_as_a_message(attack: Attack):
    adversary, sent = liar(attack)
    adversary.outgoing(BatchAcks((ZERO,)), (1,))
    for number in range(1, 60):
        adversary.outgoing(DagBlocks((own_block(number),)), None)
        adversary.outgoing(Batches((batch_bytes(),)), None)
        adversary.outgoing(STATUS, None)
    # Each message passed the codec in `Sent.send`.
    assert sent.messages
