"""What was acknowledged is there after a power loss: only what was synced survives it.

A SIGKILL cannot tell FULL from NORMAL (the kernel keeps what was written); this file system can.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path
from typing import Any

from billing.ingest import InboxRow, Ingest, Stored
from billing.store import sqlite
from billing.store.migrate import migrate
from billing.store.sqlite import InlineDriver, SqliteEngine
from tests.store.disk import Connection, Disk


async def acknowledged_and_found(tmp_path: Path, synchronous: str) -> list[tuple[int, int]]:
    """After each acknowledgement: how many there were, how many a power loss now would leave."""
    disk = Disk()
    connection: Any = Connection(tmp_path / "purser.db", synchronous)
    engine = SqliteEngine(InlineDriver(connection))
    await migrate(engine)
    ingest = Ingest(engine)
    task = asyncio.create_task(ingest.run())
    await asyncio.sleep(0)
    found = []
    for number in range(1, 25):
        row = InboxRow(f"evt_{number}", "t", None, 1, False, None, "x" * 3000, 1)
        assert await ingest.submit(row) == Stored()
        copy = disk.lose_power(tmp_path / f"boot_{number}")
        with contextlib.closing(sqlite3.connect(copy)) as after:
            count = 0
            with contextlib.suppress(sqlite3.Error):
                count = after.execute("SELECT count(*) FROM inbox_events").fetchone()[0]
        found.append((number, count))
    await ingest.stop()
    await task
    await engine.close()
    disk.unregister()
    return found


async def test_an_acknowledged_delivery_survives_a_power_loss(tmp_path: Path) -> None:
    for acknowledged, found in await acknowledged_and_found(tmp_path, "FULL"):
        assert found == acknowledged


async def test_this_disk_can_tell(tmp_path: Path) -> None:
    """The same with NORMAL loses deliveries: otherwise the test above would prove nothing."""
    lost = [a - f for a, f in await acknowledged_and_found(tmp_path, "NORMAL")]
    assert max(lost) > 0


async def test_production_opens_it_the_same_way(tmp_path: Path) -> None:
    driver = await sqlite.open_thread_driver(str(tmp_path / "purser.db"))
    found = {
        name: await driver.run(name, lambda c, n=name: c.execute(f"PRAGMA {n}").fetchone()[0])
        for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
    }
    await driver.close()
    assert found == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": sqlite.BUSY_TIMEOUT_MS,
    }
