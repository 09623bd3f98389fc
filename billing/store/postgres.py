"""The PostgreSQL engine: one connection, and the exclusive transactions that SQLite has anyway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

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

try:
    import psycopg
    from psycopg.types.numeric import Int8Dumper
except ImportError as error:
    raise StoreUnavailable(
        "a postgresql:// database needs the extra: pip install 'nostr-purser[postgres]'"
    ) from error

R = TypeVar("R")
Connection = psycopg.AsyncConnection[tuple[Any, ...]]

# Any constant: advisory locks are counted per database, and nobody else uses this one.
WRITER_LOCK_KEY: Final = 0x70757273_65720001
# A transaction is a few statements: who waits longer than this waits for something broken.
LOCK_TIMEOUT_MS: Final = 10_000
STATEMENT_TIMEOUT_MS: Final = 60_000
# A bot that hangs inside a transaction must not hold the lock of all others for ever.
IDLE_IN_TRANSACTION_MS: Final = 60_000
CONNECT_TIMEOUT_S: Final = 10

_SESSION: Final = (
    f"SET lock_timeout = {LOCK_TIMEOUT_MS}; SET statement_timeout = {STATEMENT_TIMEOUT_MS}; "
    f"SET idle_in_transaction_session_timeout = {IDLE_IN_TRANSACTION_MS}; "
    "SET synchronous_commit = on"
)
# One writer at a time over all processes, as BEGIN IMMEDIATE gives on SQLite: what is safe with
# one writer races with several (Alby Hub 1222), and 10 000 tenants do not need a second one.
# Under READ COMMITTED every statement after the lock sees all that was committed before it.
_BEGIN: Final = (
    f"BEGIN ISOLATION LEVEL READ COMMITTED; SELECT pg_advisory_xact_lock({WRITER_LOCK_KEY})"
)
_BEGIN_READ_ONLY: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_VERSION_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS schema_version "
    "(only_row BIGINT PRIMARY KEY CHECK (only_row = 1), version BIGINT NOT NULL)"
)


def _translated(name: str, error: psycopg.Error) -> StoreError:
    # Only the primary message: `DETAIL` repeats the row's values.
    what = f"{name}: {error.diag.message_primary or type(error).__name__}"
    if isinstance(error, psycopg.IntegrityError):
        return ConstraintViolated(what)
    return StoreUnavailable(what)


def _is_bug(error: psycopg.Error) -> bool:
    """A statement that can never work: wrong syntax, type or name."""
    return isinstance(error, (psycopg.ProgrammingError, psycopg.DataError)) or (
        # Guards raise P0001; wrong syntax inside a function is class 42 as well.
        (error.sqlstate or "").startswith("42")
    )


class PostgresTx:
    """An open transaction. Implements `billing.store.engine.Tx`."""

    dialect: Dialect = "postgresql"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.failed: StoreError | None = None
        self.open = True

    async def execute(self, name: str, /, **params: Param) -> int:
        cursor = await self._run(name, params)
        return max(cursor.rowcount, 0)

    async def execute_each(self, name: str, rows: Sequence[Mapping[str, Param]], /) -> list[int]:
        found = statement(name)
        values = []
        for row in rows:
            found.check(row)
            values.append(to_columns(row))
        if not values:
            return []
        self._check_usable(name)
        cursor = self._connection.cursor()
        counts: list[int] = []
        try:
            # executemany pipelines: one trip for all rows.
            await cursor.executemany(found.postgresql.encode(), values, returning=True)
            for _ in values:
                counts.append(max(cursor.rowcount, 0))
                cursor.nextset()
        except psycopg.Error as error:
            raise self._failure(name, error) from error
        return counts

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
        return scalar_value(name, rows[0][0] if rows else None)

    async def _rows(
        self, name: str, params: Mapping[str, Param]
    ) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        cursor = await self._run(name, params)
        assert cursor.description is not None, f"{name}: returns no rows, use execute"
        return tuple(column.name for column in cursor.description), await cursor.fetchall()

    async def _run(
        self, name: str, params: Mapping[str, Param]
    ) -> psycopg.AsyncCursor[tuple[Any, ...]]:
        found = statement(name)
        found.check(params)
        self._check_usable(name)
        values: dict[str, Column] = to_columns(params)
        try:
            return await self._connection.execute(found.postgresql.encode(), values)
        except psycopg.Error as error:
            raise self._failure(name, error) from error

    def _check_usable(self, name: str) -> None:
        assert self.open, f"{name}: the transaction is over"
        assert self.failed is None, f"{name}: the transaction has failed, leave it"

    def _failure(self, name: str, error: psycopg.Error) -> Exception:
        self.failed = _translated(name, error)
        if _is_bug(error):
            return AssertionError(str(self.failed))
        return self.failed


class PostgresEngine:
    """One connection, made again when it was lost. Implements `billing.store.engine.Engine`."""

    dialect: Dialect = "postgresql"

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        self._url = url
        self._read_only = read_only
        self._connection: Connection | None = None
        self._lock = asyncio.Lock()
        self._owner: asyncio.Task[Any] | None = None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[PostgresTx]:
        task = asyncio.current_task()
        assert self._owner is None or self._owner is not task, "nested transaction in one task"
        async with self._lock:
            self._owner = task
            try:
                async with self._exclusive() as tx:
                    yield tx
            finally:
                self._owner = None

    @asynccontextmanager
    async def _exclusive(self) -> AsyncIterator[PostgresTx]:
        connection = await uninterrupted(self._connected())
        tx = PostgresTx(connection)
        try:
            begin = _BEGIN_READ_ONLY if self._read_only else _BEGIN
            await uninterrupted(_run_sql("begin", connection, begin))
            yield tx
            assert tx.failed is None, f"a failed statement was passed over: {tx.failed}"
            tx.open = False
            await uninterrupted(_run_sql("commit", connection, "COMMIT"))
        except BaseException:
            tx.open = False
            await uninterrupted(_roll_back(connection))
            raise

    async def _connected(self) -> Connection:
        if self._connection is not None and not self._connection.closed:
            return self._connection
        try:
            connection = await psycopg.AsyncConnection.connect(
                self._url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S
            )
            # By default the width follows the value, and 30 000 + 30 000 overflows a SMALLINT.
            connection.adapters.register_dumper(int, Int8Dumper)
            await connection.execute(_SESSION)
        except psycopg.Error as error:
            # The driver's text may repeat the URL's user and host: the class says enough.
            raise StoreUnavailable(
                f"cannot connect to the PostgreSQL database ({type(error).__name__})"
            ) from None
        self._connection = connection
        return connection

    async def schema_version(self) -> int:
        async with self._lock:
            connection = await self._connected()
            return await uninterrupted(_version(connection))

    async def apply_migration(self, version: int, script: str) -> None:
        async with self._lock, self._exclusive() as tx:
            connection = tx._connection
            await _run_sql(f"migration {version}", connection, script)
            await _run_sql("schema_version", connection, _VERSION_TABLE)
            await _run_sql(
                "schema_version",
                connection,
                f"DELETE FROM schema_version; INSERT INTO schema_version VALUES (1, {version:d})",  # noqa: S608
            )

    async def close(self) -> None:
        async with self._lock:
            if self._connection is not None:
                await self._connection.close()
                self._connection = None


async def open_postgres(url: str, *, read_only: bool = False) -> PostgresEngine:
    """An engine with its connection made. Raises `StoreUnavailable`."""
    engine = PostgresEngine(url, read_only=read_only)
    await engine._connected()
    return engine


def scalar_value(name: str, value: object) -> int | str | None:
    """PostgreSQL sums BIGINT as NUMERIC and tells truth as bool; SQLite says integer to both."""
    if isinstance(value, (str, int)):
        return int(value) if isinstance(value, bool) else value
    if value is None:
        return None
    from decimal import Decimal

    assert isinstance(value, Decimal), f"{name}: not an integer or text"
    assert value == value.to_integral_value(), f"{name}: not an integer"
    return int(value)


async def _run_sql(what: str, connection: Connection, sql: str) -> None:
    try:
        await connection.execute(sql.encode())
    except psycopg.Error as error:
        raise _translated(what, error) from error


async def _roll_back(connection: Connection) -> None:
    """A connection that cannot even roll back is of no use any more."""
    try:
        await connection.execute(b"ROLLBACK")
    except psycopg.Error:
        await connection.close()


async def _version(connection: Connection) -> int:
    try:
        cursor = await connection.execute(b"SELECT version FROM schema_version")
        row = await cursor.fetchone()
    except psycopg.errors.UndefinedTable:
        return 0
    except psycopg.Error as error:
        raise _translated("schema_version", error) from error
    return int(row[0]) if row is not None else 0
