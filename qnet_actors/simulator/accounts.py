"""The accounts as the executed blocks leave them, followed apart from the cores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from qnet_actors.ledger import REGISTRY_HEAD
from qnet_actors.wire.blocks import BlockRecord
from qnet_actors.wire.genesis import Genesis
from qnet_actors.wire.limits import U64_MAX
from qnet_actors.wire.transactions import BODY_CODEC


@dataclass(slots=True)
class Account:
    nonce: int
    balance: int
    key_id: bytes


class Accounts:
    """Nonces, balances and keys, from the write sets of blocks in order of height."""

    def __init__(self, genesis: Genesis) -> None:
        self._accounts = {
            entry.address: Account(0, entry.balance, bytes(32)) for entry in genesis.accounts
        }
        self.supply = sum(entry.balance for entry in genesis.accounts)
        self._staked: Final = sum(member.stake for member in genesis.members)
        """Becomes balances with the first action on the validators."""

    def get(self, address: bytes) -> Account:
        return self._accounts.get(address) or Account(0, 0, bytes(32))

    def apply(self, record: BlockRecord) -> tuple[str, str] | None:
        """Follows a block.  Returns the invariant that it breaks, by name and with a reason."""
        height = record.header.height
        nonces: dict[bytes, int] = {}
        for data in record.bodies:
            body = BODY_CODEC.decode(data)
            expected = nonces.get(body.sender, self.get(body.sender).nonce)
            if body.nonce != expected:
                return "nonce_order", f"nonce {body.nonce}, not {expected}, at height {height}"
            nonces[body.sender] = expected + 1
        written = record.write_set
        columns = zip(
            np.frombuffer(written.nonces, "<u8").tolist(),
            np.frombuffer(written.balances, "<u8").tolist(),
            strict=True,
        )
        change = 0
        for row, (nonce, balance) in enumerate(columns):
            address = written.addresses[32 * row : 32 * row + 32]
            before = self.get(address)
            if nonce == U64_MAX:
                # The registry of validators: an account that nothing is ever sent from.
                if address == REGISTRY_HEAD and not before.nonce:
                    self.supply += self._staked
                    change -= self._staked
            elif nonce != nonces.pop(address, before.nonce):
                return "nonce_order", f"a nonce became {nonce} at height {height}"
            change += balance - before.balance
            key_id = written.key_ids[32 * row : 32 * row + 32]
            self._accounts[address] = Account(nonce, balance, key_id)
        if nonces:
            return "nonce_order", f"a sender's nonce was not written at height {height}"
        if change:
            return "supply", f"the supply changed by {change} at height {height}"
        return None
