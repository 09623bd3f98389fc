"""The tree holds what was agreed and nothing of the place where it was written."""

from __future__ import annotations

import os
import re

import pytest

from tests.architecture.tree import ROOT, kept_files

TOP_LEVEL = {
    ".ci",
    ".editorconfig",
    ".gitattributes",
    ".gitignore",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "billing",
    "bot",
    "config.example.toml",
    "deploy",
    "docs",
    "pyproject.toml",
    "requirements-dev.lock",
    "requirements.lock",
    "tests",
    "wallet",
}
LOCKS = ("requirements.lock", "requirements-dev.lock")
# Each written so that it does not match itself.
FOREIGN = re.compile(
    r"/(w[o]rk|f[a]rm)/"  # paths of a machine
    r"|/[t]mp/bash_"
    r"|/(home|[U]sers)/[a-z]\w*/"
    r"|files\.[p]ythonhosted"
    r"|registry\.[n]pmjs"
    r"|deb\.[d]ebian"
    r"|pypi\.[o]rg/simple"
    r"|-----[B]EGIN [A-Z ]*PRIVATE KEY"
)


def test_the_top_level_is_the_agreed_few() -> None:
    top = {name.split("/")[0] for name in kept_files()}
    assert top - TOP_LEVEL == set()
    for needed in ("README.md", "CHANGELOG.md", "LICENSE", "config.example.toml", "Makefile"):
        assert needed in top, f"{needed} is missing"


def test_no_file_names_the_machine_it_was_written_on() -> None:
    found = []
    for name in kept_files():
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [
            f"{name}:{number}: {match.group()}"
            for number, line in enumerate(text.splitlines(), 1)
            if (match := FOREIGN.search(line))
        ]
    assert found == []


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_every_package_by_hash_and_names_no_address(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert not re.search(r"://|--(extra-)?index-url|--find-links|--trusted-host", text)
    packages = re.split(r"\n(?=[a-z])", text.split("make lock\n", 1)[1])
    assert len(packages) > 20
    for package in packages:
        assert re.match(r"[a-z0-9.-]+==\S+", package), package[:80]
        assert "--hash=sha256:" in package, package[:80]
    assert any(package.startswith("hatchling==") for package in packages)


def test_the_test_lock_pins_all_that_the_runtime_lock_pins() -> None:
    pins = [
        set(re.findall(r"^([a-z0-9.-]+==\S+)", (ROOT / name).read_text(), re.MULTILINE))
        for name in LOCKS
    ]
    assert pins[0] <= pins[1]


def test_the_ci_entry_can_be_run() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
