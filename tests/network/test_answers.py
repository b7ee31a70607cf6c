"""What a validator answers while some questions take long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any, cast

import pytest

from qnet_actors.gateway.queries import (
    AccountQuery,
    ActivityAnswer,
    ActivityQuery,
    BlocksAnswer,
    BlocksQuery,
    EventsQuery,
    StatusAnswer,
    StatusQuery,
    SyncInfo,
)
from qnet_actors.ledger import History, LedgerQueries, MemoryLog
from qnet_actors.ledger.history import QUESTIONS_MAX
from qnet_actors.network.answers import Answers, Sources
from qnet_actors.network.desk import Desk
from qnet_actors.rooms import JoinProgress
from qnet_actors.state import State
from qnet_actors.validators import ValidatorStatus
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.rules import first_rules
from tests.ledger.chain import blocks, chain_genesis
from tests.ledger.world import address

NOBODY = cast(Any, None)


@pytest.fixture
def log() -> MemoryLog:
    made = MemoryLog()
    made.write(blocks())
    return made


@pytest.fixture
def history(tmp_path: Path, log: MemoryLog) -> Iterator[History]:
    made = History(tmp_path, chain_genesis(), log, 1_000)
    made.flush()
    yield made
    made.close()


def answers(
    log: MemoryLog, history: History | None, status: Callable[[], ValidatorStatus] = NOBODY
) -> Answers:
    sources = Sources(
        committee=chain_genesis().committee(),
        rules=first_rules(chain_genesis().parameters),
        own=0,
        status=status,
        equivocations=tuple,
        log=log,
        ledger=LedgerQueries(log, State()),
        account=NOBODY,
        prove=NOBODY,
        pool_transactions=lambda: 0,
    )
    return Answers(chain_genesis(), sources, NOBODY, history)


async def test_questions_about_the_past_hold_up_nothing_else(log, history, monkeypatch):
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    made, go_on, transactions = answers(log, history), Event(), history.transactions

    def slow(*arguments: Any) -> Any:
        assert go_on.wait(20)
        return transactions(*arguments)

    monkeypatch.setattr(history, "transactions", slow)
    question = ActivityQuery(address(1), None, 20)
    waiting = [
        asyncio.ensure_future(made.answer(question, ready=True)) for _ in range(QUESTIONS_MAX)
    ]
    try:
        async with asyncio.timeout(5):
            found = await made.answer(BlocksQuery(None, 5), ready=True)
        assert isinstance(found, BlocksAnswer)
        assert len(found.blocks) == 5
        # Who gives up leaves no room: what it asked is still to be answered.
        given_up = waiting.pop()
        given_up.cancel()
        await asyncio.wait([given_up])
        for late in (
            question,
            EventsQuery(b"paid", None, None, 20),
            AccountQuery(address(1), 3),
        ):
            with pytest.raises(QnetError) as refused:
                async with asyncio.timeout(5):
                    await made.answer(late, ready=True)
            assert refused.value.code is Code.BUSY
    finally:
        go_on.set()
    for answer in await asyncio.gather(*waiting):
        assert isinstance(answer, ActivityAnswer)
        assert answer.items
    # Not BUSY: the places of those that were answered are free again.
    await asyncio.to_thread(history.close)
    with pytest.raises(QnetError) as refused:
        await made.answer(question, ready=True)
    assert refused.value.code is Code.NOT_READY


async def test_where_no_history_is_kept(log):
    with pytest.raises(QnetError) as refused:
        await answers(log, None).answer(AccountQuery(address(1), 3), ready=True)
    assert refused.value.code is Code.NOT_FOUND


@pytest.mark.parametrize(
    ("catching_up", "joining", "sync"),
    [
        (False, None, SyncInfo("following")),
        (True, None, SyncInfo("blocks")),
        (False, JoinProgress(70, 3, 9), SyncInfo("snapshot", 70, 3, 9)),
    ],
)
async def test_the_status_says_how_far_a_joiner_is(log, catching_up, joining, sync):
    consensus = SimpleNamespace(catching_up=catching_up, round=1, commit_index=1)
    made = answers(log, None, lambda: cast(Any, consensus))
    status = await made.answer(StatusQuery(), ready=True, joining=joining)
    assert isinstance(status, StatusAnswer)
    assert status.sync == sync
    assert status.ready == (sync.phase == "following")


def test_a_join_that_is_given_up_holds_nobody_up():
    desk = Desk(0)
    desk.on_event(JoinProgress(70, 3, 9))
    assert desk.joining == JoinProgress(70, 3, 9)
    desk.on_event(JoinProgress(0, 0, 0))
    assert desk.joining is None
