"""Each money rule has a unit test that names it and a checker of the simulation that names it."""

from __future__ import annotations

import re

import pytest

from tests.architecture.named import naming
from tests.architecture.tree import ROOT, kept_files

RULES = [f"M{n}" for n in range(1, 15)]


def checkers() -> dict[str, set[str]]:
    """Rule → files of the simulation that convict by it."""
    found: dict[str, set[str]] = {}
    for path in kept_files():
        if path.startswith("tests/sim/") and path.endswith(".py"):
            text = (ROOT / path).read_text(encoding="utf-8")
            for number in re.findall(r"\bviolate\(\s*f?\"(M\d+)\"", text):
                found.setdefault(number, set()).add(path)
    return found


@pytest.mark.parametrize("rule", RULES)
def test_a_unit_test_names_the_rule(rule: str) -> None:
    assert [place for place in naming(rule) if place.startswith("tests/unit/")]


@pytest.mark.parametrize("rule", RULES)
def test_a_checker_of_the_simulation_names_the_rule(rule: str) -> None:
    assert checkers().get(rule), f"no checker convicts by {rule}"


def test_what_convicts_is_a_rule() -> None:
    assert set(checkers()) <= {*RULES, "C20", "STUCK"}
