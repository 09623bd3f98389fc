"""The SQLite engine: one writing connection, WAL, every acknowledged commit on the disk."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import quote

import aiosqlite

from billing.store.engine import (
    ConstraintViolated,
    Dialect,
    Param,
    StoreError,
    StoreUnavailable,
    uninterrupted,
)
from billing.store.rows import Column, mapper, to_columns
from billing.store.statements import statement

T = TypeVar("T")
R = TypeVar("R")
Work = Callable[[sqlite3.Connection], T]

# We are the only writer (lock file): a wait means a reader's checkpoint or a backup.
BUSY_TIMEOUT_MS: Final = 5_000
# After a burst the log is cut back to this, so that it does not stay as large as its worst hour.
JOURNAL_LIMIT_BYTES: Final = 64 * 1024 * 1024

_PRAGMAS: Final = (
    "PRAGMA journal_mode=WAL",
    # NORMAL loses acknowledged commits at power loss (measured); FULL is nearly free when shared.
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}",
    f"PRAGMA journal_size_limit={JOURNAL_LIMIT_BYTES}",
    "PRAGMA trusted_schema=OFF",
)
_READ_ONLY_PRAGMAS: Final = (f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}", "PRAGMA query_only=ON")


class SqliteDriver(Protocol):
    """Where the connection's calls run; `what` is `begin`, `commit`, `rollback` or a statement."""

    @property
    def is_inline(self) -> bool:
        """Whether a call is over before anybody could cancel it."""
        ...

    async def run(self, what: str, work: Work[T]) -> T: ...

    async def close(self) -> None: ...


class InlineDriver:
    """Runs in the caller's thread: for simulation, where a thread loses races on virtual time."""

    is_inline = True

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def run(self, what: str, work: Work[T]) -> T:
        return work(self._connection)

    async def close(self) -> None:
        self._connection.close()


class _Connection(aiosqlite.Connection):
    """aiosqlite's connection with one call more: several statements for one hop to its thread."""

    async def call(self, work: Work[T]) -> T:
        result: T = await self._execute(lambda: work(self._conn))  # type: ignore[no-untyped-call]
        return result


class ThreadDriver:
    """Runs in aiosqlite's thread, so that a commit never blocks the event loop."""

    is_inline = False

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    async def run(self, what: str, work: Work[T]) -> T:
        return await self._connection.call(work)

    async def close(self) -> None:
        await self._connection.close()


def _connect(path: str, *, read_only: bool) -> sqlite3.Connection:
    """A configured connection in autocommit mode; transactions are begun explicitly."""
    target = path if path == ":memory:" else f"file:{quote(path)}{'?mode=ro' if read_only else ''}"
    connection = sqlite3.connect(
        target,
        uri=path != ":memory:",
        isolation_level=None,
        cached_statements=512,
        # Opened here, used in the driver's thread only.
        check_same_thread=False,
    )
    try:
        for pragma in _READ_ONLY_PRAGMAS if read_only else _PRAGMAS:
            connection.execute(pragma).fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


async def open_thread_driver(path: str, *, read_only: bool = False) -> ThreadDriver:
    """The production driver. Raises `StoreUnavailable`."""
    opened = _open(path, read_only)
    connection = _Connection(lambda: opened, iter_chunk_size=64)
    # A process that dies of something else must not hang on this thread.
    connection._thread.daemon = True
    await connection
    return ThreadDriver(connection)


def open_inline_driver(path: str, *, read_only: bool = False) -> InlineDriver:
    """The simulation's driver. Raises `StoreUnavailable`."""
    return InlineDriver(_open(path, read_only))


def _open(path: str, read_only: bool) -> sqlite3.Connection:
    try:
        return _connect(path, read_only=read_only)
    except sqlite3.Error as error:
        if read_only and not os.path.exists(path):
            raise StoreUnavailable(
                f"there is no database yet at {path}: the bot makes it at its first start, or "
                "`purser migrate` does"
            ) from error
        raise StoreUnavailable(f"cannot open {path}: {error}") from error


def _is_bug(error: sqlite3.Error) -> bool:
    """A statement that can never work: wrong syntax or name, wrong binding."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, sqlite3.ProgrammingError) or code == sqlite3.SQLITE_ERROR


def _translated(name: str, error: sqlite3.Error) -> StoreError:
    # SQLite's texts name tables and columns, never values.
    if isinstance(error, sqlite3.IntegrityError):
        return ConstraintViolated(f"{name}: {error}")
    return StoreUnavailable(f"{name}: {error}")


class SqliteTx:
    """An open transaction on the writing connection. Implements `billing.store.engine.Tx`."""

    dialect: Dialect = "sqlite"

    def __init__(self, driver: SqliteDriver) -> None:
        self._driver = driver
        self.failed: StoreError | None = None
        self.open = True

    async def execute(self, name: str, /, **params: Param) -> int:
        sql, values = self._prepare(name, params)
        return await self._run(name, lambda c: _execute(c, sql, values))

    async def execute_each(self, name: str, rows: Sequence[Mapping[str, Param]], /) -> list[int]:
        prepared = [self._prepare(name, row) for row in rows]
        return await self._run(name, lambda c: _execute_each(c, prepared))

    async def fetch_one(self, cls: type[R], name: str, /, **params: Param) -> R | None:
        rows = await self.fetch_all(cls, name, **params)
        assert len(rows) <= 1, f"{name}: {len(rows)} rows where one was expected"
        return rows[0] if rows else None

    async def fetch_all(self, cls: type[R], name: str, /, **params: Param) -> list[R]:
        columns, rows = await self._rows(name, params)
        build = mapper(cls, columns)
        return [build(row) for row in rows]

    async def scalar(self, name: str, /, **params: Param) -> int | str | None:
        columns, rows = await self._rows(name, params)
        assert len(columns) == 1, f"{name}: a scalar has one column"
        assert len(rows) <= 1, f"{name}: {len(rows)} rows where one was expected"
        value: int | str | None = rows[0][0] if rows else None
        assert value is None or isinstance(value, (int, str)), f"{name}: not an integer or text"
        return value

    async def _rows(
        self, name: str, params: Mapping[str, Param]
    ) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        sql, values = self._prepare(name, params)
        return await self._run(name, lambda c: _fetch(name, c, sql, values))

    def _prepare(self, name: str, params: Mapping[str, Param]) -> tuple[str, dict[str, Column]]:
        found = statement(name)
        found.check(params)
        return found.sqlite, to_columns(params)

    async def _run(self, name: str, work: Work[T]) -> T:
        assert self.open, f"{name}: the transaction is over"
        assert self.failed is None, f"{name}: the transaction has failed, leave it"
        try:
            return await self._driver.run(name, work)
        except sqlite3.Error as error:
            self.failed = _translated(name, error)
            if _is_bug(error):
                raise AssertionError(str(self.failed)) from error
            raise self.failed from error


def _execute(connection: sqlite3.Connection, sql: str, values: dict[str, Column]) -> int:
    return _execute_each(connection, [(sql, values)])[0]


def _execute_each(
    connection: sqlite3.Connection, prepared: Sequence[tuple[str, dict[str, Column]]]
) -> list[int]:
    cursor = connection.cursor()
    counts: list[int] = []
    for sql, values in prepared:
        cursor.execute(sql, values)
        if cursor.description is not None:
            cursor.fetchall()  # a RETURNING statement counts its rows only when it has been read
        counts.append(max(cursor.rowcount, 0))
    return counts


def _fetch(
    name: str, connection: sqlite3.Connection, sql: str, values: dict[str, Column]
) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    cursor = connection.execute(sql, values)
    assert cursor.description is not None, f"{name}: returns no rows, use execute"
    columns: tuple[str, ...] = next(zip(*cursor.description, strict=True))
    return columns, cursor.fetchall()


class SqliteEngine:
    """One connection, one transaction at a time. Implements `billing.store.engine.Engine`."""

    dialect: Dialect = "sqlite"

    def __init__(
        self,
        driver: SqliteDriver,
        *,
        read_only: bool = False,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self._driver = driver
        self._begin_work = _begin_reading if read_only else _begin
        self._on_close = on_close
        self._lock = asyncio.Lock()
        self._owner: asyncio.Task[Any] | None = None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqliteTx]:
        task = asyncio.current_task()
        assert self._owner is None or self._owner is not task, "nested transaction in one task"
        async with self._lock:
            self._owner = task
            tx = SqliteTx(self._driver)
            try:
                # BEGIN too: cancelled half way, it may have begun in its thread.
                await self._whole("begin", self._begin_work)
                yield tx
                assert tx.failed is None, f"a failed statement was passed over: {tx.failed}"
                tx.open = False
                await self._whole("commit", _commit)
            except BaseException:
                tx.open = False
                await self._whole("rollback", _roll_back)
                raise
            finally:
                self._owner = None

    async def _whole(self, what: str, work: Work[None]) -> None:
        """To its end, even when the caller is cancelled meanwhile."""
        call = self._call(what, work)
        await (call if self._driver.is_inline else uninterrupted(call))

    async def _call(self, what: str, work: Work[None]) -> None:
        try:
            await self._driver.run(what, work)
        except sqlite3.Error as error:
            raise _translated(what, error) from error

    async def schema_version(self) -> int:
        return await self._driver.run(
            "schema_version", lambda c: int(c.execute("PRAGMA user_version").fetchone()[0])
        )

    async def apply_migration(self, version: int, script: str) -> None:
        async with self._lock:
            await uninterrupted(
                self._call(f"migration {version}", lambda c: _apply(c, version, script))
            )

    async def close(self) -> None:
        async with self._lock:
            await self._driver.close()
            self._on_close()


def _begin(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")


def _begin_reading(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN")


def _commit(connection: sqlite3.Connection) -> None:
    connection.execute("COMMIT")


def _roll_back(connection: sqlite3.Connection) -> None:
    # Nothing is open when BEGIN was refused, or when SQLite itself rolled back (disk full).
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _apply(connection: sqlite3.Connection, version: int, script: str) -> None:
    """A table can be rebuilt only with foreign keys off, so they are checked as a whole instead."""
    connection.execute("PRAGMA foreign_keys=OFF")
    try:
        # executescript commits what is open before it starts: BEGIN must be inside.
        connection.executescript(f"BEGIN IMMEDIATE;\n{script}\n;PRAGMA user_version={version};")
        broken = connection.execute("PRAGMA foreign_key_check").fetchall()
        assert not broken, f"migration {version} breaks foreign keys of {broken[0][0]}"
        connection.execute("COMMIT")
    finally:
        _roll_back(connection)
        connection.execute("PRAGMA foreign_keys=ON")
