"""Modules are small, say what they are for, and hold functions that fit a screen."""

from __future__ import annotations

import ast

import pytest

from tests.architecture.tree import ROOT, modules

MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60


def parse(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text(encoding="utf-8"), filename=name)


def test_there_are_modules_in_all_three_packages() -> None:
    assert {name.split("/")[0] for name in modules()} == {"bot", "billing", "wallet"}


def test_no_module_is_longer_than_its_limit() -> None:
    lengths = {
        name: len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name in modules()
    }
    assert {name: lines for name, lines in lengths.items() if lines > MAX_MODULE_LINES} == {}


@pytest.mark.parametrize("name", modules())
def test_a_module_says_in_one_paragraph_what_it_is_for(name: str) -> None:
    docstring = ast.get_docstring(parse(name))
    assert docstring, f"{name} has no docstring"
    first = docstring.split("\n\n")[0].rstrip()
    assert first.endswith((".", ":")), f"{name}: the first paragraph is not a sentence: {first!r}"


def test_functions_fit_a_screen() -> None:
    long = [
        f"{name}:{node.lineno} {node.name} has {length} lines"
        for name in modules()
        for node in ast.walk(parse(name))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > MAX_FUNCTION_LINES
    ]
    assert long == []
