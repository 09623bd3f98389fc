"""Keeps the workers running: starts them, restarts the dead and the stuck, stops them in phases."""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final, TypeAlias

import structlog

from billing.ports import Clock, Ids
from bot.logs import describe

# A worker that fails at once is tried again soon, one that keeps failing is not a busy loop.
FIRST_BACKOFF_S: Final = 0.5
MAX_BACKOFF_S: Final = 60.0
# Up this long, the next failure counts as the first.
SETTLED_AFTER_S: Final = 60.0
# More restarts than this in the window and operators are told; it is still tried again.
RESTART_BUDGET: Final = 5
RESTART_WINDOW_S: Final = 600.0
# systemd and containers kill after 10 s or more; we are done before.
SHUTDOWN_S: Final = 9.0
# How long a worker may finish what it is at before it is cancelled.
GRACE_S: Final = 2.0
WATCH_EVERY_S: Final = 5.0

Alarm: TypeAlias = Callable[[str, str], Awaitable[None]]
"""Tells operators: the worker's name, and what happened in a sentence without secrets."""


class Phase(IntEnum):
    """Stopped from the first to the last, started the other way round."""

    INTAKE = 0
    WORK = 1
    CONNECTIONS = 2


class State(StrEnum):
    """What a worker is doing; only RUNNING is good."""

    WAITING = "waiting"
    RUNNING = "running"
    BACKING_OFF = "backing off"
    STOPPED = "stopped"


class Life:
    """What a running worker is given: it beats to show that it lives, and sees when to stop."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self.beat_at = 0.0
        self.beat()

    def beat(self) -> None:
        """I am alive, and what I was at is done."""
        self.beat_at = asyncio.get_running_loop().time()


@dataclass(frozen=True, slots=True)
class Worker:
    """Something that runs as long as the process.

    `stale_after_s`: without a beat for this long it counts as stuck and is restarted. None: being
    alive is enough, and to stop it is to cancel it.
    """

    name: str
    run: Callable[[Life], Awaitable[None]]
    phase: Phase = Phase.WORK
    stale_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class WorkerHealth:
    """One line of the health report. `beat_age_s` is seconds since the last beat."""

    name: str
    state: State
    fresh: bool
    restarts: int
    beat_age_s: float
    error: str | None


def service(
    name: str, run: Callable[[], Awaitable[None]], *, phase: Phase = Phase.CONNECTIONS
) -> Worker:
    """A worker that runs until it is cancelled; returning is a failure like any other."""

    async def live(_: Life) -> None:
        await run()

    return Worker(name, live, phase)


def periodic(
    name: str,
    run_once: Callable[[int], Awaitable[None]],
    *,
    every_s: float,
    clock: Clock,
    ids: Ids,
    jitter: float = 0.1,
    wake: asyncio.Event | None = None,
    stale_after_s: float = 300.0,
    phase: Phase = Phase.WORK,
) -> Worker:
    """A worker that calls `run_once(wire time)` now, then every `every_s` seconds or when woken.

    `jitter` is a share of the period, added at random, so that restarted bots do not march in
    step. `wake` is cleared before each run: what is set during one leads to another. One run may
    take `stale_after_s`.
    """

    async def live(life: Life) -> None:
        while not life.stopping.is_set():
            if wake is not None:
                wake.clear()
            await run_once(clock.now())
            life.beat()
            await _rest(every_s * (1 + jitter * ids.uniform()), life, wake)

    return Worker(name, live, phase, stale_after_s + every_s * (1 + jitter))


async def _rest(seconds: float, life: Life, wake: asyncio.Event | None) -> None:
    """Wait until the time is over, the worker is woken, or it has to stop."""
    events = [life.stopping] if wake is None else [life.stopping, wake]
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


@dataclass(slots=True)
class _Charge:
    """One worker in the supervisor's care."""

    worker: Worker
    state: State = State.WAITING
    life: Life | None = None
    keeper: asyncio.Task[None] | None = None
    body: asyncio.Future[None] | None = None
    restarts: int = 0
    failures: int = 0
    failed_at: deque[float] = field(default_factory=deque)
    over_budget: bool = False
    error: str | None = None
    stuck: bool = False


class Supervisor:
    """Runs workers until told to stop. A failure of one never touches another."""

    def __init__(self, *, ids: Ids, alarm: Alarm | None = None) -> None:
        self._ids = ids
        self._alarm = alarm
        self._charges: dict[str, _Charge] = {}
        self._asides: set[asyncio.Task[None]] = set()
        self._needed: set[str] = set()
        self._log = structlog.get_logger("supervise")

    def add(self, workers: Iterable[Worker]) -> None:
        """Take workers into care; they start with `run`. Names are unique."""
        for worker in workers:
            assert worker.name not in self._charges, f"two workers are called {worker.name}"
            self._charges[worker.name] = _Charge(worker)

    def require(self, step: str) -> None:
        """Not ready until `done(step)`: migrations, events catch-up, first reconcile."""
        self._needed.add(step)

    def done(self, step: str) -> None:
        """A step of the start is over."""
        self._needed.discard(step)
        self._log.info("start.step_done", step=step)

    def not_ready(self) -> list[str]:
        """Why this process should get no traffic now; empty is ready."""
        waiting = [f"starting: {step}" for step in sorted(self._needed)]
        return waiting + [
            f"worker {health.name}: {health.error or health.state}"
            for health in self.health()
            if not health.fresh
        ]

    def health(self) -> list[WorkerHealth]:
        """Every worker's state, in the order in which they were added."""
        now = asyncio.get_running_loop().time()
        report = []
        for charge in self._charges.values():
            age = 0.0 if charge.life is None else now - charge.life.beat_at
            limit = charge.worker.stale_after_s
            fresh = charge.state is State.RUNNING and (limit is None or age <= limit)
            report.append(
                WorkerHealth(
                    charge.worker.name, charge.state, fresh, charge.restarts, age, charge.error
                )
            )
        return report

    async def run(self, stop: asyncio.Event) -> None:
        """Start everything, keep it running until `stop` is set, then shut down within 10 s."""
        for phase in sorted(Phase, reverse=True):
            for charge in self._charges.values():
                if charge.worker.phase is phase:
                    charge.keeper = asyncio.create_task(self._keep(charge), name=charge.worker.name)
        watch = asyncio.create_task(self._watch(), name="watch")
        try:
            await stop.wait()
        finally:
            watch.cancel()
            await self._shut_down()

    async def _keep(self, charge: _Charge) -> None:
        """One worker, run again and again."""
        loop = asyncio.get_running_loop()
        while True:
            charge.life, charge.state, charge.stuck = Life(), State.RUNNING, False
            charge.body = asyncio.ensure_future(charge.worker.run(charge.life))
            started = loop.time()
            try:
                await asyncio.wait([charge.body])
            except asyncio.CancelledError:
                charge.body.cancel()
                await asyncio.wait([charge.body])
                charge.state = State.STOPPED
                raise
            why = _why_it_ended(charge)
            if charge.life.stopping.is_set():
                charge.state = State.STOPPED
                return
            if loop.time() - started >= SETTLED_AFTER_S:
                charge.failures = 0
            charge.failures += 1
            charge.restarts += 1
            charge.error, charge.state = why, State.BACKING_OFF
            pause = min(FIRST_BACKOFF_S * 2.0 ** (charge.failures - 1), MAX_BACKOFF_S)
            pause *= 1 + 0.2 * self._ids.uniform()
            self._log.error(
                "worker.failed", worker=charge.worker.name, error=why, restart_in_s=round(pause, 1)
            )
            self._count_failure(charge, loop.time())
            await asyncio.sleep(pause)

    def _count_failure(self, charge: _Charge, now: float) -> None:
        charge.failed_at.append(now)
        while charge.failed_at[0] < now - RESTART_WINDOW_S:
            charge.failed_at.popleft()
        over = len(charge.failed_at) > RESTART_BUDGET
        if over and not charge.over_budget:
            self._tell(
                charge, f"failed {len(charge.failed_at)} times in 10 minutes: {charge.error}"
            )
        charge.over_budget = over

    def _tell(self, charge: _Charge, what: str) -> None:
        """Operators hear of it beside the work; that they could not be told is only logged."""
        self._log.error("worker.alarm", worker=charge.worker.name, what=what)
        if self._alarm is None:
            return

        async def tell(alarm: Alarm) -> None:
            try:
                await alarm(charge.worker.name, what)
            except Exception as error:  # the supervisor is the last to catch anything
                self._log.error("worker.alarm_failed", error=describe(error))

        task = asyncio.create_task(tell(self._alarm), name="alarm")
        self._asides.add(task)
        task.add_done_callback(self._asides.discard)

    async def _watch(self) -> None:
        """End the workers that stopped beating, and notice those that recovered."""
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            now = asyncio.get_running_loop().time()
            for charge in self._charges.values():
                life, limit = charge.life, charge.worker.stale_after_s
                if charge.state is not State.RUNNING or life is None or charge.body is None:
                    continue
                if limit is not None and now - life.beat_at > limit and not charge.stuck:
                    charge.stuck = True
                    self._tell(charge, f"is stuck: no sign of life for {now - life.beat_at:.0f} s")
                    charge.body.cancel()
                elif charge.error and charge.failed_at[-1] < now - SETTLED_AFTER_S:
                    charge.error = None
                    self._log.info("worker.recovered", worker=charge.worker.name)

    async def _shut_down(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SHUTDOWN_S
        for phase in Phase:
            keepers = {}
            for charge in self._charges.values():
                if charge.worker.phase is phase and charge.keeper is not None:
                    keepers[charge.keeper] = charge
                    if charge.life is not None:
                        charge.life.stopping.set()
            if not keepers:
                continue
            # Services have no way to see that they should stop: nothing is gained by waiting.
            for keeper, charge in keepers.items():
                if charge.worker.stale_after_s is None or charge.state is not State.RUNNING:
                    keeper.cancel()
            share = (deadline - loop.time()) / (len(Phase) - phase)
            _, left = await asyncio.wait(keepers, timeout=min(GRACE_S, share))
            for keeper in left:
                keeper.cancel()
            if left:
                _, left = await asyncio.wait(left, timeout=max(0.1, share - GRACE_S))
            for keeper in left:
                self._log.error("worker.did_not_stop", worker=keepers[keeper].worker.name)
            self._log.info("shutdown.phase_done", phase=phase.name.lower())
        for task in self._asides:
            task.cancel()


def _why_it_ended(charge: _Charge) -> str:
    """A sentence for the log and the operators, without secrets."""
    body = charge.body
    assert body is not None
    if body.cancelled():
        return "was stuck" if charge.stuck else "was cancelled"
    error = body.exception()
    return "returned although it should run on" if error is None else describe(error)


def stop_on_signals(stop: asyncio.Event) -> None:
    """SIGTERM and SIGINT ask for an orderly stop (not on Windows, whose loop has no handlers)."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with suppress(NotImplementedError):
            loop.add_signal_handler(number, stop.set)
