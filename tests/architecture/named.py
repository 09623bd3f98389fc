"""Which tests there are, and what each of them says it proves in its name or docstring."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache

from tests.architecture.tree import ROOT, kept_files


@dataclass(frozen=True, slots=True)
class NamedTest:
    """One test function; `place` is "path::name" as pytest takes it."""

    place: str
    docstring: str

    @property
    def name(self) -> str:
        return self.place.partition("::")[2]

    def names(self, number: str) -> bool:
        """Whether it says a number (C4, M13, …) as a word of its name or of its docstring."""
        in_name = number.lower() in self.name.split("_")
        return in_name or re.search(rf"\b{number}\b", self.docstring) is not None


@cache
def all_tests() -> dict[str, NamedTest]:
    """By place: every test function of the suite."""
    found = {}
    for path in kept_files():
        if not (path.startswith("tests/") and path.rpartition("/")[2].startswith("test_")):
            continue
        if not path.endswith(".py"):
            continue
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"), path)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if node.name.startswith("test_"):
                place = f"{path}::{node.name}"
                found[place] = NamedTest(place, ast.get_docstring(node) or "")
    return found


def naming(number: str) -> list[str]:
    """The places of the tests that name a number, in order."""
    return sorted(test.place for test in all_tests().values() if test.names(number))
