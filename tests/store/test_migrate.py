"""Migrations: in order, whole or not at all, with the data kept, never backwards."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from billing.store.engine import ConstraintViolated, MigratableEngine, StoreError
from billing.store.migrate import (
    MIGRATIONS_DIR,
    NewerDatabase,
    OutdatedDatabase,
    available,
    migrate,
    pending,
    require_current,
)
from tests import engines
from tests.store import probe
from tests.store.probe import Probe


@pytest.fixture
async def db(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[MigratableEngine]:
    probe.install(monkeypatch)
    async with engines.opened(empty_database_url, migrated=False) as engine:
        yield engine


def write(directory: Path, dialect: str, number: int, sql: str) -> None:
    (directory / dialect).mkdir(exist_ok=True)
    (directory / dialect / f"{number:04d}_step.sql").write_text(sql)


async def test_an_empty_database_gets_the_whole_schema_once(db: MigratableEngine) -> None:
    steps = available(db.dialect)
    with pytest.raises(OutdatedDatabase):
        await require_current(db)
    first = await migrate(db)
    assert (first.before, first.after) == (0, len(steps))
    assert first.applied == tuple(step.name for step in steps)
    again = await migrate(db)
    assert again.applied == ()
    await require_current(db)


def test_both_engines_have_the_same_steps() -> None:
    assert [s.name for s in available("sqlite")] == [s.name for s in available("postgresql")]


async def test_a_newer_database_is_refused_in_words(db: MigratableEngine, tmp_path: Path) -> None:
    await db.apply_migration(99, "CREATE TABLE later (n BIGINT)")
    write(tmp_path, db.dialect, 1, "SELECT 1")
    with pytest.raises(NewerDatabase, match="version 99, this Purser knows up to 1"):
        await pending(db, tmp_path)
    with pytest.raises(NewerDatabase):
        await migrate(db)
    assert await db.schema_version() == 99


async def test_a_step_that_fails_leaves_nothing(db: MigratableEngine, tmp_path: Path) -> None:
    write(tmp_path, db.dialect, 1, probe.SCHEMA)
    write(
        tmp_path,
        db.dialect,
        2,
        "UPDATE probe SET number = 7; CREATE TABLE half (n BIGINT); INSERT INTO nowhere VALUES (1)",
    )
    with pytest.raises(StoreError, match="migration 2"):
        await migrate(db, tmp_path)
    assert await db.schema_version() == 1
    async with db.transaction() as tx:
        assert await tx.scalar("probe.total") == 0
    write(tmp_path, db.dialect, 2, "CREATE TABLE half (n BIGINT)")
    assert (await migrate(db, tmp_path)).applied == ("0002_step",)


async def test_a_table_is_rebuilt_with_its_data(db: MigratableEngine, tmp_path: Path) -> None:
    """Old → new with data: the scaffold for every later migration."""
    shutil.copytree(MIGRATIONS_DIR / db.dialect, tmp_path / db.dialect)
    first_free = len(available(db.dialect)) + 1
    write(tmp_path, db.dialect, first_free, probe.SCHEMA + CHILD)
    await migrate(db, tmp_path)
    async with db.transaction() as tx:
        await tx.execute("probe.insert", key="old", number=3, note="kept")
    write(tmp_path, db.dialect, first_free + 1, REBUILD[db.dialect])
    await migrate(db, tmp_path)
    async with db.transaction() as tx:
        rows = await tx.fetch_all(Probe, "probe.all")
    assert rows == [Probe("counter", 0, None), Probe("old", 3, "kept")]
    # The new rule holds, and so do foreign keys afterwards.
    with pytest.raises(ConstraintViolated):
        async with db.transaction() as tx:
            await tx.execute("probe.insert", key="big", number=1001, note=None)
    with pytest.raises(ConstraintViolated):
        async with db.transaction() as tx:
            await tx.execute("probe.delete_returning", number=0)


async def test_a_migration_that_breaks_references_is_undone(tmp_path: Path) -> None:
    """Foreign keys are off while SQLite rebuilds a table, so they are checked as a whole."""
    async with engines.opened(str(tmp_path / "x.db"), migrated=False) as db:
        await db.apply_migration(1, probe.SCHEMA + CHILD)
        with pytest.raises(AssertionError, match="breaks foreign keys of child"):
            await db.apply_migration(2, "DELETE FROM probe")
        assert await db.schema_version() == 1


def test_gaps_and_stray_files_are_bugs(tmp_path: Path) -> None:
    write(tmp_path, "sqlite", 1, "SELECT 1")
    write(tmp_path, "sqlite", 3, "SELECT 1")
    with pytest.raises(AssertionError, match=r"1\.\.n"):
        available("sqlite", tmp_path)
    (tmp_path / "sqlite" / "0003_step.sql").rename(tmp_path / "sqlite" / "notes.sql")
    with pytest.raises(AssertionError, match=r"notes\.sql"):
        available("sqlite", tmp_path)


CHILD = """
CREATE TABLE child (probe TEXT NOT NULL REFERENCES probe (key));
INSERT INTO child VALUES ('counter');
"""
REBUILD = {
    "sqlite": """
CREATE TABLE rebuilt (
    key TEXT PRIMARY KEY, number BIGINT NOT NULL CHECK (number BETWEEN 0 AND 1000), note TEXT
);
INSERT INTO rebuilt SELECT key, number, note FROM probe;
DROP TABLE probe;
ALTER TABLE rebuilt RENAME TO probe;
""",
    "postgresql": "ALTER TABLE probe ADD CHECK (number <= 1000)",
}
