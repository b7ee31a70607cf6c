"""What a validator answers while some questions take long."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any, cast

import pytest

from qnet_actors.gateway.queries import (
    AccountQuery,
    ActivityAnswer,
    ActivityQuery,
    BlocksAnswer,
    BlocksQuery,
    EventsQuery,
)
from qnet_actors.ledger import History, LedgerQueries, MemoryLog
from qnet_actors.ledger.history import QUESTIONS_MAX
from qnet_actors.network.answers import Answers, Sources
from qnet_actors.state import State
from qnet_actors.wire.codes import Code, QnetError
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


def answers(log: MemoryLog, history: History | None) -> Answers:
    sources = Sources(
        committee=chain_genesis().committee(),
        own=0,
        status=NOBODY,
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
