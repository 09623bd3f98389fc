"""The supervisor on a loop whose time jumps: nothing here waits for real."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from itertools import pairwise
from typing import Any

import pytest

from bot.supervise import (
    RESTART_BUDGET,
    SHUTDOWN_S,
    Life,
    Phase,
    State,
    Supervisor,
    Worker,
    periodic,
    service,
)


class JumpingLoop(asyncio.SelectorEventLoop):
    """Jumps to the next timer as soon as nothing is ready."""

    def __init__(self) -> None:
        super().__init__(selectors.SelectSelector())
        self._now = 0.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:
            self._now = max(self._now, self._scheduled[0]._when)
        super()._run_once()


def jump(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(main())


class Clock:
    def now(self) -> int:
        return 1_700_000_000 + int(asyncio.get_running_loop().time())

    billing_now = now


class Ids:
    def new(self, prefix: str) -> str:
        return prefix

    def token_bytes(self, count: int) -> bytes:
        return bytes(count)

    def uniform(self) -> float:
        return 0.0


class Running:
    """A supervisor running beside the test's own code."""

    def __init__(self, *workers: Worker) -> None:
        self.alarms: list[tuple[str, str]] = []

        async def alarm(name: str, what: str) -> None:
            self.alarms.append((name, what))

        self.supervisor = Supervisor(ids=Ids(), alarm=alarm)
        self.supervisor.add(workers)
        self.stop = asyncio.Event()

    async def __aenter__(self) -> Running:
        self.task = asyncio.create_task(self.supervisor.run(self.stop))
        for _ in range(3):
            await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop.set()
        await self.task


def every(seconds: float, run: Callable[[int], Any], **more: Any) -> Worker:
    return periodic("p", run, every_s=seconds, clock=Clock(), ids=Ids(), **more)


def test_a_periodic_worker_runs_at_once_and_then_at_its_period() -> None:
    runs: list[int] = []

    async def once(now: int) -> None:
        runs.append(now - 1_700_000_000)

    async def main() -> None:
        async with Running(every(30, once)):
            await asyncio.sleep(95)
        assert runs == [0, 30, 60, 90]

    jump(main)


def test_a_worker_woken_while_it_runs_runs_again() -> None:
    runs: list[float] = []

    async def main() -> None:
        wake = asyncio.Event()

        async def once(_: int) -> None:
            runs.append(asyncio.get_running_loop().time())
            await asyncio.sleep(1)

        async with Running(every(1000, once, wake=wake)):
            await asyncio.sleep(0.5)
            wake.set()
            await asyncio.sleep(5)
            wake.set()
            await asyncio.sleep(5)
        assert runs == [0, 1, 5.5]

    jump(main)


def test_jitter_only_lengthens_the_period() -> None:
    runs: list[float] = []

    async def main() -> None:
        async def once(_: int) -> None:
            runs.append(asyncio.get_running_loop().time())

        ids = Ids()
        ids.uniform = lambda: 0.5  # type: ignore[method-assign]
        worker = periodic("p", once, every_s=100, clock=Clock(), ids=ids, jitter=0.2)
        async with Running(worker):
            await asyncio.sleep(250)
        assert runs == [0, 110, 220]

    jump(main)


def test_c24_a_dead_worker_is_restarted_with_growing_pauses_and_operators_are_told_once() -> None:
    starts: list[float] = []

    async def fail(_: int) -> None:
        starts.append(asyncio.get_running_loop().time())
        raise RuntimeError(f"lost sk_live_abc secret={'ab' * 32}")

    async def main() -> None:
        async with Running(every(1, fail)) as running:
            await asyncio.sleep(200)
            pauses = [round(b - a, 3) for a, b in pairwise(starts)]
            assert pauses == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
            [(name, what)] = running.alarms
            assert name == "p"
            assert f"failed {RESTART_BUDGET + 1} times" in what
            assert "RuntimeError: lost" in what
            assert "sk_live_abc" not in what
            assert "abab" not in what
            [health] = running.supervisor.health()
            assert (health.fresh, health.state) == (False, State.BACKING_OFF)
            assert running.supervisor.not_ready()

    jump(main)


def test_a_worker_that_fails_leaves_the_others_alone() -> None:
    runs: list[int] = []

    async def fail() -> None:
        raise RuntimeError("no")

    async def once(now: int) -> None:
        runs.append(now)

    async def main() -> None:
        async with Running(service("bad", fail), every(10, once)):
            await asyncio.sleep(95)
        assert len(runs) == 10

    jump(main)


def test_after_a_quiet_while_a_failed_worker_is_well_again() -> None:
    async def main() -> None:
        count = 0

        async def once(_: int) -> None:
            nonlocal count
            count += 1
            if count == 1:
                raise RuntimeError("at first")

        async with Running(every(10, once)) as running:
            await asyncio.sleep(1)
            [health] = running.supervisor.health()
            assert health.error == "RuntimeError: at first"
            assert health.restarts == 1
            await asyncio.sleep(100)
            [health] = running.supervisor.health()
            assert (health.fresh, health.error) == (True, None)
            assert running.alarms == []

    jump(main)


def test_a_service_that_returns_is_started_again() -> None:
    starts = 0

    async def brief() -> None:
        nonlocal starts
        starts += 1

    async def main() -> None:
        async with Running(service("s", brief)):
            await asyncio.sleep(2)
        assert starts == 3

    jump(main)


def test_a_stuck_worker_is_ended_started_again_and_told_of() -> None:
    starts: list[float] = []

    async def hang(_: int) -> None:
        starts.append(asyncio.get_running_loop().time())
        await asyncio.Event().wait()

    async def main() -> None:
        async with Running(every(10, hang, jitter=0, stale_after_s=50)) as running:
            await asyncio.sleep(55)
            assert running.supervisor.not_ready() == []
            await asyncio.sleep(20)
            assert len(starts) == 2
            [(_, what)] = running.alarms
            assert "is stuck" in what

    jump(main)


def test_a_worker_that_beats_is_never_taken_for_stuck() -> None:
    runs = 0

    async def main() -> None:
        async def slow(_: int) -> None:
            nonlocal runs
            runs += 1
            await asyncio.sleep(30)

        async with Running(every(10, slow, jitter=0, stale_after_s=40)) as running:
            await asyncio.sleep(990)
            assert running.alarms == []
            assert running.supervisor.health()[0].restarts == 0
        assert runs == 25

    jump(main)


def test_ready_only_when_the_steps_of_the_start_are_done() -> None:
    async def once(_: int) -> None: ...

    async def main() -> None:
        running = Running(every(1, once))
        running.supervisor.require("events catch-up")
        async with running:
            assert running.supervisor.not_ready() == ["starting: events catch-up"]
            running.supervisor.done("events catch-up")
            assert running.supervisor.not_ready() == []

    jump(main)


def test_shutdown_goes_from_intake_to_connections_and_lets_work_finish() -> None:
    order: list[str] = []

    def recording(name: str) -> Callable[[], Coroutine[Any, Any, None]]:
        async def run() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                order.append(name)

        return run

    async def work(_: int) -> None:
        await asyncio.sleep(1)
        order.append("work finished")

    async def main() -> None:
        async with Running(
            service("pool", recording("connections"), phase=Phase.CONNECTIONS),
            every(1000, work),
            service("http", recording("intake"), phase=Phase.INTAKE),
        ):
            await asyncio.sleep(0.5)
        assert order == ["intake", "work finished", "connections"]

    jump(main)


def test_shutdown_ends_in_time_although_a_worker_will_not() -> None:
    async def main() -> None:
        release = asyncio.Event()

        async def stubborn(_: Life) -> None:
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue

        loop = asyncio.get_running_loop()
        async with Running(*(Worker(f"w{phase}", stubborn, phase, 60.0) for phase in Phase)):
            await asyncio.sleep(1)
            before = loop.time()
        assert loop.time() - before <= SHUTDOWN_S + 0.5
        release.set()
        await asyncio.sleep(1)

    jump(main)


def test_an_alarm_that_fails_does_no_harm() -> None:
    async def fail(_: int) -> None:
        raise RuntimeError("no")

    async def broken(_: str, __: str) -> None:
        raise OSError("relay gone")

    async def main() -> None:
        supervisor = Supervisor(ids=Ids(), alarm=broken)
        supervisor.add([every(1, fail)])
        stop = asyncio.Event()
        task = asyncio.create_task(supervisor.run(stop))
        await asyncio.sleep(100)
        assert not task.done()
        stop.set()
        await task

    jump(main)


def test_two_workers_of_one_name_are_a_bug() -> None:
    async def once(_: int) -> None: ...

    supervisor = Supervisor(ids=Ids())
    with pytest.raises(AssertionError, match="two workers"):
        supervisor.add([every(1, once), every(1, once)])
