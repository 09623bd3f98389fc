"""The bot as production runs it: a process of its own, on a configuration file."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import httpx

START_S = 30.0
STOP_S = 15.0


class BotFailed(RuntimeError):
    """The bot ended or did not get ready; the end of its log is in the text."""


class BotProcess:
    """`python -m bot run`, its log beside the configuration."""

    def __init__(self, config: Path, url: str) -> None:
        self.config = config
        self.url = url
        self.log = config.with_name("bot.log")
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Returns when `/readyz` says yes."""
        environment = {**os.environ, "PURSER_CONFIG": str(self.config), "NO_COLOR": "1"}
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "bot",
                "run",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )
        try:
            async with asyncio.timeout(START_S), httpx.AsyncClient() as client:
                while not await self._is_ready(client):
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise BotFailed(f"the bot is not ready after {START_S:.0f} s{self.tail()}") from None

    async def _is_ready(self, client: httpx.AsyncClient) -> bool:
        assert self._process is not None
        if self._process.returncode is not None:
            raise BotFailed(f"the bot ended with {self._process.returncode}{self.tail()}")
        try:
            return (await client.get(f"{self.url}/readyz")).status_code == 200
        except httpx.TransportError:
            return False

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Its exit status; killed when it does not end in time."""
        process = self._process
        if process is None:
            return 0
        if process.returncode is None:
            process.send_signal(how)
            try:
                await asyncio.wait_for(process.wait(), STOP_S)
            except TimeoutError:
                process.kill()
                await process.wait()
        self._process = None
        return process.returncode or 0

    def tail(self, lines: int = 12) -> str:
        """The end of the log, for an error."""
        try:
            text = self.log.read_text(errors="replace")
        except OSError:
            return ""
        return "\n" + "\n".join(text.splitlines()[-lines:])
