"""What the architecture tests read: the files that are kept, and the Python modules among them."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_NOT_KEPT = {
    ".git",
    ".venv",
    "__pycache__",
    "node_modules",
    "build",
    "dist",
    ".pytest_cache",
    ".mypy_cache",
    ".ruff_cache",
    ".hypothesis",
}


@cache
def kept_files() -> tuple[str, ...]:
    """Paths relative to the top of what git keeps; without git, of what lies there."""
    try:
        listing = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
        ).stdout
        names = [name for name in listing.split("\0") if name and (ROOT / name).is_file()]
    except (OSError, subprocess.CalledProcessError):
        names = [
            str(path.relative_to(ROOT))
            for path in ROOT.rglob("*")
            if path.is_file() and not _NOT_KEPT & set(path.relative_to(ROOT).parts)
        ]
    return tuple(sorted(names))


def modules() -> list[str]:
    """The Python files of the three packages."""
    return [
        name
        for name in kept_files()
        if name.endswith(".py") and name.split("/")[0] in {"bot", "billing", "wallet"}
    ]
