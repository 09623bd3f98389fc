"""`purser sandbox` prints a ready configuration, stays up, and goes when told to."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
import tomllib
from pathlib import Path

import httpx

from bot.config import load_config
from tests.e2e.botprocess import ROOT, eventually


async def test_sandbox_prints_what_a_bot_needs_and_stays_up(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "bot", "sandbox", "--dir", str(tmp_path)),
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        await eventually((tmp_path / "config.toml").exists, "a configuration is written")
        told = b""
        async with asyncio.timeout(10):
            while b"a month passes" not in told:
                told += await process.stderr.readline()
        config = load_config(tmp_path / "config.toml", {})
        async with httpx.AsyncClient(trust_env=False) as http:
            clock = await http.get(f"{config.stripe.api_base}/sandbox/clock")
        assert clock.json()["offset_s"] == 0
        assert stat.S_IMODE((tmp_path / "config.toml").stat().st_mode) == 0o600
        process.send_signal(signal.SIGTERM)
        out, _ = await asyncio.wait_for(process.communicate(), 10)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    printed = tomllib.loads(out.decode())
    assert printed == tomllib.loads((tmp_path / "config.toml").read_text())
