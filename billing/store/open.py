"""Opens the configured database: a path or `sqlite:` URL, or a `postgresql:` URL."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from billing.store.engine import MigratableEngine, StoreUnavailable
from billing.store.lock import WriterLock
from billing.store.sqlite import SqliteEngine, open_inline_driver, open_thread_driver

POSTGRES_SCHEMES = ("postgresql://", "postgres://")


def sqlite_path(url_or_path: str | Path) -> str | None:
    """The file (or `:memory:`) of a SQLite location; None for PostgreSQL.

    Raises `StoreUnavailable` for any other URL, without repeating it: it may hold a password.
    """
    text = str(url_or_path)
    if text.startswith(POSTGRES_SCHEMES):
        return None
    for prefix in ("sqlite://", "sqlite:"):
        if text.startswith(prefix):
            path = text.removeprefix(prefix)
            # Four slashes are the customary form of an absolute path, three are meant as one too.
            return f"/{path.lstrip('/')}" if path.startswith("//") else path
    if "://" in text:
        raise StoreUnavailable("a database is a file, sqlite:FILE or postgresql://…")
    return text


async def open_engine(
    url_or_path: str | Path,
    *,
    read_only: bool = False,
    driver: Literal["thread", "inline"] = "thread",
    lock: bool = True,
) -> MigratableEngine:
    """An engine on the database; not migrated, see `billing.store.migrate`.

    For writing, SQLite's file is made with mode 0600 and locked against a second process
    (`lock=False` is for simulations that leave a crashed engine behind in one process).
    Raises `StoreLocked`, `StoreUnavailable`.
    """
    path = sqlite_path(url_or_path)
    if path is None:
        from billing.store.postgres import open_postgres

        return await open_postgres(str(url_or_path), read_only=read_only)
    writer_lock: WriterLock | None = None
    if path != ":memory:" and not read_only:
        if lock:
            writer_lock = WriterLock.acquire(Path(path))
        _make_private(path)
    try:
        opener = (
            await open_thread_driver(path, read_only=read_only)
            if driver == "thread"
            else open_inline_driver(path, read_only=read_only)
        )
    except BaseException:
        if writer_lock is not None:
            writer_lock.release()
        raise
    release = writer_lock.release if writer_lock is not None else (lambda: None)
    return SqliteEngine(opener, read_only=read_only, on_close=release)


def _make_private(path: str) -> None:
    """SQLite gives its -wal and -shm files the mode of the database."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreUnavailable(f"cannot open {path}: {error.strerror}") from error
