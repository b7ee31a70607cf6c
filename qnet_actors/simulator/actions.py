"""Actions of validators' owners in a run, which everybody is offered until they are executed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from qnet_actors.client import build, sign
from qnet_actors.mempool import shard_of
from qnet_actors.rooms import Room, Submit
from qnet_actors.simulator.accounts import Accounts
from qnet_actors.simulator.host import Host
from qnet_actors.simulator.signing import SimSigner
from qnet_actors.wire.genesis import Genesis
from qnet_actors.wire.transactions import Action


class Actions:
    """Signs actions and sends them to all validators that take them."""

    def __init__(self, hosts: Sequence[Host], accounts: Accounts, genesis: Genesis) -> None:
        self._hosts: Final = hosts
        self._accounts: Final = accounts
        self.chain_id: Final = genesis.chain_id()
        self._requests = 0

    def nonce(self, owner: SimSigner) -> int:
        """The next one of the owner's account."""
        return self._accounts.get(owner.key_id).nonce

    def submit(self, owner: SimSigner, nonce: int, action: Action) -> None:
        """Sends an action to every validator that takes it, unless it is executed."""
        if self.nonce(owner) != nonce:
            return
        chain_id, sender = self.chain_id, owner.key_id
        body = build(chain_id=chain_id, sender=sender, signer=owner, nonce=nonce, action=action)
        data = sign(body, owner).data
        for host in self._hosts:
            if host.takes_part and host.node is not None:
                self._requests += 1
                shard = shard_of(owner.key_id, host.node.shard_count)
                host.handle(Room.MEMPOOL, Submit(-self._requests, (data,)), shard)
