"""Reads the events that no webhook brought from `/v1/events`, from a stored cursor."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from billing.errors import StripeRejected
from billing.inbox import parse_event
from billing.ingest import columns
from billing.long_absence import LongAbsence
from billing.ports import StripeGateway
from billing.unit import Runtime
from billing.views import StripeEvent

log = structlog.stdlib.get_logger("purser")

CURSOR: Final = "stripe_events"
EVENTS_KEPT_S: Final = 29 * 86400
"""Stripe keeps them for 30 days; one day for clocks, and for the reading itself."""
UNKNOWN_GAP_S: Final = 90 * 86400
"""Back so far where nobody knows since when (an empty database): a quarter's invoices."""
WHOLE_AT: Final = "whole_up_to"
"""Billing time up to which this database knows what happened at Stripe: set only by a bot that
runs, whose rebuild is behind it. A restored backup has the time it was made at."""
FIRST_LOOK_BACK_S: Final = 86400
"""Without a cursor: a day back at least; what is older is found by listing."""


@dataclass(slots=True)
class CatchUp:
    """Feeds the same inbox as webhooks do (M14)."""

    rt: Runtime
    stripe: StripeGateway
    livemode: bool

    async def run_once(self, now: int) -> int:
        """Record the events since the cursor, once each; returns how many were new. After more than
        Stripe keeps, or where nobody knows since when, the lists are read first
        (`billing.long_absence`)."""
        del now
        async with self.rt.unit() as unit:
            cursor = await unit.tx.scalar("leases.cursor", name=CURSOR)
        position, added = str(cursor) if cursor else None, 0
        since = self.rt.clock.billing_now() - FIRST_LOOK_BACK_S
        whole_at = await whole_up_to(self.rt)
        if whole_at is None or self._may_be_lost(whole_at):
            added, position = await self._list(whole_at), None
        else:
            # No page ever held an event, or a backup of such a time was put back: nothing is known
            # to be read beyond it (simulation seeds 1745, 2434).
            since = min(since, whole_at)
        while True:
            try:
                page = await self.stripe.events_after(position, since)
            except StripeRejected as error:
                if position is None:
                    raise
                log.warning("reconcile.cursor_lost", error=error.what)
                added, position = await self._list(whole_at), None
                continue
            added += await self._record(page.events)
            if page.events:
                position = page.events[-1].id
            if not page.more:
                return added

    def _may_be_lost(self, whole_at: int) -> bool:
        """Whether events may be gone that were never read: by time, since what Stripe answers to a
        cursor of an event that it has forgotten is not documented."""
        return self.rt.clock.billing_now() - whole_at > EVENTS_KEPT_S

    async def _list(self, whole_at: int | None) -> int:
        since = self.rt.clock.billing_now() - UNKNOWN_GAP_S if whole_at is None else whole_at
        return await LongAbsence(self.rt, self.stripe, self.livemode).run(since)

    async def _record(self, events: Sequence[StripeEvent]) -> int:
        """A page and the cursor beyond it, together."""
        added = 0
        async with self.rt.unit() as unit:
            for event in events:
                row = parse_event(json.dumps(dict(event.raw)), unit.now)
                if row is None:
                    continue
                new = await unit.tx.execute("ingest.insert_event", **columns(row))
                if new:
                    added += 1
                    await unit.record("event.caught_up", subject=event.id, type=event.type)
            if events:
                await unit.tx.execute("leases.set_cursor", name=CURSOR, value=events[-1].id)
        return added


async def whole_up_to(rt: Runtime) -> int | None:
    """See `WHOLE_AT`; None: never."""
    async with rt.unit() as unit:
        value = await unit.tx.scalar("leases.cursor", name=WHOLE_AT)
    return int(value) if value else None
