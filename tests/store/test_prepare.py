"""Every named statement can be prepared on both engines, and asks for types that we give."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator

import psycopg
import pytest

from billing.store import statements
from billing.store.migrate import available

# What `rows.to_column` gives: integers go out as BIGINT (good for INTEGER too), else text or bytes.
GIVEN_TYPES = {"bigint", "integer", "text", "bytea"}

Prepare = Callable[[statements.Statement], None]


@pytest.fixture(scope="module")
def on_sqlite() -> Iterator[Prepare]:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        for step in available("sqlite"):
            connection.executescript(step.script)

        def prepare(found: statements.Statement) -> None:
            connection.execute(f"EXPLAIN {found.sqlite}", dict.fromkeys(found.params))

        yield prepare


@pytest.fixture(scope="module")
def on_postgresql(postgres_url: str, postgres_template: str) -> Iterator[Prepare]:
    from tests.engines import postgres_database

    with (
        postgres_database(postgres_url, postgres_template) as url,
        psycopg.connect(url, autocommit=True) as connection,
    ):

        def prepare(found: statements.Statement) -> None:
            sql = found.postgresql
            names = sorted(found.params)
            for number, name in enumerate(names, start=1):
                sql = sql.replace(f"%({name})s", f"${number}")
            connection.execute(f"PREPARE probe AS {sql.replace('%%', '%')}".encode())
            row = connection.execute(
                "SELECT parameter_types::text[] FROM pg_prepared_statements WHERE name = 'probe'"
            ).fetchone()
            connection.execute("DEALLOCATE probe")
            assert row is not None
            wrong = {n: t for n, t in zip(names, row[0], strict=True) if t not in GIVEN_TYPES}
            assert not wrong, f"{found.name}: parameters of other types: {wrong}"

        yield prepare


@pytest.mark.parametrize("name", sorted(statements.load()))
def test_the_statement_works_on_both(name: str, on_sqlite: Prepare, on_postgresql: Prepare) -> None:
    """V4: what only one engine can do fails here, not in silence at night."""
    found = statements.statement(name)
    on_sqlite(found)
    on_postgresql(found)
