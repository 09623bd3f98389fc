"""Fixtures that every kind of test may use: `engine` on both databases, `database_url` below it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from billing.store.engine import MigratableEngine
from tests import engines


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """One PostgreSQL server for the session, started when first asked for. Never skipped."""
    with engines.postgres_server() as url:
        yield url


@pytest.fixture(scope="session")
def postgres_template(postgres_url: str) -> str:
    """A migrated database to copy for each test."""
    return engines.create_template(postgres_url)


@pytest.fixture(params=engines.DIALECTS)
def dialect(request: pytest.FixtureRequest) -> str:
    """The engine under test: every test that asks for it runs on both."""
    return str(request.param)


@pytest.fixture
def empty_database_url(
    dialect: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[str]:
    """Location of a database without any schema."""
    if dialect == "sqlite":
        yield str(tmp_path / "purser.db")
        return
    with engines.postgres_database(request.getfixturevalue("postgres_url")) as url:
        yield url


@pytest.fixture
def database_url(dialect: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Location of a database with this version's schema (SQLite: as soon as it is opened)."""
    if dialect == "sqlite":
        yield str(tmp_path / "purser.db")
        return
    template = request.getfixturevalue("postgres_template")
    with engines.postgres_database(request.getfixturevalue("postgres_url"), template) as url:
        yield url


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[MigratableEngine]:
    """A migrated engine on each database in turn."""
    async with engines.opened(database_url) as opened:
        yield opened
