"""What every store module codes against: exclusive transactions, named statements, typed rows."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

from billing.errors import PurserError

Dialect: TypeAlias = Literal["sqlite", "postgresql"]
Param: TypeAlias = (
    int | str | bytes | bool | Sequence[Any] | Mapping[str, Any] | frozenset[str] | None
)
R = TypeVar("R")
T = TypeVar("T")


class StoreError(PurserError):
    """Root of what the database can do to us; the text never contains a value of a row."""

    def __init__(self, what: str) -> None:
        super().__init__("", what)


class StoreUnavailable(StoreError):
    """The database could not be reached or answered too late; whether a commit happened is open."""


class StoreLocked(StoreError):
    """Another process holds the database for writing."""


class ConstraintViolated(StoreError):
    """A constraint or a guard refused the write; the transaction is over (as on PostgreSQL)."""


class Tx(Protocol):
    """One open transaction. A failed statement ends it: everything after is an AssertionError."""

    @property
    def dialect(self) -> Dialect: ...

    async def execute(self, name: str, /, **params: Param) -> int:
        """Run `file.statement`; rows affected."""
        ...

    async def execute_each(self, name: str, rows: Sequence[Mapping[str, Param]], /) -> list[int]:
        """Run one statement for each row in a single trip; rows affected by each."""
        ...

    async def fetch_one(self, cls: type[R], name: str, /, **params: Param) -> R | None:
        """The only row, or None; more than one is an AssertionError."""
        ...

    async def fetch_all(self, cls: type[R], name: str, /, **params: Param) -> list[R]:
        """All rows as `cls`, a dataclass whose fields are exactly the columns."""
        ...

    async def scalar(self, name: str, /, **params: Param) -> int | str | None:
        """First column of the only row; None when there is no row or it is NULL."""
        ...


class Engine(Protocol):
    """A database. Transactions are exclusive: one at a time, over all tasks and processes."""

    @property
    def dialect(self) -> Dialect: ...

    def transaction(self) -> AbstractAsyncContextManager[Tx]:
        """Commit on a clean exit, roll back on any exception; both finish even when cancelled.

        Raises `StoreUnavailable`, `ConstraintViolated`. Nesting in one task is an AssertionError.
        """
        ...

    async def close(self) -> None: ...


class MigratableEngine(Engine, Protocol):
    """What `billing.store.migrate` needs beyond `Engine`."""

    async def schema_version(self) -> int:
        """Number of the last migration applied; 0 for an empty database."""
        ...

    async def apply_migration(self, version: int, script: str) -> None:
        """Run a whole script and record its version, atomically."""
        ...


async def uninterrupted(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` to its end even when the caller is cancelled, then let the cancellation out.

    A cancelled COMMIT may have committed: the caller must not go on as if it had not.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
        except BaseException:
            break
    if cancelled is not None:
        # A failure of `work` is reported as the cancellation's context, not lost.
        if (failure := task.exception()) is not None:
            raise cancelled from failure
        raise cancelled
    return task.result()
