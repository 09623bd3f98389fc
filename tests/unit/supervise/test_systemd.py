"""What systemd is told, over a socket like its own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.clock import SystemIds
from bot.supervise import Life, Supervisor, Worker
from bot.systemd import Systemd


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        yield sock


def told(manager: socket.socket) -> list[str]:
    found = []
    while True:
        try:
            found.append(manager.recv(100).decode())
        except BlockingIOError:
            return found


def env_of(manager: socket.socket, period_us: int = 60_000) -> dict[str, str]:
    return {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": str(period_us)}


async def run_for(supervisor: Supervisor, seconds: float) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, stop.set)
    await supervisor.run(stop)


def test_ready_and_stopping_are_told(manager: socket.socket) -> None:
    systemd = Systemd(env_of(manager))
    systemd.ready()
    systemd.stopping()
    assert told(manager) == ["READY=1", "STOPPING=1"]


def test_without_systemd_nothing_happens(tmp_path: Path) -> None:
    supervisor = Supervisor(ids=SystemIds())

    async def probe() -> None: ...

    Systemd({}).ready()
    assert Systemd({}).watchdog(supervisor, probe) is None
    assert Systemd({"NOTIFY_SOCKET": "/nowhere"}).watchdog(supervisor, probe) is None
    Systemd({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()


async def test_pings_come_while_all_is_well(manager: socket.socket) -> None:
    commits = 0

    async def probe() -> None:
        nonlocal commits
        commits += 1

    supervisor = Supervisor(ids=SystemIds())
    watchdog = Systemd(env_of(manager)).watchdog(supervisor, probe)
    assert watchdog is not None
    supervisor.add([watchdog])
    await run_for(supervisor, 0.15)
    pings = told(manager)
    assert len(pings) == commits >= 2
    assert set(pings) == {"WATCHDOG=1"}


async def test_no_ping_while_a_worker_is_stuck_or_the_store_refuses(
    manager: socket.socket,
) -> None:
    async def hang(_: Life) -> None:
        await asyncio.Event().wait()

    async def refuse() -> None:
        raise OSError("disk full")

    async def commit() -> None: ...

    for workers, probe in (([Worker("stuck", hang, stale_after_s=0.0)], commit), ([], refuse)):
        supervisor = Supervisor(ids=SystemIds())
        watchdog = Systemd(env_of(manager)).watchdog(supervisor, probe)
        assert watchdog is not None
        supervisor.add([*workers, watchdog])
        await run_for(supervisor, 0.1)
        assert told(manager) == []
