"""The demo as a user runs it: a process of its own that exits 0 only when every step went right."""

from __future__ import annotations

import json
import subprocess
import sys


def test_the_demo_tells_its_story_as_json_and_the_books_agree() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bot", "demo", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    steps = [line for line in lines if "who" in line]
    said = " ".join(step["what"] for step in steps)
    for moment in ("Ordered", "is up", "Paid from your wallet", "refused", "Paid over Lightning"):
        assert moment in said
    books = lines[-1]["books"]
    assert {(book["payments"], book["amount_msat"]) for book in books} == {(3, 15_000_000)}
    assert len(books) == 4
    assert "secret=" not in done.stdout + done.stderr
