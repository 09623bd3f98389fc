"""Moving Stripe's time: every due instant in order, with a pause for others to act at each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from bot.sandbox.stripe import subscription_life, subscription_status
from bot.sandbox.stripe.delivery import Delivery
from bot.sandbox.stripe.errors import Obj
from bot.sandbox.stripe.world import World

_log = logging.getLogger(__name__)
Tick = Callable[[int], Awaitable[None]]
IDLE_S = 0.5  # real time also passes: how often what came due by it is done

_JOBS: dict[str, tuple[str, Callable[[World, Obj], None]]] = {
    "renew": ("subscription", subscription_life.renew),
    "expire": ("subscription", subscription_status.expire_incomplete),
    "finalize": ("invoice", subscription_life.finalize_due),
    "retry": ("invoice", subscription_life.retry),
    "overdue": ("invoice", subscription_life.overdue),
}


class Schedule:
    """Owns the order of time; `on_tick` hooks are awaited with the new offset at each stop."""

    def __init__(self, world: World, delivery: Delivery) -> None:
        self._world = world
        self._delivery = delivery
        self._moving = asyncio.Lock()
        self.on_tick: list[Tick] = []

    def run_due(self) -> int:
        """Do everything due by now; how many events that made (stale hints make none)."""
        before = len(self._world.table("event"))
        while (job := self._world.take_due(self._world.now())) is not None:
            kind, object_id = job
            table, run = _JOBS[kind]
            obj = self._world.table(table).get(object_id)
            if obj is not None:
                run(self._world, obj)
        return len(self._world.table("event")) - before

    async def advance(
        self, target_s: int, *, stop_at_due: bool = False, settle_s: float = 0.0
    ) -> Obj:
        """Move to `target_s`; with `stop_at_due` only to the first instant where something is due.

        `settle_s` is a wall pause at each stop, for a bot in another process. The answer has
        `now`, `offset_s`, `stops`, `reached`, `next_due`.
        """
        async with self._moving:
            stops = 0
            reached = True
            while (due := self._world.next_due()) is not None and due <= target_s:
                self._world.clock.jump_to(due)
                if self.run_due():
                    stops += 1
                    await self._pause(settle_s)
                    if stop_at_due:
                        reached = False
                        break
            if reached:
                self._world.clock.jump_to(target_s)
                self.run_due()
                await self._pause(0.0)
            return self.state() | {"stops": stops, "reached": reached}

    def state(self) -> Obj:
        """`now`, `offset_s`, `next_due`."""
        return {
            "now": self._world.now(),
            "offset_s": self._world.clock.offset_s,
            "next_due": self._world.next_due(),
        }

    async def _pause(self, settle_s: float) -> None:
        await self._delivery.settled()
        for tick in list(self.on_tick):
            await tick(self._world.clock.offset_s)
        if settle_s:
            await asyncio.sleep(settle_s)

    async def follow_real_time(self) -> None:
        """Runs until cancelled; a move in progress has precedence."""
        while True:
            await asyncio.sleep(IDLE_S)
            if not self._moving.locked():
                try:
                    self.run_due()
                except Exception:
                    _log.exception("a scheduled change of the embedded Stripe failed")
