"""`make bench`: signed webhooks a second, acknowledged after a durable commit, in one process.

Beside the endpoint itself stand a bare ASGI app that only answers (what the server costs) and the
same endpoint with one commit a request (what sharing commits is worth). Afterwards the rows are
counted: every acknowledged delivery must be there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.server import VARIANTS

ROOT = Path(__file__).parents[2]
WANTED_PER_SECOND = 5_000
WANTED_P99_MS = 50
SAYS = {
    "bare": "bare ASGI app, only answers",
    "shared": "the endpoint: verified, stored, shared commits",
    "single": "the same with one commit a request",
}


def measure(variant: str, directory: Path, connections: int, seconds: float) -> dict[str, Any]:
    database = directory / f"{variant}.db"
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.server", variant, str(database)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert server.stdout is not None
        # Log lines may come before it.
        port = next(line.split()[1] for line in server.stdout if line.startswith("port "))
        load = subprocess.run(
            [sys.executable, "-m", "tests.bench.load", port, str(connections), str(seconds)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=True,
            timeout=60,
        )
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=20)
    result: dict[str, Any] = json.loads(load.stdout)
    if variant != "bare":
        with contextlib.closing(sqlite3.connect(database)) as connection:
            stored = connection.execute("SELECT count(*) FROM inbox_events").fetchone()[0]
        assert stored == result["acknowledged"], (
            f"{variant}: {result['acknowledged']} acknowledged, {stored} stored"
        )
    return result


def fsync_ms(directory: Path) -> float:
    """The median of 50 small durable appends: what one commit cannot be faster than."""
    times = []
    with open(directory / "fsync", "wb", buffering=0) as file:
        for _ in range(50):
            file.write(b"x" * 4096)
            begin = time.perf_counter()
            os.fsync(file.fileno())
            times.append((time.perf_counter() - begin) * 1000)
    return sorted(times)[25]


def table(results: dict[str, dict[str, Any]]) -> Table:
    shown = Table(title="Signed webhooks acknowledged after a durable commit")
    for column in ("", "per second", "of bare", "p50 ms", "p99 ms", "max ms", "refused"):
        shown.add_column(column, justify="left" if not column else "right")
    for variant, result in results.items():
        shown.add_row(
            SAYS[variant],
            f"{result['per_second']:,.0f}",
            f"{result['per_second'] / results['bare']['per_second']:.0%}",
            *(f"{result[key]:.1f}" for key in ("p50_ms", "p99_ms", "max_ms")),
            str(result["refused"]),
        )
    return shown


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.webhooks", description=__doc__)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--dir", type=Path, help="where the databases lie while it runs")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--require", action="store_true", help="exit 1 below the wanted figures")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="purser-bench-", dir=given.dir) as name:
        fsync = fsync_ms(Path(name))
        results = {v: measure(v, Path(name), given.connections, given.seconds) for v in VARIANTS}
    shared = results["shared"]
    met = shared["per_second"] >= WANTED_PER_SECOND and shared["p99_ms"] < WANTED_P99_MS
    if given.json:
        sys.stdout.write(json.dumps({"fsync_ms": fsync, "met": met, "variants": results}) + "\n")
    else:
        console = Console()
        console.print(table(results))
        console.print(
            f"{given.connections} connections, 3 KB bodies, SQLite {sqlite3.sqlite_version} WAL "
            f"synchronous=FULL, fsync {fsync:.2f} ms, Python {platform.python_version()}, "
            f"{os.cpu_count()} cores; shared over single "
            f"x{shared['per_second'] / results['single']['per_second']:.1f}"
        )
        console.print(
            f"wanted: {WANTED_PER_SECOND:,} a second with p99 under {WANTED_P99_MS} ms: "
            + ("met" if met else "MISSED")
        )
    return 1 if given.require and not met else 0


if __name__ == "__main__":
    sys.exit(main())
