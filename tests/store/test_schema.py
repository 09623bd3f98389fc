"""The schema as migrations make it: a snapshot per engine, and both saying the same.

`UPDATE_SNAPSHOTS=1 pytest tests/store/test_schema.py` writes the snapshots anew.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from pathlib import Path

import psycopg
import pytest

from billing.store.migrate import available
from tests.engines import postgres_database

SNAPSHOTS = Path(__file__).with_name("snapshots")

Columns = dict[str, dict[str, tuple[str, bool, str | None]]]


@pytest.fixture(scope="module")
def lite():
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        for step in available("sqlite"):
            connection.executescript(step.script)
        yield connection


@pytest.fixture(scope="module")
def pg(postgres_url: str, postgres_template: str):
    with (
        postgres_database(postgres_url, postgres_template) as url,
        psycopg.connect(url, autocommit=True) as connection,
    ):
        yield connection


def compare(name: str, text: str) -> None:
    path = SNAPSHOTS / name
    if os.environ.get("UPDATE_SNAPSHOTS"):
        SNAPSHOTS.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text(), "the schema changed: write a migration, update the snapshot"


def test_sqlite_snapshot(lite) -> None:
    rows = lite.execute(
        "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' "
        "ORDER BY type, name"
    )
    compare("schema_sqlite.sql", "".join(f"{row[0]};\n\n" for row in rows))


def test_postgresql_snapshot(pg) -> None:
    lines = [f"column {row[0]}.{row[1]} {row[2]}" for row in pg.execute(PG_COLUMNS)]
    lines += [f"constraint {t}: {d}" for t, d in pg.execute(PG_CONSTRAINTS)]
    lines += [row[0] for row in pg.execute(PG_INDEXES)]
    lines += [row[0] for row in pg.execute(PG_TRIGGERS)]
    lines += [row[0].strip() for row in pg.execute(PG_FUNCTIONS)]
    compare("schema_postgresql.txt", "\n".join(lines) + "\n")


def sqlite_columns(lite) -> Columns:
    names = [
        r[0]
        for r in lite.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        )
    ]
    found: Columns = {}
    for name in names:
        for column in lite.execute("SELECT * FROM pragma_table_info(?)", (name,)):
            kind = {"INTEGER": "BIGINT"}.get(column[2], column[2])
            required = bool(column[3] or column[5])
            found.setdefault(name, {})[column[1]] = (kind, required, column[4])
    return found


def pg_columns(pg) -> Columns:
    found: Columns = {}
    for table, column, kind, required, default in pg.execute(
        "SELECT table_name, column_name, upper(data_type), is_nullable = 'NO', column_default "
        "FROM information_schema.columns WHERE table_schema = 'public' "
        "AND table_name <> 'schema_version' ORDER BY table_name, ordinal_position"
    ):
        plain = None if default is None else re.sub(r"::\w+$", "", default)
        found.setdefault(table, {})[column] = (kind, required, plain)
    return found


def test_both_engines_have_the_same_tables_and_columns(lite, pg) -> None:
    ours, theirs = sqlite_columns(lite), pg_columns(pg)
    assert ours.keys() == theirs.keys()
    for table in ours:
        assert ours[table] == theirs[table], table


def test_both_engines_have_the_same_indexes(lite, pg) -> None:
    """Among them the money rules' partial unique ones."""

    def plain(sql: str) -> str:
        sql = re.sub(r"::text(\[\])?|\bpublic\.|USING btree|[\s()'\"]|COLLATE C\b", "", sql)
        return re.sub(r"=ANYARRAY\[([^\]]*)\]", r"IN\1", sql).lower()

    ours = {
        plain(row[0])
        for row in lite.execute(
            "SELECT sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL"
        )
    }
    theirs = {
        plain(row[0])
        for row in pg.execute(
            "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND indexname NOT IN "
            "(SELECT conname FROM pg_constraint)"
        )
    }
    assert ours == theirs


def test_both_engines_have_the_same_guards_and_checks(lite, pg) -> None:
    names = {r[0] for r in lite.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'")}
    assert names == {
        r[0] for r in pg.execute("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal")
    }
    tables = "".join(
        r[0] for r in lite.execute("SELECT sql FROM sqlite_schema WHERE type = 'table'")
    )
    bare = re.sub(r"--[^\n]*", "", tables)
    for kind, word in (("c", "CHECK"), ("f", "REFERENCES"), ("u", " UNIQUE")):
        count = pg.execute(
            "SELECT count(*) FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid "
            "WHERE contype = %s AND relname <> 'schema_version' "
            "AND c.connamespace = 'public'::regnamespace",
            (kind,),
        ).fetchone()[0]
        assert count == len(re.findall(rf"{word}\b", bare)), word
    # A list of states differs in writing only: every literal of a guard is in both.
    guards = " ".join(
        r[0] for r in lite.execute("SELECT sql FROM sqlite_schema WHERE type = 'trigger'")
    )
    theirs = " ".join(r[0] for r in pg.execute(PG_TRIGGERS))
    assert set(re.findall(r"'(\w+>\w+)'", guards)) == set(re.findall(r"'(\w+>\w+)'", theirs))


PG_COLUMNS = """
SELECT table_name, column_name, data_type
    || coalesce(' collate ' || collation_name, '')
    || CASE is_nullable WHEN 'NO' THEN ' not null' ELSE '' END
    || coalesce(' default ' || column_default, '')
    || CASE is_identity WHEN 'YES' THEN ' identity' ELSE '' END
FROM information_schema.columns WHERE table_schema = 'public'
ORDER BY table_name, ordinal_position"""
PG_CONSTRAINTS = """
SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint
WHERE connamespace = 'public'::regnamespace AND contype IN ('c', 'f', 'p', 'u')
ORDER BY conrelid::regclass::text COLLATE "C", contype, pg_get_constraintdef(oid) COLLATE "C\""""
PG_INDEXES = """
SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY indexname COLLATE "C\""""
PG_TRIGGERS = """
SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
ORDER BY tgname COLLATE "C\""""
PG_FUNCTIONS = """
SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
ORDER BY proname COLLATE "C\""""
