"""A second writing process is refused, readers are not, and a dead holder holds nothing."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from billing.store.engine import StoreError, StoreLocked, StoreUnavailable
from billing.store.lock import WriterLock
from billing.store.open import open_engine, sqlite_path

HOLDER = """
import sys, time
from pathlib import Path
from billing.store.lock import WriterLock
lock = WriterLock.acquire(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


async def test_a_second_process_is_told_who_holds_the_database(tmp_path: Path) -> None:
    database = tmp_path / "purser.db"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(database)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreLocked, match=rf"pid {holder.pid}\b"):
            await open_engine(database)
        # SIGKILL runs no clean-up: the kernel lets go.
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        engine = await open_engine(database)
        await engine.close()
    finally:
        holder.kill()
        holder.wait()
        if holder.stdout:
            holder.stdout.close()


async def test_one_process_cannot_open_it_twice_either(tmp_path: Path) -> None:
    database = tmp_path / "purser.db"
    first = await open_engine(database)
    with pytest.raises(StoreLocked):
        await open_engine(database)
    reader = await open_engine(database, read_only=True)
    await reader.close()
    await first.close()
    second = await open_engine(database)
    await second.close()


async def test_a_reader_cannot_write_and_sees_commits(tmp_path: Path) -> None:
    database = tmp_path / "purser.db"
    writer = await open_engine(database)
    await writer.apply_migration(1, "CREATE TABLE cursors (name TEXT PRIMARY KEY, value TEXT)")
    reader = await open_engine(database, read_only=True)
    with pytest.raises(StoreUnavailable, match="readonly"):
        await reader.apply_migration(2, "INSERT INTO cursors VALUES ('a', 'b')")
    assert await reader.schema_version() == 1
    await reader.close()
    await writer.close()


async def test_files_are_for_the_owner_only(tmp_path: Path) -> None:
    engine = await open_engine(tmp_path / "purser.db")
    await engine.apply_migration(1, "CREATE TABLE t (n BIGINT)")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    await engine.close()
    assert set(modes.values()) == {0o600}
    assert {"purser.db", "purser.db-wal", "purser.db-shm", "purser.db.lock"} == modes.keys()


async def test_a_database_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="No such file"):
        await open_engine(tmp_path / "nowhere" / "purser.db")
    with pytest.raises(StoreUnavailable, match=r"no database yet .* first start"):
        await open_engine(tmp_path / "missing.db", read_only=True)
    (tmp_path / "not.db").write_text("this is no database, " * 100)
    with pytest.raises(StoreUnavailable, match="not a database"):
        await open_engine(tmp_path / "not.db")
    # The refused opening let go of the lock.
    WriterLock.acquire(tmp_path / "not.db").release()


async def test_an_unreachable_postgresql_says_so_without_its_url(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        await open_engine(f"postgresql://purser:hunter2@/x?host={tmp_path}")
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_locations() -> None:
    assert sqlite_path("sqlite:///var/purser.db") == "/var/purser.db"
    assert sqlite_path("sqlite:purser.db") == "purser.db"
    assert sqlite_path("purser.db") == "purser.db"
    assert sqlite_path(":memory:") == ":memory:"
    assert sqlite_path("postgresql://host/db") is None
    with pytest.raises(StoreError) as caught:
        sqlite_path("mysql://user:hunter2@host/db")
    assert "hunter2" not in str(caught.value)
