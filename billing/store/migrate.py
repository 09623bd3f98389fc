"""Brings a database to this version's schema, step by numbered step, forward only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from billing.store.engine import Dialect, MigratableEngine, StoreError

MIGRATIONS_DIR = Path(__file__).with_name("migrations")

_FILE = re.compile(r"^(\d{4})_([a-z0-9_]+)\.sql$")


class NewerDatabase(StoreError):
    """The database was written by a newer Purser; going on could misread money."""


class OutdatedDatabase(StoreError):
    """The database is older than this Purser and must be migrated first."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered script; `name` is the file's name without the ending."""

    version: int
    name: str
    script: str


@dataclass(frozen=True, slots=True)
class Migrated:
    """What `migrate` did: version before, version after, names applied in order."""

    before: int
    after: int
    applied: tuple[str, ...]


def available(dialect: Dialect, directory: Path = MIGRATIONS_DIR) -> tuple[Migration, ...]:
    """The engine's migrations in order. A gap or a stray file is an AssertionError."""
    found: list[Migration] = []
    for path in sorted((directory / dialect).glob("*.sql")):
        match = _FILE.match(path.name)
        assert match, f"{path.name}: a migration is called 0001_what_it_does.sql"
        found.append(Migration(int(match[1]), path.stem, path.read_text(encoding="utf-8")))
    numbers = [m.version for m in found]
    assert numbers == list(range(1, len(found) + 1)), f"migrations are not 1..n: {numbers}"
    return tuple(found)


async def pending(
    engine: MigratableEngine, directory: Path = MIGRATIONS_DIR
) -> tuple[Migration, ...]:
    """Migrations not applied yet. Raises `NewerDatabase`."""
    known = available(engine.dialect, directory)
    version = await engine.schema_version()
    if version > len(known):
        raise NewerDatabase(
            f"the database has schema version {version}, this Purser knows up to {len(known)}: "
            "install the newer Purser again, or restore the backup made before it"
        )
    return known[version:]


async def migrate(engine: MigratableEngine, directory: Path = MIGRATIONS_DIR) -> Migrated:
    """Apply what is missing, each step atomically. Raises `NewerDatabase`, `StoreError`."""
    steps = await pending(engine, directory)
    before = await engine.schema_version()
    for step in steps:
        await engine.apply_migration(step.version, step.script)
    return Migrated(before, before + len(steps), tuple(step.name for step in steps))


async def require_current(engine: MigratableEngine) -> None:
    """Raises `OutdatedDatabase` or `NewerDatabase` unless the schema is exactly this version's."""
    if steps := await pending(engine):
        raise OutdatedDatabase(
            f"the database lacks {len(steps)} migration(s), next {steps[0].name}: "
            "run `purser migrate` (or start the bot, which does it)"
        )
