"""Every relative link of the documents leads somewhere, down to the heading or the name."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT, kept_files

DOCUMENTS = [
    name
    for name in kept_files()
    if name.endswith(".md") and (name.startswith("docs/") or "/" not in name)
]
LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
ELSEWHERE = re.compile(r"^(https?|mailto|nostr):")


def headings(path: Path) -> set[str]:
    """The anchors that GitHub makes of a document's headings."""
    slugs = set()
    for line in path.read_text(encoding="utf-8").splitlines():
        if match := re.match(r"#{1,6}\s+(.*)", line):
            text = re.sub(r"[`*_]|\[([^\]]*)\]\([^)]*\)", r"\1", match.group(1)).strip().lower()
            slugs.add(re.sub(r"[^\w\- ]", "", text).replace(" ", "-"))
    return slugs


def names(path: Path) -> set[str]:
    """What a Python module defines: functions, classes, methods as `Class.method`, constants."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{item.name}" for item in node.body if hasattr(item, "name")}
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def problem(document: str, target: str) -> str | None:
    """Why the link leads nowhere; None when it leads somewhere."""
    place, _, anchor = target.partition("#")
    path = (ROOT / document).parent / place if place else ROOT / document
    if not path.exists():
        return f"{document}: {target}: there is no {place}"
    if not anchor or re.fullmatch(r"L\d+(-L\d+)?", anchor):
        return None
    if path.suffix == ".md" and anchor not in headings(path):
        return f"{document}: {target}: no such heading"
    if path.suffix == ".py" and anchor not in names(path):
        return f"{document}: {target}: {place} defines no {anchor}"
    return None


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_somewhere(document: str) -> None:
    text = re.sub(r"```.*?```", "", (ROOT / document).read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = [target for target in LINK.findall(text) if not ELSEWHERE.match(target)]
    assert [found for target in targets if (found := problem(document, target))] == []


def test_a_dead_link_is_found() -> None:
    assert problem("README.md", "bot/nowhere.py")
    assert problem("README.md", "bot/clock.py#NoSuchClock")
    assert problem("README.md", "bot/clock.py#SystemClock.now") is None
