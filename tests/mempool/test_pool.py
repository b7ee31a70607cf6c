"""The pool against a model that keeps a list and looks at all of it every time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from qnet_actors.mempool.entries import BATCHED, PENDING, SEEN, Entry, Rows
from qnet_actors.mempool.pool import Added, Pool
from qnet_actors.mempool.senders import Account, AccountRows
from qnet_actors.rooms import AccountColumns
from qnet_actors.wire.codes import Code
from tests.mempool.world import ZERO, digest_of, settings

POOL_MAX = 8
SENDER_MAX = 5
WINDOW = 3
SENDERS = [digest_of(i) for i in range(1, 4)]
SETTINGS = settings(
    pool_transactions_max=POOL_MAX,
    pool_size_bytes_max=3_000,
    sender_transactions_max=SENDER_MAX,
    nonce_window=WINDOW,
)
_ids = iter(range(10**9))


def entry(sender: bytes, nonce: int, price: int, **fields) -> Entry:
    terms: dict[str, Any] = {
        "id": digest_of(next(_ids) + 10**6),
        "scheme": 255,
        "sender": sender,
        "key_id": sender,
        "nonce": nonce,
        "valid_until": 0,
        "gas_limit": 1,
        "gas_price": price,
        "data": b"",
        "payload_at": 0,
        "payload_end": 0,
        "public_key": b"",
        "brings_key": False,
        "cost": price,
        "size_bytes": 300,
    }
    return Entry(**(terms | fields))


def rows_of_entries(entries: list[Entry], plain: list[bool] | None = None) -> Rows:
    return Rows(
        entries,
        np.array([e.nonce for e in entries], dtype=np.uint64),
        np.array([e.cost for e in entries], dtype=np.uint64),
        np.array([e.gas_price for e in entries], dtype=np.uint64),
        np.array([e.size_bytes for e in entries], dtype=np.int64),
        np.array([True] * len(entries) if plain is None else plain, dtype=np.bool_),
    )


@dataclass
class Model:
    """What the pool should hold, in plain lists; `age` rises with every way into pending."""

    accounts: dict[bytes, tuple[int, int]] = field(
        default_factory=lambda: dict.fromkeys(SENDERS, (0, 100))
    )
    entries: list[Entry] = field(default_factory=list)
    states: dict[bytes, int] = field(default_factory=dict)
    ages: dict[bytes, int] = field(default_factory=dict)
    age: int = 0

    def of(self, sender: bytes) -> dict[int, Entry]:
        return {e.nonce: e for e in self.entries if e.sender == sender}

    def end(self, sender: bytes) -> int:
        nonce = self.accounts[sender][0]
        while nonce in self.of(sender):
            nonce += 1
        return nonce

    def expected(self, new: Entry) -> Code:
        nonce, balance = self.accounts[new.sender]
        mine = self.of(new.sender)
        if new.nonce < nonce:
            return Code.NONCE_TOO_LOW
        if new.nonce > self.end(new.sender) + WINDOW:
            return Code.NONCE_TOO_FAR
        old = mine.get(new.nonce)
        if old is not None and self.states[old.id] != PENDING:
            return Code.NONCE_TOO_LOW
        if old is not None and new.gas_price < 1.1 * old.gas_price:
            return Code.REPLACEMENT_UNDERPRICED
        if old is None and len(mine) >= SENDER_MAX:
            return Code.SENDER_LIMIT
        if sum(e.cost for e in mine.values() if e is not old) + new.cost > balance:
            return Code.INSUFFICIENT_FUNDS
        return Code.SUCCESS

    def add(self, new: Entry) -> None:
        self.entries.append(new)
        self.pending(new)

    def pending(self, entry: Entry) -> None:
        self.age += 1
        self.states[entry.id], self.ages[entry.id] = PENDING, self.age

    def remove(self, entry: Entry) -> None:
        self.entries.remove(entry)
        del self.ages[entry.id]

    def victims(self, new: Entry) -> list[Entry] | None:
        """The worst-paying pending entries, newest first among equals, as many as needed."""
        old = self.of(new.sender).get(new.nonce)
        rest = [e for e in self.entries if e is not old]
        worst = sorted(
            (e for e in rest if self.states[e.id] == PENDING and e.gas_price < new.gas_price),
            key=lambda e: (e.gas_price, -self.ages[e.id]),
        )
        victims: list[Entry] = []
        size = sum(e.size_bytes for e in rest) + new.size_bytes
        while len(rest) - len(victims) + 1 > POOL_MAX or size > SETTINGS.pool_size_bytes_max:
            if not worst:
                return None
            victims.append(worst.pop(0))
            size -= victims[-1].size_bytes
        return victims

    def ready(self) -> set[bytes]:
        return {
            e.id
            for e in self.entries
            if self.states[e.id] == PENDING and e.nonce < self.end(e.sender)
        }


class PoolMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool(SETTINGS)
        self.model = Model()

    def account(self, sender: bytes) -> Account:
        return Account(*self.model.accounts[sender], ZERO)

    @rule(
        sender=st.sampled_from(SENDERS),
        nonce=st.integers(0, 12),
        price=st.integers(1, 30),
        size=st.sampled_from([100, 300, 900]),
    )
    def add(self, sender: bytes, nonce: int, price: int, size: int) -> None:
        new = entry(sender, nonce, price, size_bytes=size)
        expected, victims = self.model.expected(new), self.model.victims(new)
        if expected == Code.SUCCESS and victims is None:
            expected = Code.POOL_FULL
        old = self.model.of(sender).get(nonce)
        added = self.pool.add(new, self.account(sender))
        assert added.code == expected
        if added.code == Code.SUCCESS:
            assert added.replaced is old
            assert list(added.evicted) == victims
            for gone in (*added.evicted, *([old] if old else [])):
                self.model.remove(gone)
            self.model.add(new)
        else:
            assert (added.replaced, added.evicted) == (None, ())
            assert new.id not in self.pool

    @rule(
        wanted=st.lists(
            st.tuples(
                st.sampled_from(SENDERS),
                st.integers(-1, 2) | st.just(0),
                st.integers(1, 30),
                st.booleans(),
            ),
            min_size=1,
            max_size=5,
        )
    )
    def add_rows(self, wanted: list[tuple[bytes, int, int, bool]]) -> None:
        ends = {sender: self.model.end(sender) for sender in SENDERS}
        entries = []
        for sender, ahead, price, _ in wanted:
            entries.append(entry(sender, max(ends[sender] + ahead, 0), price))
            ends[sender] += ahead == 0
        done = self.pool.add_rows(
            rows_of_entries(entries, [plain for *_, plain in wanted]), self.account_rows(entries)
        )
        for row, new in enumerate(entries):
            expected, victims = self.model.expected(new), self.model.victims(new)
            if expected == Code.SUCCESS and victims is None:
                expected = Code.POOL_FULL
            old = self.model.of(new.sender).get(new.nonce)
            added = done.get(row, Added(Code.SUCCESS))
            assert added.code == expected
            if expected == Code.SUCCESS:
                assert (added.replaced, list(added.evicted)) == (old, victims)
                for gone in (*added.evicted, *([old] if old else [])):
                    self.model.remove(gone)
                self.model.add(new)
        # Plain rows go first: which of a call counts as the newer is the pool's own choice.
        for new in sorted(entries, key=lambda e: e.order):
            if new.id in self.model.ages:
                self.model.pending(new)

    def account_rows(self, entries: list[Entry]) -> AccountRows:
        accounts = [self.model.accounts[each.sender] for each in entries]
        senders = np.frombuffer(b"".join(e.sender for e in entries), dtype=np.uint8)
        return AccountRows(
            AccountColumns(
                np.array([nonce for nonce, _ in accounts], dtype=np.uint64),
                np.array([balance for _, balance in accounts], dtype=np.uint64),
                np.zeros((len(entries), 32), dtype=np.uint8),
            ),
            senders.reshape(-1, 32),
            senders.reshape(-1, 32),
        )

    @rule(sender=st.sampled_from(SENDERS), to=st.integers(1, 3), balance=st.integers(20, 120))
    def block(self, sender: bytes, to: int, balance: int) -> None:
        nonce = self.model.accounts[sender][0] + to
        self.model.accounts[sender] = (nonce, balance)
        spent, stale = self.pool.advance(sender, self.account(sender))
        gone = [e for e in self.model.entries if e.sender == sender and e.nonce < nonce]
        assert sorted(e.nonce for e in spent) == sorted(e.nonce for e in gone)
        assert not stale
        for e in gone:
            self.model.remove(e)
        poor = self.pool.unpayable(sender, self.account(sender))
        mine = self.model.of(sender)
        for at in sorted(mine, reverse=True):
            if sum(e.cost for e in self.model.of(sender).values()) <= balance:
                break
            if self.model.states[mine[at].id] == PENDING:
                assert mine[at] in poor
                self.model.remove(mine[at])
        assert all(e not in self.model.entries for e in poor)

    @rule(count=st.integers(1, 4))
    def batch(self, count: int) -> None:
        ready = self.pool.ready.get(255)
        taken: list[Entry] = []
        while ready is not None and len(taken) < count and (first := ready.first()) is not None:
            ready.pop()
            taken.append(first)
        ranks = [e.rank for e in taken]
        assert ranks == sorted(ranks, reverse=True)
        digest = digest_of(next(_ids))
        self.pool.batched(taken, digest)
        for e in taken:
            # What comes before it is on its way already, or in this very batch before it.
            before = range(self.model.accounts[e.sender][0], e.nonce)
            mine = self.model.of(e.sender)
            assert all(self.model.states[mine[at].id] != PENDING for at in before)
            self.model.states[e.id] = BATCHED

    @rule(data=st.data())
    def seen(self, data: st.DataObject) -> None:
        if not self.model.entries:
            return
        picked = data.draw(st.lists(st.sampled_from(self.model.entries), max_size=3))
        ids = [e.id for e in picked] + [digest_of(1)]
        fresh = {e.id for e in picked if self.model.states[e.id] == PENDING and not e.seen}
        left = self.pool.seen(ids, digest_of(2))
        assert {e.id for e in left} == fresh
        self.model.states.update(dict.fromkeys(fresh, SEEN))

    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        out = [e for e in self.model.entries if self.model.states[e.id] != PENDING]
        if not out:
            return
        picked = data.draw(st.lists(st.sampled_from(out), max_size=4, unique_by=id))
        self.pool.restore(picked)
        for e in picked:
            self.model.pending(e)

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        if not self.model.entries:
            return
        picked = data.draw(st.sampled_from(self.model.entries))
        self.pool.remove(picked)
        self.pool.remove(picked)
        self.model.remove(picked)

    @invariant()
    def agrees(self) -> None:
        pool, model = self.pool, self.model
        assert len(pool) == len(model.entries) <= POOL_MAX
        assert pool.size_bytes == sum(e.size_bytes for e in model.entries)
        assert pool.size_bytes <= SETTINGS.pool_size_bytes_max
        for e in model.entries:
            assert pool.get(e.id) is e
            assert e.state == model.states[e.id]
        for sender in SENDERS:
            mine = model.of(sender)
            # None of these makes a queue of a sender that is regular.
            assert pool.has_sender(sender) == bool(mine)
            assert pool.cost_of(sender) == sum(e.cost for e in mine.values())
            nonce = model.accounts[sender][0]
            assert pool.end_of(sender, nonce) == model.end(sender)
            for at, e in mine.items():
                assert pool.before(e) is mine.get(at - 1)
        assert len(pool.columns) == len({e.sender for e in model.entries})
        ready = pool.ready.get(255)
        exposed = {e.id for e in model.entries if e.ticket}
        assert exposed == model.ready()
        assert len(ready or ()) == len(exposed)


TestPool = PoolMachine.TestCase
TestPool.settings = hypothesis_settings(max_examples=80, stateful_step_count=40, deadline=None)


def make(**fields) -> Pool:
    return Pool(settings(**fields))


RICH = Account(0, 10**9, ZERO)
A, B, C = SENDERS


def test_ready_is_by_price_and_in_nonce_order_within_a_sender() -> None:
    pool = make()
    cheap_first = [entry(A, 0, 5), entry(A, 1, 50), entry(A, 2, 7)]
    others = [entry(B, 0, 6), entry(C, 0, 40)]
    for e in (*cheap_first, *others):
        assert pool.add(e, RICH).code == Code.SUCCESS
    order = []
    ready = pool.ready[255]
    while (first := ready.first()) is not None:
        ready.pop()
        order.append(first)
    assert order == [others[1], others[0], *cheap_first]


def test_a_replacement_stands_where_its_own_price_puts_it() -> None:
    pool = make()
    first, second, third = entry(A, 0, 10), entry(A, 1, 10), entry(B, 0, 10)
    for e in (third, first, second):
        pool.add(e, RICH)
    better = entry(A, 0, 11)
    assert pool.add(better, RICH).replaced is first
    ready = pool.ready[255]
    order = []
    while (at := ready.first()) is not None:
        ready.pop()
        order.append(at)
    assert order == [better, third, second]


@pytest.mark.parametrize(
    ("price", "code"), [(109, Code.REPLACEMENT_UNDERPRICED), (110, Code.SUCCESS)]
)
def test_a_replacement_pays_ten_percent_more(price: int, code: Code) -> None:
    pool = make()
    pool.add(entry(A, 0, 100), RICH)
    assert pool.add(entry(A, 0, price), RICH).code == code


def test_a_replacement_of_another_scheme_moves_to_the_other_queue() -> None:
    pool = make()
    old, after = entry(A, 0, 10), entry(A, 1, 10)
    pool.add(old, RICH)
    pool.add(after, RICH)
    new = entry(A, 0, 20, scheme=4)
    assert pool.add(new, RICH).code == Code.SUCCESS
    assert pool.ready[4].first() is new
    assert pool.ready[255].first() is after
    assert len(pool.ready[255]) == 1


def test_keys_follow_pending_rotations() -> None:
    pool, old, new = make(), A, digest_of(77)
    assert pool.add(entry(A, 0, 10, rotates_to=new), RICH).code == Code.SUCCESS
    assert pool.add(entry(A, 1, 10, key_id=old), RICH).code == Code.KEY_NOT_CURRENT
    follower = entry(A, 1, 10, key_id=new)
    assert pool.add(follower, RICH).code == Code.SUCCESS
    # The rotation is executed: the account's key is the new one.
    spent, stale = pool.advance(A, Account(1, 10**9, new))
    assert ([e.nonce for e in spent], stale) == ([0], [])
    # Somebody rotates once more, in another validator's batch.
    spent, stale = pool.advance(A, Account(1, 10**9, digest_of(78)))
    assert (spent, stale) == ([], [follower])
    assert len(pool) == 0


def test_costs_of_entries_that_the_newest_state_has_spent_count_no_more() -> None:
    pool = make()
    pool.add(entry(A, 0, 10, cost=60), Account(0, 100, ZERO))
    # The state has executed nonce 0 already; the block has not been heard of.
    newest = Account(1, 40, ZERO)
    assert pool.add(entry(A, 1, 10, cost=50), newest).code == Code.INSUFFICIENT_FUNDS
    assert pool.add(entry(A, 1, 10, cost=40), newest).code == Code.SUCCESS


def test_expiry_spares_what_is_batched() -> None:
    pool = make()
    pending, batched, later = (
        entry(A, 0, 10, valid_until=5),
        entry(B, 0, 10, valid_until=5),
        entry(C, 0, 10, valid_until=6),
    )
    for e in (pending, batched, later):
        pool.add(e, RICH)
    pool.batched([batched], digest_of(9))
    assert pool.expired(4) == []
    assert pool.expired(5) == [pending]
    assert pool.expired(6) == [later]
    assert batched.id in pool


def test_a_long_jump_of_the_nonce_costs_no_walk() -> None:
    pool = make()
    pool.add(entry(A, 0, 10), RICH)
    spent, _ = pool.advance(A, Account(2**63, 10**9, ZERO))
    assert len(spent) == 1
    assert pool.queue(A) is None


def test_the_worst_are_known_through_floods_and_lulls() -> None:
    pool = make(pool_transactions_max=10)
    for flood in range(3):
        senders = [digest_of(10_000 + n) for n in range(2_000)]
        for at, sender in enumerate(senders):
            added = pool.add(entry(sender, 0, 1 + at), RICH)
            assert added.code == Code.SUCCESS
            displaced = [] if at < 10 else [senders[at - 10]]
            assert [e.sender for e in added.evicted] == displaced
            assert len(pool._worst or ()) <= 2 * len(pool) + 1_025
        assert pool.add(entry(digest_of(5), 0, 1), RICH).code == Code.POOL_FULL
        assert len(pool) == 10
        for sender in senders[-10:]:
            pool.advance(sender, Account(1, 0, ZERO))
        assert (len(pool), pool._worst) == (0, None), flood


def test_costs_that_the_state_has_paid_are_summed_once() -> None:
    pool = make()
    for nonce in range(4):
        pool.add(entry(A, nonce, 10, cost=10), Account(0, 100, ZERO))
    queue = pool.queue(A)
    assert queue is not None
    assert [queue.cost_from(nonce) for nonce in (0, 1, 3, 3, 4, 2)] == [40, 30, 10, 10, 0, 20]
    assert queue.cost_from(3) == 10
    pool.add(entry(A, 1, 20, cost=25), Account(0, 100, ZERO))
    assert (queue.cost, queue.cost_from(3), queue.cost_from(1)) == (55, 10, 45)
    last = queue.entries[3]
    pool.remove(last)
    assert queue.cost_from(3) == 0
    pool.advance(A, Account(2, 100, ZERO))
    assert (queue.cost_from(2), queue.cost_from(3)) == (10, 0)


def test_leftovers_of_many_replacements_are_cleared() -> None:
    pool = make()
    for round_ in range(4_000):
        e = entry(A, 0, 1, valid_until=10**6)
        pool.add(e, RICH)
        pool.remove(e)
        assert len(pool) == 0, round_
    assert len(pool._expiring) < 3_000
    assert pool.ready[255]._tickets < 3_000
