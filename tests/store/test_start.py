"""A start makes the database ours before it changes its tables."""

from __future__ import annotations

import asyncio

import pytest

from billing.lease import Lease
from billing.store.engine import MigratableEngine
from billing.store.migrate import NewerDatabase, available
from bot import start
from tests import engines
from tests.fakes.clock import FakeClock


async def older(engine: MigratableEngine) -> int:
    """A database that lacks the last migration; its version."""
    for step in available(engine.dialect)[:-1]:
        await engine.apply_migration(step.version, step.script)
    return await engine.schema_version()


async def test_an_empty_and_an_older_database_are_brought_up_to_date(
    empty_database_url: str,
) -> None:
    async with engines.opened(empty_database_url, migrated=False) as engine:
        lease = Lease(engine, FakeClock(), "one")
        assert await start.own_database(engine, lease, asyncio.Event())
        assert await engine.schema_version() == len(available(engine.dialect))
        assert lease.is_held()


async def test_a_standby_of_a_newer_version_changes_nothing_until_it_has_the_lease(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On SQLite the file's lock keeps a second process out altogether."""
    monkeypatch.setattr(start, "LEASE_WAIT_S", 0.01)
    async with engines.opened(empty_database_url, migrated=False) as active:
        version, clock = await older(active), FakeClock()
        if active.dialect == "sqlite":
            assert await start.own_database(active, Lease(active, clock, "one"), asyncio.Event())
            assert await active.schema_version() == version + 1
            return
        holder = Lease(active, clock, "one")
        assert await holder.take()
        async with engines.opened(empty_database_url, migrated=False) as standby:
            lease, stop = Lease(standby, clock, "two"), asyncio.Event()
            waiting = asyncio.create_task(start.own_database(standby, lease, stop))
            await asyncio.sleep(0.1)
            assert not waiting.done()
            assert await active.schema_version() == version
            await holder.release()
            assert await waiting
            assert await standby.schema_version() == version + 1
            assert lease.token > holder.token


async def test_told_to_stop_while_it_waits_it_has_changed_nothing(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "LEASE_WAIT_S", 0.01)
    async with engines.opened(empty_database_url, migrated=False) as active:
        version, stop = await older(active), asyncio.Event()
        lease = Lease(active, FakeClock(), "two")

        async def never() -> bool:
            stop.set()
            return False

        monkeypatch.setattr(Lease, "take", lambda self: never())
        assert not await start.own_database(active, lease, stop)
        assert await active.schema_version() == version


async def test_a_newer_database_is_refused_before_anything_is_waited_for(
    empty_database_url: str,
) -> None:
    async with engines.opened(empty_database_url, migrated=False) as engine:
        last = len(available(engine.dialect))
        await older(engine)
        await engine.apply_migration(last + 1, "CREATE TABLE later (n BIGINT)")
        with pytest.raises(NewerDatabase):
            await start.own_database(engine, Lease(engine, FakeClock(), "one"), asyncio.Event())
