"""One life of the bot's process: real workers on the shared database, ended at any point."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

from billing.errors import StripeUnavailable
from billing.store.engine import StoreLocked
from billing.store.sqlite import SqliteEngine, Work
from billing.unit import Wakeups

if TYPE_CHECKING:
    from tests.sim.world import SimWorld

MAX_ROUNDS_A_SECOND = 300
"""More rounds of one worker at one instant would be a loop that never rests."""


class Killed(BaseException):
    """The process is gone: nothing catches it."""


IsDue = str | Callable[[], bool]
"""Whether a round would find something: SQL with `:now`, or a function."""


class DueWakeups(Wakeups):
    """Wakes, once for many changes at one instant, only those whose round would find something.

    The production class wakes everybody; here that would be most of a seed's work.
    """

    def __init__(self, world: SimWorld, connection: sqlite3.Connection) -> None:
        super().__init__()
        self._world = world
        self._connection = connection
        self._asked: list[tuple[asyncio.Event, IsDue | None]] = []
        self._by_rows: list[asyncio.Event] = []
        self._sql = ""
        self._is_pending = False

    def subscribe_if(self, is_due: IsDue | None) -> asyncio.Event:
        """As `subscribe`, for a worker that can tell when it is idle."""
        event = asyncio.Event()
        if isinstance(is_due, str):
            self._by_rows.append(event)
            self._sql += f"{', ' if self._sql else 'SELECT '}EXISTS ({is_due})"
        else:
            self._asked.append((event, is_due))
        return event

    def subscribe(self) -> asyncio.Event:
        return self.subscribe_if(None)

    def changed(self) -> None:
        if not self._is_pending:
            self._is_pending = True
            self._world.loop.call_soon(self._wake)

    def _wake(self) -> None:
        self._is_pending = False
        for event, is_due in self._asked:
            if is_due is None or (callable(is_due) and is_due()):
                event.set()
        if self._sql:
            now = self._world.clock.now()
            found = self._connection.execute(self._sql, {"now": now}).fetchone()
            for event, due in zip(self._by_rows, found, strict=True):
                if due:
                    event.set()


class SimDriver:
    """Inline SQLite on the world's one connection; a write lock stands for SQLite's own."""

    is_inline = True
    """What cancels here is the end of the process: then `_life.check` lets nothing go on."""

    def __init__(self, life: Life, connection: sqlite3.Connection, lock: asyncio.Lock) -> None:
        self._life = life
        self._connection = connection
        self._lock = lock
        self._holds = False

    async def run(self, what: str, work: Work[Any]) -> Any:
        if what == "begin":
            await self._life.point("begin")
            await self._lock.acquire()
            self._holds = True
            return work(self._connection)
        if what == "rollback":
            if self._holds:
                work(self._connection)
                self._release()
            return None
        if what == "commit":
            self._life.may_die("commit")
            result = work(self._connection)
            self._life.world.commits += 1
            self._release()
            await self._life.point("committed")
            return result
        self._life.check()
        return work(self._connection)

    def _release(self) -> None:
        self._holds = False
        self._lock.release()

    async def close(self) -> None:
        return None


class Life:
    """A process: its engine, its tasks, and when it ends."""

    def __init__(self, world: SimWorld, name: str, copy: sqlite3.Connection | None = None) -> None:
        self.world = world
        self.name = name
        self.is_on_copy = copy is not None
        self.connection = world.connection if copy is None else copy
        lock = world.db_lock if copy is None else asyncio.Lock()
        self.dead = False
        self.stopping = False
        self.engine = SqliteEngine(SimDriver(self, self.connection, lock))
        self.wakeups = DueWakeups(world, self.connection)
        self.leased_at: int | None = None
        self.kill_in: int | None = None
        self.freeze_in: int | None = None
        self.freeze_s = 0
        self.kill_at = ""
        self.freeze_at = ""
        self.busy = 0
        self.began = asyncio.Event()
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._tasks: list[asyncio.Task[Any]] = []
        self._rounds: dict[str, tuple[float, int]] = {}

    # --- points: where it can end or stand still ------------------------------------------------

    def check(self) -> None:
        if self.dead:
            raise Killed(self.name)

    def may_die(self, where: str) -> None:
        """A point that only kills: inside a transaction nobody stands still."""
        self.check()
        if self.kill_in is not None and self.kill_at in where:
            self.kill_in -= 1
            if self.kill_in <= 0:
                self.world.count("killed")
                self.world.say(f"{self.name} KILLED at {where}")
                self.die()
                raise Killed(self.name)

    async def point(self, where: str) -> None:
        self.may_die(where)
        if self.freeze_in is not None and self.freeze_at in where:
            self.freeze_in -= 1
            if self.freeze_in <= 0:
                self.freeze_in = None
                self.freeze(self.freeze_s, where)
        if not self._thawed.is_set():
            await self._thawed.wait()
            self.check()

    def freeze(self, seconds: int, where: str) -> None:
        """Stand still this long, as a stopped process or a sleeping laptop does."""
        self.world.count("frozen")
        self.world.say(f"{self.name} frozen for {seconds} s at {where}")
        if len(self.world.living()) < 2:
            self.world.outage(seconds)
        self._thawed.clear()
        asyncio.get_running_loop().call_later(seconds, self.thaw)

    def thaw(self) -> None:
        if not self._thawed.is_set():
            self.world.say(f"{self.name} thawed")
            self._thawed.set()

    @property
    def is_frozen(self) -> bool:
        return not self._thawed.is_set()

    def die(self) -> None:
        self.dead = True
        self._thawed.set()
        asyncio.get_running_loop().call_soon(self._cancel_all)

    def _cancel_all(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def reap(self) -> None:
        """Wait until nothing of it moves any more."""
        while self._tasks:
            tasks, self._tasks = self._tasks, []
            await asyncio.gather(*tasks, return_exceptions=True)

    # --- tasks ----------------------------------------------------------------------------------

    def spawn(self, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(self._guard(name, work))
        self._tasks.append(task)
        if len(self._tasks) > 60:
            self._tasks = [t for t in self._tasks if not t.done()]
        return task

    async def _guard(self, name: str, work: Coroutine[Any, Any, Any]) -> None:
        try:
            await work
        except (Killed, asyncio.CancelledError):
            if not (self.dead or self.stopping):
                raise
        except StoreLocked:
            # Another process has the lease: this one ends, as its supervisor has it.
            self.world.count("fenced_off")
            self.world.say(f"{self.name} is fenced off and stops")
            self.stopping = True
            self.die()
        except Exception as error:
            if not self.dead:
                self.world.bug(f"{self.name}/{name}", error)

    def work(
        self,
        name: str,
        run_once: Callable[[int], Awaitable[int]],
        is_due: IsDue | None = None,
    ) -> None:
        """A worker: runs when woken, as `bot.supervise` does it; `is_due` tells idle rounds."""
        wake = self.wakeups.subscribe_if(is_due)
        wake.set()

        async def loop() -> None:
            while True:
                await wake.wait()
                # Who wakes first is the world's choice; several wishes are one round.
                await asyncio.sleep(self.world.rng.random() * 0.4)
                wake.clear()
                if is_due is not None and self._is_idle(is_due):
                    continue
                await self.point("round")
                self._count_round(name)
                self.busy += 1
                self.began.set()
                try:
                    await run_once(self.world.clock.now())
                finally:
                    self.busy -= 1

        self.spawn(name, loop())

    def _is_idle(self, is_due: IsDue) -> bool:
        if not isinstance(is_due, str):
            return not is_due()
        now = self.world.clock.now()
        return self.connection.execute(is_due, {"now": now}).fetchone() is None

    def _count_round(self, name: str) -> None:
        now = float(int(self.world.loop.virtual))
        since, count = self._rounds.get(name, (now, 0))
        self._rounds[name] = (now, count + 1) if since == now else (now, 1)
        if count > MAX_ROUNDS_A_SECOND:
            self.world.violate("rest", f"worker {name} never rests")
            raise Killed

    # --- ports ----------------------------------------------------------------------------------

    async def call(
        self,
        name: str,
        effect: Callable[[], Awaitable[Any]],
        permit: Callable[[], bool] | None = None,
    ) -> Any:
        """One call of a port through the world's network: slow, lost on the way there or back.

        `permit` is asked where the request leaves; what arrives late has left before.
        """
        await self.point(f"{name} called")
        fault = self.world.network.fault(name)
        if fault.before_s:
            await asyncio.sleep(fault.before_s)
            await self.point(f"{name} on its way")
        if permit is not None and not permit():
            self.world.count("call_not_permitted")
            raise StripeUnavailable(name, "too late to be sent")
        if fault.lost is not None:
            if fault.arrives_s is not None:
                self.world.later(fault.arrives_s, f"{name} arrives after all", effect)
            raise fault.lost
        result = await effect()
        await self.point(f"{name} done")
        if fault.reply_lost is not None:
            raise fault.reply_lost
        return result


class Port:
    """Every async method of `target` becomes a call through the life's network."""

    def __init__(self, life: Life, prefix: str, target: object) -> None:
        self._life = life
        self._prefix = prefix
        self._target = target

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._target, name)
        if not asyncio.iscoroutinefunction(method):
            return method

        async def through(*args: Any, **kwargs: Any) -> Any:
            permit = kwargs.get("permit")
            if permit is not None:
                kwargs["permit"] = lambda: True
            return await self._life.call(
                f"{self._prefix}.{name}", lambda: method(*args, **kwargs), permit
            )

        self.__dict__[name] = through
        return through
