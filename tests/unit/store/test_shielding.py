"""BEGIN, COMMIT and ROLLBACK are not left half way, however often their task is cancelled."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any

import pytest

from billing.store.engine import uninterrupted
from billing.store.sqlite import SqliteEngine


class Gated:
    """A driver that stops at one step until it is let on, and notes what it was asked."""

    is_inline = False

    def __init__(self, stop_at: str) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.stop_at = stop_at
        self.reached = asyncio.Event()
        self.gate = asyncio.Event()
        self.asked: list[str] = []

    async def run(self, what: str, work: Any) -> Any:
        self.asked.append(what)
        if what == self.stop_at:
            self.reached.set()
            await self.gate.wait()
        return work(self.connection)

    async def close(self) -> None:
        self.connection.close()


@pytest.mark.parametrize(
    ("stop_at", "then"), [("begin", ["rollback"]), ("commit", ["rollback"]), ("rollback", [])]
)
async def test_a_step_is_finished_before_the_cancellation_gets_out(
    stop_at: str, then: list[str]
) -> None:
    driver = Gated(stop_at)
    driver.connection.execute("CREATE TABLE t (n INTEGER)")
    engine = SqliteEngine(driver)
    went_on = False

    async def work() -> None:
        nonlocal went_on
        async with engine.transaction():
            driver.connection.execute("INSERT INTO t VALUES (1)")
            if stop_at == "rollback":
                raise ZeroDivisionError
        went_on = True

    task = asyncio.create_task(work())
    await driver.reached.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not task.done()
        assert driver.asked[-1] == stop_at
    # Nobody else gets in meanwhile.
    other = asyncio.create_task(_use(engine))
    await asyncio.sleep(0)
    assert not other.done()
    driver.gate.set()
    driver.stop_at = ""
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not went_on
    await other
    place = driver.asked.index(stop_at)
    assert driver.asked[place + 1 : place + 1 + len(then)] == then
    count = driver.connection.execute("SELECT count(*) FROM t").fetchone()[0]
    assert count == (1 if stop_at == "commit" else 0)
    await engine.close()


async def _use(engine: SqliteEngine) -> None:
    async with engine.transaction():
        pass


async def test_a_result_and_an_error_come_through() -> None:
    async def good() -> int:
        await asyncio.sleep(0)
        return 5

    async def bad() -> int:
        await asyncio.sleep(0)
        raise KeyError("x")

    assert await uninterrupted(good()) == 5
    with pytest.raises(KeyError):
        await uninterrupted(bad())


async def test_a_failure_under_cancellation_is_not_lost() -> None:
    gate = asyncio.Event()

    async def bad() -> None:
        await gate.wait()
        raise KeyError("the commit failed")

    task = asyncio.create_task(uninterrupted(bad()))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    gate.set()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert isinstance(caught.value.__cause__, KeyError)
