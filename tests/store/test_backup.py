"""A backup is a whole, checked, private copy, made beside a writer; or there is none."""

from __future__ import annotations

import contextlib
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from billing.store import backup as module
from billing.store.backup import BackupFailed, backup
from billing.store.migrate import migrate, require_current
from billing.store.open import open_engine


async def test_a_copy_made_beside_a_writer_can_be_used(tmp_path: Path) -> None:
    engine = await open_engine(tmp_path / "purser.db")
    await migrate(engine)
    async with engine.transaction() as tx:
        await tx.execute("ingest.insert_event", **EVENT)
    async with engine.transaction() as tx:
        # Not committed yet: it must not be in the copy.
        await tx.execute("ingest.insert_event", **EVENT | {"event_id": "evt_2"})
        made = await backup(tmp_path / "purser.db", tmp_path / "copy.db")
    await engine.close()
    assert made.size_bytes == (tmp_path / "copy.db").stat().st_size
    assert stat.S_IMODE((tmp_path / "copy.db").stat().st_mode) == 0o600
    restored = await open_engine(tmp_path / "copy.db")
    await require_current(restored)
    async with restored.transaction() as tx:
        assert await tx.execute("ingest.insert_event", **EVENT) == 0
        assert await tx.execute("ingest.insert_event", **EVENT | {"event_id": "evt_2"}) == 1
    await restored.close()


async def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "purser.db").close()
    (tmp_path / "copy.db").write_text("precious")
    with pytest.raises(BackupFailed, match="exists already"):
        await backup(tmp_path / "purser.db", tmp_path / "copy.db")
    assert (tmp_path / "copy.db").read_text() == "precious"


async def test_a_failed_backup_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(BackupFailed, match="cannot copy"):
        await backup(tmp_path / "missing.db", tmp_path / "copy.db")
    assert list(tmp_path.iterdir()) == []


def overwrite_pages(path: Path) -> None:
    page = bytearray(path.read_bytes())
    page[4096 * 3 : 4096 * 6] = b"\x5a" * (4096 * 3)
    path.write_bytes(page)


def orphan_a_row(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as copy:
        copy.execute("INSERT INTO invoice_relays VALUES ('in_1', 'no such relay')")


def lose_the_version(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as copy:
        copy.execute("PRAGMA user_version = 0")


@pytest.mark.parametrize("damage", [overwrite_pages, orphan_a_row, lose_the_version])
async def test_a_copy_that_is_not_sound_is_no_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None]
) -> None:
    engine = await open_engine(tmp_path / "purser.db")
    await migrate(engine)
    await engine.close()
    copy = module._copy

    def damaged(database: Path, target: Path) -> int:
        version = copy(database, target)
        damage(target)
        return version

    monkeypatch.setattr(module, "_copy", damaged)
    with pytest.raises(BackupFailed, match="copy"):
        await backup(tmp_path / "purser.db", tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()


EVENT = {
    "event_id": "evt_1",
    "type": "invoice.created",
    "object_id": "in_1",
    "api_created": 1_700_000_000,
    "livemode": False,
    "account": None,
    "payload": "{}",
    "received_at": 1_700_000_001,
}
