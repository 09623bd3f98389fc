"""Finds what webhooks missed: at the start, on lag, on a timer and by command."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from billing.catch_up import WHOLE_AT, CatchUp
from billing.plans import Catalogue
from billing.ports import StripeGateway
from billing.reconcile_rules import Difference
from billing.reconcile_sweep import (
    Hear,
    Heard,
    Position,
    Report,
    Sweep,
    Visit,
    nobody,
    read_position,
)
from billing.stuck import StuckSweep
from billing.unit import Runtime

__all__ = ["Difference", "Reconciler", "Report"]


@dataclass(slots=True)
class Reconciler:
    """Asks in pages, never tenant by tenant (C28), beside the workers; one sweep at a time.

    `counts` since the start, for metrics: sweeps, differences, errors.
    """

    rt: Runtime
    stripe: StripeGateway
    catalogue: Catalogue
    livemode: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    stuck: StuckSweep = field(init=False)
    _one: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self.stuck = StuckSweep(self.rt, self.livemode)

    async def run_once(self, now: int) -> int:
        """Catch up on events, then apply the differences; returns how many. For the running bot,
        behind its rebuild."""
        del now
        began_at = self.rt.clock.billing_now()
        await self.catch_up()
        async with self.rt.unit() as unit:
            await unit.tx.execute("leases.set_cursor", name=WHOLE_AT, value=str(began_at))
        return (await self.sweep()).differences

    async def catch_up(self) -> int:
        """Record the events that no webhook brought; returns how many were new."""
        return await CatchUp(self.rt, self.stripe, self.livemode).run_once(self.rt.clock.now())

    async def sweep(self, *, dry_run: bool = False, hear: Hear = nobody) -> Report:
        """Compare all of it; unless `dry_run`, put right what differs. Raises the gateway's errors
        when a list cannot be read; the next sweep then goes on at that page."""
        async with self._one:
            sweep = await self._begin(dry_run=dry_run, hear=hear, resume=not dry_run)
            try:
                report = await sweep.run()
            finally:
                self._tally(sweep)
            if dry_run:
                await self.stuck.count()
            else:
                await self.stuck.run_once(self.rt.clock.now())
            report.stuck = dict(self.stuck.counts)
            return report

    async def subscriptions(self, visit: Visit) -> None:
        """The long list alone, from its beginning, each page seen by `visit` first; the next sweep
        goes on behind it. So a start reads the list once."""
        async with self._one:
            sweep = await self._begin(dry_run=False, hear=nobody, resume=False)
            try:
                await sweep.subscriptions(visit)
            finally:
                self._tally(sweep)

    async def plan(self) -> list[Difference]:
        """What differs, without changing anything."""
        found: list[Difference] = []

        def hear(heard: Heard) -> None:
            if isinstance(heard, Difference):
                found.append(heard)

        await self.sweep(dry_run=True, hear=hear)
        return found

    async def _begin(self, *, dry_run: bool, hear: Hear, resume: bool) -> Sweep:
        async with self.rt.unit() as unit:
            stands = await read_position(unit) if resume else None
            number = await unit.tx.scalar("reconcile.next_sweep")
            position = stands or Position(int(number or 1), "subscriptions", None, unit.now)
        sweep = Sweep(self.rt, self.stripe, self.catalogue, self.livemode, dry_run, hear, position)
        sweep.report.resumed = stands is not None
        return sweep

    def _tally(self, sweep: Sweep) -> None:
        if not sweep.dry_run:
            self.counts["sweeps"] += 1
            self.counts["differences"] += sweep.report.differences
            self.counts["errors"] += sweep.report.errors
