"""Runs the Node peers of tests/interop/node: skipped where there is no Node, required in CI."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.required import missing

NODE_DIR = Path(__file__).parent / "node"
TIME_LIMIT_S = 60.0
"""A script takes a second; on a machine busy with other tests, some."""


def require_node() -> str:
    """Path of the `node` program. Skips the test (fails with PURSER_REQUIRE_PEERS=1) without it or
    without the npm packages."""
    node = shutil.which("node")
    if node is None:
        missing("there is no Node.js on this machine")
    if not (NODE_DIR / "node_modules" / "nostr-tools").is_dir():
        missing("the npm peers are not installed: npm ci --prefix tests/interop/node")
    return node


def run_node(script: str, *args: str, stdin: Any = None) -> Any:
    """Run a script of tests/interop/node to its end: JSON in (`stdin`), JSON out."""
    node = require_node()
    done = subprocess.run(
        [node, script, *args],
        cwd=NODE_DIR,
        input=json.dumps(stdin),
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_S,
        check=False,
    )
    if done.returncode != 0:
        pytest.fail(f"{script} ended with {done.returncode}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)
