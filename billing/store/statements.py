"""Loads the named SQL statements of `sql/*.sql`, one form per engine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SQL_DIR = Path(__file__).with_name("sql")

_HEADER = re.compile(r"^--\s*name:\s*([a-z][a-z0-9_]*)(?:\s*\[(sqlite|postgresql)\])?\s*$")
# Order matters: literals, quoted names and comments are passed over before a parameter is seen.
_TOKEN = re.compile(
    r"(?P<skip>'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/|::)"
    r"|:(?P<param>[a-z_][a-z0-9_]*)"
    r"|(?P<percent>%)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Statement:
    """One named statement: `sqlite` with `:name`, `postgresql` with `%(name)s` parameters."""

    name: str
    purpose: str
    sqlite: str
    postgresql: str
    params: frozenset[str]

    def check(self, given: Mapping[str, object]) -> None:
        """Both drivers ignore superfluous parameters; a typo must not pass."""
        assert given.keys() == self.params, (
            f"{self.name}: parameters {sorted(given)} given, {sorted(self.params)} wanted"
        )


def parameters(sql: str) -> frozenset[str]:
    """Names of the `:name` parameters outside literals, comments and `::` casts."""
    return frozenset(m["param"] for m in _TOKEN.finditer(sql) if m["param"])


def to_psycopg(sql: str) -> str:
    """`:name` → `%(name)s`; a literal `%` is doubled everywhere, as psycopg wants."""

    def replace(match: re.Match[str]) -> str:
        if match["param"]:
            return f"%({match['param']})s"
        return match[0].replace("%", "%%")

    return _TOKEN.sub(replace, sql)


def parse(file: str, text: str) -> dict[str, Statement]:
    """Statements of one file by full name. A malformed file is an AssertionError with its place.

    `-- name: x` begins a statement, comment lines after it say what it is for.
    `-- name: x [postgresql]` right after it replaces it on that engine only.
    """
    blocks: dict[str, dict[str | None, list[str]]] = {}
    current: list[str] | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            variants = blocks.setdefault(f"{file}.{header[1]}", {})
            assert header[2] not in variants, f"{file}.sql:{number}: {header[1]} is there twice"
            current = variants[header[2]] = []
        elif re.match(r"^--\s*name:", line):
            raise AssertionError(f"{file}.sql:{number}: a header is `-- name: statement`")
        elif current is not None:
            current.append(line)
        else:
            assert not line.strip() or line.startswith("--"), f"{file}.sql:{number}: no header"
    return {name: _statement(name, variants) for name, variants in blocks.items()}


def _statement(name: str, variants: Mapping[str | None, list[str]]) -> Statement:
    assert None in variants, f"{name}: a variant for one engine needs the common form too"
    purpose, common = _split(name, variants[None])
    sqlite = _split(name, variants["sqlite"])[1] if "sqlite" in variants else common
    postgresql = _split(name, variants["postgresql"])[1] if "postgresql" in variants else common
    wanted = parameters(sqlite)
    assert parameters(postgresql) == wanted, f"{name}: its variants take different parameters"
    return Statement(name, purpose, sqlite, to_psycopg(postgresql), wanted)


def _split(name: str, lines: list[str]) -> tuple[str, str]:
    first = next((i for i, line in enumerate(lines) if not line.startswith("--")), len(lines))
    purpose = " ".join(line.removeprefix("--").strip() for line in lines[:first]).strip()
    sql = "\n".join(lines[first:]).strip().removesuffix(";").rstrip()
    assert purpose, f"{name}: say in a comment line what it is for"
    assert sql, f"{name}: no statement"
    bare = _TOKEN.sub(lambda m: "" if m["skip"] else m[0], sql)
    assert ";" not in bare, f"{name}: more than one statement"
    return purpose, sql


@cache
def load(directory: Path = SQL_DIR) -> Mapping[str, Statement]:
    """Every statement of every file, by `file.statement`."""
    found: dict[str, Statement] = {}
    for path in sorted(directory.glob("*.sql")):
        found.update(parse(path.stem, path.read_text(encoding="utf-8")))
    return found


def statement(name: str) -> Statement:
    """The statement `file.statement`; an unknown one is an AssertionError."""
    found = load().get(name)
    assert found is not None, f"no statement {name!r} in billing/store/sql"
    return found
