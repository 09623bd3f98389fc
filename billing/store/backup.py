"""Copies the SQLite database into one checked file, beside a running bot."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from billing.store.engine import StoreError

# The bot's commits are milliseconds: who waits longer meets something broken.
BUSY_TIMEOUT_S = 10.0


class BackupFailed(StoreError):
    """No usable backup was made; nothing is left at the target."""


@dataclass(frozen=True, slots=True)
class Backup:
    """A copy that was opened and checked after it was written."""

    path: Path
    size_bytes: int
    schema_version: int


async def backup(database: Path, target: Path) -> Backup:
    """`VACUUM INTO` a new file of mode 0600, then check the copy. Raises `StoreError`.

    Reads only, so it needs no lock; PostgreSQL has `pg_dump`.
    """
    return await asyncio.to_thread(_backup, database, target)


def _backup(database: Path, target: Path) -> Backup:
    _reserve(target)
    try:
        version = _copy(database, target)
        _check(target, version)
        _to_disk(target)
        return Backup(target, target.stat().st_size, version)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _copy(database: Path, target: Path) -> int:
    """The schema version of what was copied."""
    try:
        with closing(_open_read_only(database)) as source:
            source.execute("VACUUM INTO ?", (str(target),))
            return int(source.execute("PRAGMA user_version").fetchone()[0])
    except sqlite3.Error as error:
        raise BackupFailed(f"cannot copy {database}: {error}") from error


def _open_read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=BUSY_TIMEOUT_S
    )


def _reserve(target: Path) -> None:
    """SQLite writes into an empty file too: made here, it is never readable by others."""
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        raise BackupFailed(f"{target} exists already: name a new file") from None
    except OSError as error:
        raise BackupFailed(f"cannot write {target}: {error.strerror}") from error


def _check(target: Path, version: int) -> None:
    try:
        with closing(_open_read_only(target)) as copy:
            verdict = copy.execute("PRAGMA integrity_check").fetchone()[0]
            broken = copy.execute("PRAGMA foreign_key_check").fetchall()
            copied = copy.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.Error as error:
        raise BackupFailed(f"the copy cannot be read: {error}") from error
    if verdict != "ok" or broken or copied != version:
        raise BackupFailed(f"the copy is not sound: {verdict}, {len(broken)} broken references")


def _to_disk(target: Path) -> None:
    """SQLite syncs the file; the name in its directory is ours to sync."""
    for path in (target, target.parent):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
