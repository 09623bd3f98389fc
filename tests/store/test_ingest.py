"""Ingest answers after the commit only, shares commits, and isolates what goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from billing.ingest import Duplicate, InboxRow, Ingest, Overloaded, Stored
from billing.store.engine import ConstraintViolated, StoreError, StoreUnavailable
from tests import engines


def row(event_id: str, **changes: Any) -> InboxRow:
    values: dict[str, Any] = {
        "event_id": event_id,
        "type": "invoice.created",
        "object_id": "in_1",
        "api_created": 1_700_000_000,
        "livemode": False,
        "account": None,
        "payload": "{}",
        "received_at": 1_700_000_001,
    }
    return InboxRow(**values | changes)


@asynccontextmanager
async def running(engine: Any, **options: Any) -> AsyncIterator[Ingest]:
    ingest = Ingest(engine, **options)
    task = asyncio.create_task(ingest.run())
    await asyncio.sleep(0)
    try:
        yield ingest
    finally:
        # A test that fails before it opens the gate must fail, not hang.
        async with asyncio.timeout(5):
            await ingest.stop()
            await task


class Watched:
    """An engine whose transactions are counted, and fail or wait when told to."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.dialect = engine.dialect
        self.transactions = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.failing: Exception | None = None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        self.transactions += 1
        async with self.engine.transaction() as tx:
            yield tx
            await self.gate.wait()
            if self.failing is not None:
                raise self.failing

    async def close(self) -> None: ...


async def stored_ids(engine: Any) -> list[str]:
    """Found by inserting again: only what was there affects no row."""
    found = []
    async with engine.transaction() as tx:
        for event_id in (f"evt_{n}" for n in range(70)):
            if not await tx.execute("ingest.insert_event", **_values(row(event_id))):
                found.append(event_id)
    return found


def _values(item: InboxRow) -> dict[str, Any]:
    return {name: getattr(item, name) for name in InboxRow.__slots__}


async def test_an_event_is_stored_once(engine) -> None:
    woken: list[int] = []
    async with running(engine, wake=lambda: woken.append(1)) as ingest:
        assert await ingest.submit(row("evt_1")) == Stored()
        assert await ingest.submit(row("evt_1")) == Duplicate()
        answers = await asyncio.gather(*(ingest.submit(row("evt_2")) for _ in range(5)))
    assert sorted(type(a).__name__ for a in answers) == ["Duplicate"] * 4 + ["Stored"]
    assert len(woken) == 2
    assert await stored_ids(engine) == ["evt_1", "evt_2"]


async def test_deliveries_share_a_commit_and_wait_for_it(engine) -> None:
    watched = Watched(engine)
    watched.gate.clear()
    async with running(watched, batch_limit=64) as ingest:
        first = asyncio.create_task(ingest.submit(row("evt_0")))
        await asyncio.sleep(0.01)
        others = [asyncio.create_task(ingest.submit(row(f"evt_{n}"))) for n in range(1, 65)]
        await asyncio.sleep(0.01)
        assert not first.done()
        watched.gate.set()
        assert await asyncio.gather(first, *others) == [Stored()] * 65
    assert watched.transactions == 2


async def test_a_row_that_cannot_be_stored_spoils_no_other(engine) -> None:
    """SQLite cannot encode a lone surrogate, PostgreSQL neither: each row then stands alone."""
    async with running(engine) as ingest:
        answers = await asyncio.gather(
            *(ingest.submit(row(f"evt_{n}")) for n in range(3)),
            ingest.submit(row("evt_bad", payload="\ud800")),
            ingest.submit(row("evt_null", payload=None)),
            *(ingest.submit(row(f"evt_{n}")) for n in range(3, 6)),
            return_exceptions=True,
        )
    assert answers[:3] == [Stored()] * 3
    assert isinstance(answers[3], Exception)
    assert isinstance(answers[4], ConstraintViolated)
    assert answers[5:] == [Stored()] * 3
    assert await stored_ids(engine) == [f"evt_{n}" for n in range(6)]


async def test_nobody_is_answered_when_the_commit_fails(tmp_path) -> None:
    async with engines.opened(str(tmp_path / "x.db")) as engine:
        watched = Watched(engine)
        watched.failing = StoreUnavailable("disk full")
        async with running(watched) as ingest:
            answers = await asyncio.gather(
                *(ingest.submit(row(f"evt_{n}")) for n in range(3)), return_exceptions=True
            )
            assert all(isinstance(a, StoreUnavailable) for a in answers)
            assert watched.transactions == 1
            # The task lives on: the next delivery finds it.
            watched.failing = None
            assert await ingest.submit(row("evt_1")) == Stored()
        assert await stored_ids(engine) == ["evt_1"]


async def test_a_full_queue_turns_away(tmp_path) -> None:
    async with engines.opened(str(tmp_path / "x.db")) as engine:
        watched = Watched(engine)
        watched.gate.clear()
        async with running(watched, queue_limit=2) as ingest:
            waiting = [asyncio.create_task(ingest.submit(row("evt_0")))]
            await asyncio.sleep(0.01)
            waiting += [asyncio.create_task(ingest.submit(row(f"evt_{n}"))) for n in (1, 2)]
            await asyncio.sleep(0)
            assert await ingest.submit(row("evt_3")) == Overloaded()
            watched.gate.set()
            assert await asyncio.gather(*waiting) == [Stored()] * 3


async def test_stop_stores_what_was_submitted_and_takes_no_more(tmp_path) -> None:
    async with (
        engines.opened(str(tmp_path / "x.db")) as engine,
        running(engine, batch_limit=2) as ingest,
    ):
        waiting = [asyncio.create_task(ingest.submit(row(f"evt_{n}"))) for n in range(5)]
        await asyncio.sleep(0)
        await ingest.stop()
        assert await ingest.submit(row("evt_9")) == Overloaded()
        assert await asyncio.gather(*waiting) == [Stored()] * 5


async def test_a_cancelled_run_answers_everybody_and_can_run_again(tmp_path) -> None:
    async with engines.opened(str(tmp_path / "x.db")) as engine:
        watched = Watched(engine)
        watched.gate.clear()
        ingest = Ingest(watched)
        task = asyncio.create_task(ingest.run())
        first = asyncio.create_task(ingest.submit(row("evt_0")))
        await asyncio.sleep(0.01)
        second = asyncio.create_task(ingest.submit(row("evt_1")))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        with pytest.raises(StoreError, match="stopped before"):
            await first
        assert await second == Overloaded()
        watched.gate.set()
        again = asyncio.create_task(ingest.run())
        await asyncio.sleep(0)
        assert await ingest.submit(row("evt_0")) == Stored()
        await ingest.stop()
        await again


async def test_a_sender_that_went_away_does_not_stop_the_others(tmp_path) -> None:
    async with engines.opened(str(tmp_path / "x.db")) as engine:
        async with running(engine) as ingest:
            gone = asyncio.create_task(ingest.submit(row("evt_0")))
            stays = asyncio.create_task(ingest.submit(row("evt_1")))
            await asyncio.sleep(0)
            gone.cancel()
            assert await stays == Stored()
        assert await stored_ids(engine) == ["evt_0", "evt_1"]
