"""Every difference that an audit can name is in the operator's table, and some test produces it."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.architecture.tree import ROOT, kept_files


def parsed(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), path)


def documented() -> set[str]:
    """The first column of the table in docs/books.md."""
    text = (ROOT / "docs/books.md").read_text(encoding="utf-8")
    _, table = text.split("| difference | means | do |\n")
    rows = table.partition("\n\n")[0].splitlines()[1:]
    return {kind for row in rows for kind in re.findall(r"`(\w+)`", row.split("|")[1])}


def constructed() -> set[str]:
    """Each `Difference("…", …)` of the rules."""
    return {
        node.args[0].value
        for node in ast.walk(parsed("billing/audit_rules.py"))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "Difference"
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    }


@cache
def asserted() -> frozenset[str]:
    """The strings in assertions of the tests that run an audit."""
    return frozenset(
        part.value
        for path in kept_files()
        if re.fullmatch(r"tests/unit/billing/test_\w*audit\w*\.py", path)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Assert)
        for part in ast.walk(node.test)
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    )


def test_the_table_names_what_an_audit_can_say_and_nothing_else() -> None:
    assert documented() == constructed()


@pytest.mark.parametrize("kind", sorted(documented()))
def test_some_test_produces_each_difference(kind: str) -> None:
    """A rule that nothing trips may have stopped to work long ago."""
    assert kind in asserted()
