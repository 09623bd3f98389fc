"""Tells systemd that the bot is ready, alive or stopping (`Type=notify`, `WatchdogSec=`)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias

import structlog

from bot.supervise import Phase, State, Supervisor, Worker, service

# systemd asks for at least twice per period; three leaves room for one late ping.
PINGS_PER_PERIOD: Final = 3
# A loop that wakes this late is not serving anybody.
MAX_LAG_S: Final = 5.0

Probe: TypeAlias = Callable[[], Awaitable[None]]
"""A tiny durable commit; raises when the store does not take it."""


class Systemd:
    """Messages of sd_notify(3); without systemd every call does nothing."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._address = env.get("NOTIFY_SOCKET", "")
        usec = env.get("WATCHDOG_USEC", "")
        self._period_s = int(usec) / 1e6 if usec.isdigit() else 0.0
        self._log = structlog.get_logger("systemd")

    def ready(self) -> None:
        """The start is over."""
        self._send("READY=1")

    def stopping(self) -> None:
        """The orderly stop has begun."""
        self._send("STOPPING=1")

    def watchdog(self, supervisor: Supervisor, probe: Probe) -> Worker | None:
        """A worker that pings while the loop turns, the store commits and no worker is stuck; None
        where no watchdog was asked for."""
        if not self._address or not self._period_s:
            return None
        pause_s = self._period_s / PINGS_PER_PERIOD

        async def ping() -> None:
            loop = asyncio.get_running_loop()
            while True:
                due = loop.time() + pause_s
                await asyncio.sleep(pause_s)
                lag_s = loop.time() - due
                stuck = [
                    health.name
                    for health in supervisor.health()
                    if health.state is State.RUNNING and not health.fresh
                ]
                if stuck or lag_s > MAX_LAG_S:
                    self._log.error("watchdog.withheld", stuck=stuck, lag_s=round(lag_s, 1))
                    continue
                await probe()
                self._send("WATCHDOG=1")

        return service("watchdog", ping, phase=Phase.CONNECTIONS)

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # A leading @ stands for an abstract socket.
        address = f"\0{self._address[1:]}" if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
                out.setblocking(False)
                out.sendto(message.encode(), address)
        except OSError as error:
            self._log.warning("systemd.not_told", message=message, error=error.strerror)
