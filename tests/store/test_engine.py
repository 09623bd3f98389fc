"""The contract of an engine: exclusive, atomic, typed, and whole under cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from billing.store.engine import ConstraintViolated, MigratableEngine, StoreUnavailable
from tests import engines
from tests.store import probe
from tests.store.probe import Probe


@pytest.fixture
async def db(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[MigratableEngine]:
    probe.install(monkeypatch)
    async with engines.opened(empty_database_url, migrated=False) as engine:
        await engine.apply_migration(1, probe.SCHEMA)
        yield engine


async def keys(db: MigratableEngine) -> list[str]:
    async with db.transaction() as tx:
        return [row.key for row in await tx.fetch_all(Probe, "probe.all")]


async def test_a_clean_exit_commits(db: MigratableEngine) -> None:
    async with db.transaction() as tx:
        assert tx.dialect == db.dialect
        assert await tx.execute("probe.insert", key="a", number=1, note=None) == 1
        assert await tx.execute("probe.insert", key="a", number=2, note="again") == 0
    async with db.transaction() as tx:
        assert await tx.fetch_one(Probe, "probe.by_key", key="a") == Probe("a", 1, None)
        assert await tx.fetch_one(Probe, "probe.by_key", key="b") is None


async def test_an_exception_rolls_back(db: MigratableEngine) -> None:
    with pytest.raises(ZeroDivisionError):
        async with db.transaction() as tx:
            await tx.execute("probe.insert", key="a", number=1, note=None)
            raise ZeroDivisionError
    assert await keys(db) == ["counter"]


async def test_nesting_in_one_task_is_a_bug(db: MigratableEngine) -> None:
    with pytest.raises(AssertionError, match="nested"):
        async with db.transaction(), db.transaction():
            pass
    assert await keys(db) == ["counter"]


async def test_a_transaction_cannot_be_used_after_its_end(db: MigratableEngine) -> None:
    async with db.transaction() as tx:
        pass
    with pytest.raises(AssertionError, match="over"):
        await tx.execute("probe.insert", key="a", number=1, note=None)


async def test_tasks_take_turns(db: MigratableEngine) -> None:
    async def increment() -> None:
        async with db.transaction() as tx:
            row = await tx.fetch_one(Probe, "probe.by_key", key="counter")
            assert row is not None
            await asyncio.sleep(0)
            await tx.execute("probe.set_number", key="counter", number=row.number + 1)

    await asyncio.gather(*(increment() for _ in range(20)))
    async with db.transaction() as tx:
        assert await tx.scalar("probe.total") == 20


async def test_a_failed_statement_ends_the_transaction(db: MigratableEngine) -> None:
    with pytest.raises(ConstraintViolated) as caught:
        async with db.transaction() as tx:
            await tx.execute("probe.insert", key="kept?", number=1, note=None)
            await tx.execute("probe.insert_strictly", key="counter", number=1, note="SECRET")
    assert "SECRET" not in str(caught.value)
    assert "counter" not in str(caught.value)
    assert await keys(db) == ["counter"]


async def test_a_failure_that_is_passed_over_is_never_committed(db: MigratableEngine) -> None:
    with pytest.raises(AssertionError, match="passed over"):
        async with db.transaction() as tx:
            await tx.execute("probe.insert", key="kept?", number=1, note=None)
            with pytest.raises(ConstraintViolated):
                await tx.execute("probe.insert", key="b", number=-1, note=None)
            with pytest.raises(AssertionError, match="has failed"):
                await tx.scalar("probe.total")
    assert await keys(db) == ["counter"]


async def test_a_statement_that_cannot_work_is_a_bug(db: MigratableEngine) -> None:
    with pytest.raises(AssertionError, match=r"probe\.broken"):
        async with db.transaction() as tx:
            await tx.scalar("probe.broken")
    assert await keys(db) == ["counter"]


async def test_parameters_must_be_exactly_those_of_the_statement(db: MigratableEngine) -> None:
    async with db.transaction() as tx:
        with pytest.raises(AssertionError, match="wanted"):
            await tx.execute("probe.set_number", key="counter", number=1, extra=2)
        with pytest.raises(AssertionError, match="wanted"):
            await tx.execute("probe.set_number", key="counter")


async def test_each_row_of_a_batch_is_counted(db: MigratableEngine) -> None:
    rows = [{"key": key, "number": 1, "note": None} for key in ("a", "b", "a", "counter")]
    async with db.transaction() as tx:
        assert await tx.execute_each("probe.insert", rows) == [1, 1, 0, 0]
        assert await tx.execute_each("probe.insert", []) == []
    assert await keys(db) == ["a", "b", "counter"]


async def test_numbers_keep_their_width(db: MigratableEngine) -> None:
    """PostgreSQL: 30 000 + 30 000 overflows if parameters are as wide as their values."""
    async with db.transaction() as tx:
        await tx.execute("probe.add", key="counter", a=30_000, b=30_000)
        await tx.execute("probe.add", key="counter", a=2_000_000_000, b=2_000_000_000)
        total = await tx.scalar("probe.total")
    assert total == 4_000_060_000
    assert type(total) is int


async def test_a_returning_statement_counts_its_rows(db: MigratableEngine) -> None:
    async with db.transaction() as tx:
        await tx.execute("probe.insert", key="a", number=5, note=None)
        assert await tx.execute("probe.delete_returning", number=5) == 1


async def test_rows_that_do_not_fit_are_bugs(db: MigratableEngine) -> None:
    @dataclass(frozen=True, slots=True)
    class Other:
        key: str

    async with db.transaction() as tx:
        await tx.execute("probe.insert", key="a", number=5, note=None)
        with pytest.raises(AssertionError, match="unknown columns"):
            await tx.fetch_all(Other, "probe.all")
        with pytest.raises(AssertionError, match="one was expected"):
            await tx.fetch_one(Probe, "probe.all")
        with pytest.raises(AssertionError, match="no rows"):
            await tx.fetch_all(Probe, "probe.set_number", key="a", number=1)


async def test_a_cancelled_task_rolls_back_and_lets_the_next_one_in(db: MigratableEngine) -> None:
    inside = asyncio.Event()

    async def work() -> None:
        async with db.transaction() as tx:
            await tx.execute("probe.insert", key="a", number=1, note=None)
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await keys(db) == ["counter"]


@pytest.mark.parametrize("ticks", range(12))
async def test_cancellation_at_any_moment_leaves_all_or_nothing(
    db: MigratableEngine, ticks: int
) -> None:
    """A cancelled COMMIT that had committed must have committed everything, and nothing hangs."""
    done = False

    async def work() -> None:
        nonlocal done
        async with db.transaction() as tx:
            await tx.execute("probe.insert", key="a", number=1, note=None)
            await tx.execute("probe.insert", key="b", number=1, note=None)
        done = True

    task = asyncio.create_task(work())
    for _ in range(ticks):
        # Half a millisecond: the thread and the socket need real time to get anywhere.
        await asyncio.sleep(0.0005)
    task.cancel()
    await asyncio.wait([task])
    found = await keys(db)
    assert found in (["counter"], ["a", "b", "counter"])
    if done:
        assert found == ["a", "b", "counter"]


@pytest.mark.parametrize("dialect", ["postgresql"])
async def test_two_processes_take_turns_too(empty_database_url: str, db: MigratableEngine) -> None:
    """What one writer makes safe on SQLite must not race on PostgreSQL (Alby Hub 1222).

    On SQLite the lock file refuses a second writer: see test_lock.py.
    """
    async with engines.opened(empty_database_url, migrated=False) as other:

        async def increment(engine: MigratableEngine) -> None:
            async with engine.transaction() as tx:
                row = await tx.fetch_one(Probe, "probe.by_key", key="counter")
                assert row is not None
                await tx.execute("probe.set_number", key="counter", number=row.number + 1)

        await asyncio.gather(*(increment(e) for e in (db, other) for _ in range(20)))
    async with db.transaction() as tx:
        assert await tx.scalar("probe.total") == 40


@pytest.mark.parametrize("dialect", ["postgresql"])
async def test_postgres_is_reached_again_after_a_lost_connection(db: MigratableEngine) -> None:
    pid = db._connection.info.backend_pid  # type: ignore[attr-defined]
    with pytest.raises(StoreUnavailable):
        async with db.transaction() as tx:
            await tx.execute("probe.insert", key="a", number=1, note=None)
            import psycopg

            async with await psycopg.AsyncConnection.connect(db._url, autocommit=True) as other:  # type: ignore[attr-defined]
                await other.execute("SELECT pg_terminate_backend(%s, 1000)", (pid,))
            await tx.scalar("probe.total")
    assert await keys(db) == ["counter"]
