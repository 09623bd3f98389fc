"""A table and statements of the tests' own, so that engines are tested apart from the schema."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

import billing.store.postgres
import billing.store.sqlite
from billing.store import statements

SCHEMA = """
CREATE TABLE probe (key TEXT PRIMARY KEY, number BIGINT NOT NULL CHECK (number >= 0), note TEXT);
INSERT INTO probe (key, number) VALUES ('counter', 0);
"""

SQL = """
-- name: insert
-- Adds a row unless the key is there.
INSERT INTO probe (key, number, note) VALUES (:key, :number, :note) ON CONFLICT (key) DO NOTHING;
-- name: insert_strictly
-- Adds a row; a taken key is an error.
INSERT INTO probe (key, number, note) VALUES (:key, :number, :note);
-- name: all
-- Every row in order.
SELECT key, number, note FROM probe ORDER BY key;
-- name: by_key
-- One row.
SELECT key, number, note FROM probe WHERE key = :key;
-- name: set_number
-- Sets one row's number.
UPDATE probe SET number = :number WHERE key = :key;
-- name: add
-- Adds two parameters to a number: widths must not follow the values.
UPDATE probe SET number = number + (:a + :b) WHERE key = :key;
-- name: delete_returning
-- Deletes what is above a limit.
DELETE FROM probe WHERE number >= :number RETURNING key;
-- name: total
-- A sum, NUMERIC on PostgreSQL.
SELECT sum(number) FROM probe;
-- name: keys
-- Only the keys.
SELECT key FROM probe ORDER BY key;
-- name: broken
-- Names a column that is not there.
SELECT nothing FROM probe;
"""


@dataclass(frozen=True, slots=True)
class Probe:
    key: str
    number: int
    note: str | None


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `probe.*` known to both engines."""
    found = dict(statements.load()) | statements.parse("probe", SQL)

    def statement(name: str) -> statements.Statement:
        return found[name]

    monkeypatch.setattr(billing.store.sqlite, "statement", statement)
    monkeypatch.setattr(billing.store.postgres, "statement", statement)
