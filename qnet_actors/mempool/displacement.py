"""Room in a shard that has all the work it may take on: who pays more displaces who pays least.

The work that counts is what can be executed: verified now, ready, or batched.  Of that only what is
ready can still give way.
"""

from __future__ import annotations

from typing import Final

from qnet_actors.mempool.entries import Entry
from qnet_actors.mempool.pool import Added, Pool
from qnet_actors.mempool.senders import Account
from qnet_actors.wire.codes import Code


class Displacement:
    """Takes one for one: the number of what is ready stays."""

    def __init__(self, pool: Pool) -> None:
        self._pool: Final = pool

    @property
    def rank(self) -> int | None:
        """The gas price that must be exceeded; None: nothing can give way."""
        worst = self._worst()
        return None if worst is None else worst.rank

    def add(self, entry: Entry, account: Account) -> Added:
        """Adds a verified entry in the place of the one that would be batched last.

        A replacement takes the place of what it replaces.  BUSY is what pays too little by itself:
        a gateway concludes from it that nobody need offer as much.  POOL_FULL is what pays enough
        and would wait all the same, for a nonce before it or behind a cheap one of its sender.
        """
        pool = self._pool
        if entry.nonce < pool.end_of(entry.sender, account.nonce):
            return pool.add(entry, account)
        worst = self._worst()
        if worst is None:
            return Added(Code.BUSY)
        if entry.gas_price <= worst.rank:
            return Added(Code.BUSY, pays_too_little(worst.rank))
        missing, before = pool.end_of(entry.sender, account.nonce), pool.before(entry)
        if entry.nonce > missing:
            return Added(Code.POOL_FULL, f"the first nonce missing is {missing}; send it first")
        if before is not None and before.rank <= worst.rank:
            return Added(
                Code.POOL_FULL, f"it waits for an earlier one; {pays_too_little(worst.rank)}"
            )
        added = pool.add(entry, account)
        if added.code != Code.SUCCESS:
            return added
        if worst.ticket:
            # A pool that is full besides may have evicted it already.
            pool.remove(worst)
            return added._replace(evicted=(*added.evicted, worst))
        return added

    def _worst(self) -> Entry | None:
        """What is promised does not give way: it is ready, so it is batched soon."""
        found = (ready.last() for ready in self._pool.ready.values())
        return min(
            (entry for entry in found if entry is not None),
            key=lambda entry: (entry.rank, -entry.ticket),
            default=None,
        )


def pays_too_little(rank: int) -> str:
    """What the sender of a refused transaction is told."""
    return f"at present only a gas price above {rank} is taken"
