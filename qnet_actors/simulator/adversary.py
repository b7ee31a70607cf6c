"""A validator that lies: an honest node whose words are changed on their way out."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from random import Random
from typing import Final

import msgspec

from qnet_actors.simulator.links import Links
from qnet_actors.simulator.signing import SimSigner
from qnet_actors.wire.batches import Batch, BatchRef, decode_batch
from qnet_actors.wire.blocks import BLOCK_RECORD_CODEC
from qnet_actors.wire.codec import encode
from qnet_actors.wire.dag import (
    BlockRef,
    CheckpointVote,
    DagBlock,
    DagHeader,
    decode_dag_block,
    header_digest,
)
from qnet_actors.wire.hashing import BATCH_WITNESSES, hash32
from qnet_actors.wire.messages import (
    BatchAcks,
    Batches,
    BatchRequest,
    DagBlocks,
    DagRequest,
    KeyRequest,
    Keys,
    LedgerBlocks,
    LedgerRequest,
    Message,
    PeerStatus,
    PublicKey,
    SnapshotPart,
)
from qnet_actors.wire.schemes import CONTEXT_CHECKPOINT, dag_context

BLOCKS_REMEMBERED_MAX: Final = 256


class Attack(StrEnum):
    """What a lying validator does; it takes up a few at a time."""

    EQUIVOCATE = "equivocate"
    """Two blocks in a round, each to a half of the others."""
    WITHHOLD = "withhold"
    """Own blocks go to some only."""
    BAD_SIGNATURE = "bad_signature"
    """A block with a broken signature goes ahead of the good one."""
    BAD_ANCESTORS = "bad_ancestors"
    """A signed block with too few ancestors, one that nobody made, or one under another's name,
    goes ahead."""
    STOLEN_BATCH = "stolen_batch"
    """A block names a batch of somebody else, perhaps one that was executed long ago."""
    WRONG_VOTE = "wrong_vote"
    """Votes for a checkpoint that nobody else executed."""
    TIMESTAMPS = "timestamps"
    """Blocks from long ago, or from far ahead."""
    LYING_STATUS = "lying_status"
    """Claims rounds and heights that are not, its own and those of the receiver."""
    TAMPERED_LEDGER = "tampered_ledger"
    """Ledger blocks with other balances for whoever catches up."""
    WITHHELD_BATCHES = "withheld_batches"
    """Batches are pushed to some only."""
    BROKEN_BATCHES = "broken_batches"
    """A batch with one broken witness goes ahead of the good one."""
    NO_ANSWERS = "no_answers"
    """Requests are not answered."""
    JUNK = "junk"
    """Bytes that mean nothing, in messages that are well formed."""
    REPLAY = "replay"
    """Old blocks again."""


class Adversary:
    """Takes the place of a host's `outgoing`.  Draws from the run's generator alone."""

    def __init__(
        self,
        index: int,
        validators: int,
        signer: SimSigner,
        chain_id: bytes,
        links: Links,
        rng: Random,
        attacks: Counter[str],
    ) -> None:
        self.active: list[Attack] = []
        self.index: Final = index
        self._others = [peer for peer in range(validators) if peer != index]
        self._signer = signer
        self._context = dag_context(chain_id)
        self._links = links
        self._rng = rng
        self._attacks = attacks
        self._favoured: list[int] = []
        self._old: list[bytes] = []
        self._twins: dict[BlockRef, bytes] = {}
        self._acked: list[bytes] = []
        """Batches of others."""

    def choose(self) -> None:
        """Takes up one to three attacks, and whom it favours meanwhile."""
        self.active = self._rng.sample(list(Attack), self._rng.randrange(1, 4))
        size = self._rng.randrange(1, len(self._others) + 1)
        self._favoured = sorted(self._rng.sample(self._others, size))

    def rest(self) -> None:
        """Behaves from now on."""
        self.active = []

    def outgoing(self, message: Message, peers: tuple[int, ...] | None) -> None:
        """Sends `message`, or what is made of it."""
        if isinstance(message, BatchAcks):
            self._acked = [*self._acked, *message.digests][-BLOCKS_REMEMBERED_MAX:]
        if not self.active:
            self._links.send(self.index, message, peers)
            return
        if self._on(Attack.JUNK) and self._rng.random() < 0.2:
            self._fire(Attack.JUNK, self._junk(), peers)
        match message:
            case DagBlocks():
                self._dag_blocks(message, peers)
            case Batches():
                self._batches(message, peers)
            case PeerStatus() if self._on(Attack.LYING_STATUS):
                self._fire(Attack.LYING_STATUS, self._lie(message), peers)
            case LedgerBlocks() | SnapshotPart() if self._on(Attack.NO_ANSWERS):
                self._attacks[Attack.NO_ANSWERS] += 1
            case LedgerBlocks() if self._on(Attack.TAMPERED_LEDGER) and message.records:
                self._fire(Attack.TAMPERED_LEDGER, self._tamper(message), peers)
            case SnapshotPart(data=data) if self._on(Attack.TAMPERED_LEDGER) and data:
                at = self._rng.randrange(len(data))
                data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
                part = msgspec.structs.replace(message, data=data)
                self._fire(Attack.TAMPERED_LEDGER, part, peers)
            case _:
                self._links.send(self.index, message, peers)

    def _on(self, attack: Attack) -> bool:
        return attack in self.active

    def _fire(self, attack: Attack, message: Message, peers: tuple[int, ...] | None) -> None:
        self._attacks[attack] += 1
        self._links.send(self.index, message, peers)

    def _dag_blocks(self, message: DagBlocks, peers: tuple[int, ...] | None) -> None:
        receivers = self._others if peers is None else list(peers)
        own = [
            block
            for block in map(decode_dag_block, message.blocks)
            if block.header.author == self.index
        ]
        if self._on(Attack.REPLAY) and self._old and self._rng.random() < 0.3:
            self._fire(Attack.REPLAY, DagBlocks((self._rng.choice(self._old),)), peers)
        self._old = (self._old + [block.encoded for block in own])[-BLOCKS_REMEMBERED_MAX:]
        if not own:
            if self._on(Attack.NO_ANSWERS):
                self._attacks[Attack.NO_ANSWERS] += 1
            else:
                self._links.send(self.index, message, peers)
            return
        if self._on(Attack.BAD_SIGNATURE):
            block = self._rng.choice(own)
            broken = bytes([block.signature[0] ^ 1]) + block.signature[1:]
            self._fire(
                Attack.BAD_SIGNATURE, DagBlocks((DagBlock(block.header, broken).encoded,)), peers
            )
        if self._on(Attack.BAD_ANCESTORS):
            self._fire(Attack.BAD_ANCESTORS, DagBlocks((self._bad_ancestors(own[-1]),)), peers)
        for receiver in receivers:
            if self._on(Attack.WITHHOLD) and receiver not in self._favoured:
                self._attacks[Attack.WITHHOLD] += 1
                continue
            sent = message
            if (
                self._on(Attack.WRONG_VOTE)
                or self._on(Attack.TIMESTAMPS)
                or self._on(Attack.STOLEN_BATCH)
                or (self._on(Attack.EQUIVOCATE) and receiver not in self._favoured)
            ):
                sent = DagBlocks(tuple(self._twin(data) for data in message.blocks))
            self._links.send(self.index, sent, (receiver,))

    def _twin(self, data: bytes) -> bytes:
        """Another block for the slot of an own one, the same each time it is asked for."""
        block = decode_dag_block(data)
        if block.header.author != self.index:
            return data
        known = self._twins.get(block.ref)
        if known is not None:
            return known
        header = block.header
        if self._on(Attack.WRONG_VOTE) and header.votes:
            votes = tuple(self._wrong_vote(vote) for vote in header.votes)
            twin = self._sign(msgspec.structs.replace(header, votes=votes))
            self._attacks[Attack.WRONG_VOTE] += 1
        elif self._on(Attack.TIMESTAMPS):
            off_ms = self._rng.choice((1, 10**6, 10**15, 2**64 - 1))
            twin = self._sign(msgspec.structs.replace(header, timestamp_ms=off_ms))
            self._attacks[Attack.TIMESTAMPS] += 1
        elif self._on(Attack.STOLEN_BATCH) and self._acked:
            twin = self._sign(self._steal(header))
            self._attacks[Attack.STOLEN_BATCH] += 1
        elif self._on(Attack.EQUIVOCATE):
            twin = self._sign(msgspec.structs.replace(header, timestamp_ms=header.timestamp_ms + 1))
            self._attacks[Attack.EQUIVOCATE] += 1
        else:
            return data
        self._twins[block.ref] = twin
        while len(self._twins) > BLOCKS_REMEMBERED_MAX:
            del self._twins[next(iter(self._twins))]
        return twin

    def _steal(self, header: DagHeader) -> DagHeader:
        last = max((ref.sequence for ref in header.batches if not ref.shard), default=0)
        stolen = BatchRef(0, last + 1, self._rng.choice(self._acked))
        batches = (*(ref for ref in header.batches if not ref.shard), stolen)
        return msgspec.structs.replace(header, batches=batches)

    def _wrong_vote(self, vote: CheckpointVote) -> CheckpointVote:
        digest = bytes([vote.digest[0] ^ 1]) + vote.digest[1:]
        return CheckpointVote(vote.height, digest, self._signer.sign(digest, CONTEXT_CHECKPOINT))

    def _bad_ancestors(self, block: DagBlock) -> bytes:
        ancestors = block.header.ancestors
        kind = self._rng.random()
        if kind < 0.4:
            ancestors = ancestors[:1]
        elif kind < 0.7 and len(ancestors) > 1:
            borrowed = msgspec.structs.replace(ancestors[-1], digest=ancestors[0].digest)
            ancestors = (*ancestors[:-1], borrowed)
        elif ancestors:
            unknown = msgspec.structs.replace(ancestors[-1], digest=self._rng.randbytes(32))
            ancestors = (*ancestors[:-1], unknown)
        return self._sign(msgspec.structs.replace(block.header, ancestors=ancestors))

    def _sign(self, header: DagHeader) -> bytes:
        signature = self._signer.sign(header_digest(header), self._context)
        return DagBlock(header, signature).encoded

    def _batches(self, message: Batches, peers: tuple[int, ...] | None) -> None:
        # An answer goes to the one who asked; a push goes to several.
        receivers = self._others if peers is None else list(peers)
        if self._on(Attack.BROKEN_BATCHES):
            broken = self._break(self._rng.choice(message.batches))
            self._fire(Attack.BROKEN_BATCHES, Batches((broken,)), peers)
        if self._on(Attack.NO_ANSWERS) and len(receivers) == 1:
            self._attacks[Attack.NO_ANSWERS] += 1
            return
        if self._on(Attack.WITHHELD_BATCHES) and len(receivers) > 1:
            receivers = [peer for peer in receivers if peer in self._favoured]
            self._attacks[Attack.WITHHELD_BATCHES] += 1
        if receivers:
            self._links.send(self.index, message, tuple(receivers))

    def _break(self, data: bytes) -> bytes:
        """A batch that does not hash to its root, or one that does and has a bad signature."""
        if self._rng.random() < 0.3:
            return data[:-1] + bytes([data[-1] ^ 1])
        batch = decode_batch(data)
        witnesses = bytes([batch.witnesses[0] ^ 1]) + batch.witnesses[1:]
        root = hash32(BATCH_WITNESSES, witnesses)
        header = msgspec.structs.replace(batch.header, witnesses_root=root)
        return Batch(header, batch.bodies, witnesses).encode()

    def _lie(self, status: PeerStatus) -> PeerStatus:
        ahead = self._rng.choice((1, 40, 10_000, 2**63))
        return PeerStatus(
            epoch=status.epoch,
            round=status.round + ahead,
            commit_index=status.commit_index + ahead,
            height=status.height + ahead,
            your_round=status.your_round + self._rng.choice((0, 1, 1_000, 2**63)),
            final_height=status.final_height + ahead,
        )

    def _tamper(self, message: LedgerBlocks) -> LedgerBlocks:
        """Makes the first account of one block that has any richer."""
        records = list(message.records)
        for position, data in enumerate(records):
            record = BLOCK_RECORD_CODEC.decode(data)
            balances = record.write_set.balances
            if balances:
                richer = balances[:7] + bytes([balances[7] ^ 1]) + balances[8:]
                written = msgspec.structs.replace(record.write_set, balances=richer)
                header = record.header
                if self._rng.random() < 0.5:
                    header = msgspec.structs.replace(header, write_set_digest=written.digest())
                records[position] = encode(
                    msgspec.structs.replace(record, header=header, write_set=written)
                )
                break
        return LedgerBlocks(tuple(records), message.certificate)

    def _junk(self) -> Message:
        rng = self._rng
        noise = rng.randbytes(rng.randrange(1, 400))
        digest = rng.randbytes(32)
        ref = BlockRef(rng.randrange(500), rng.choice(self._others), digest)
        choices: list[Message] = [
            DagBlocks((noise,)),
            Batches((noise,)),
            BatchAcks((digest,)),
            BatchRequest((digest,)),
            DagRequest((ref,)),
            KeyRequest((digest,)),
            Keys((PublicKey(rng.randrange(256), noise),)),
            LedgerRequest(rng.randrange(2**63), rng.randrange(2**32)),
            LedgerBlocks((noise,), None),
        ]
        return rng.choice(choices)
