"""Works off recorded Stripe events: handler, effects and `handled_at` commit together (M14)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import structlog

from billing.errors import PurserError
from billing.handlers import REGISTRY, Handlers
from billing.handling import Effect, Ignored
from billing.model import InboxEvent
from billing.parallel import by_group
from billing.unit import Runtime

log = structlog.stdlib.get_logger("purser")

BATCH: Final = 50
BACK_OFF_S: Final = (2, 10, 60, 300, 1800, 7200, 43200)
"""Then a dead letter: operators are told, and reconcile finds what it was about anyway."""


@dataclass(slots=True)
class EventWorker:
    """Hop 2: oldest first; one event's error is its own."""

    rt: Runtime
    handlers: Handlers
    livemode: bool

    async def run_once(self, now: int) -> int:
        """Handle what is due; returns how many."""
        async with self.rt.unit() as unit:
            due = await unit.tx.fetch_all(InboxEvent, "events.due", now=now, count=BATCH)

        async def one(event: InboxEvent) -> None:
            try:
                await self._handle(event)
            except PurserError as error:
                await self._failed(event, str(error))

        await by_group(due, lambda event: event.object_id or event.event_id, one)
        return len(due)

    async def _handle(self, event: InboxEvent) -> None:
        outcome = await self._find_effect(event)
        async with self.rt.unit() as unit:
            marked = await unit.tx.execute(
                "events.handled",
                event_id=event.event_id,
                now=unit.now,
                state="ignored" if isinstance(outcome, Ignored) else "handled",
            )
            if not marked:
                return
            if isinstance(outcome, Ignored):
                await unit.record(
                    "event.ignored", subject=event.event_id, type=event.type, why=outcome.why
                )
                return
            await outcome(unit)
            await unit.record(
                "event.handled", subject=event.event_id, type=event.type, about=event.object_id
            )

    async def _find_effect(self, event: InboxEvent) -> Effect | Ignored:
        handler = REGISTRY.get(event.type)
        if handler is None:
            return Ignored("no handler for this type")
        if not event.object_id:
            return Ignored("no object id")
        if event.livemode != self.livemode:
            return Ignored("of the other mode (live or test)")
        return await handler(self.handlers, event)

    async def _failed(self, event: InboxEvent, error: str) -> None:
        last = event.attempts + 1 > len(BACK_OFF_S)
        async with self.rt.unit() as unit:
            await unit.tx.execute(
                "events.failed",
                event_id=event.event_id,
                next_at=None if last else unit.now + BACK_OFF_S[event.attempts],
                error=error[:240],
                state="failed" if last else "new",
            )
            log.warning("event.failed", subject=event.event_id, error=error, last=last)
            if last:
                await self.rt.alarm(
                    unit,
                    f"event:{event.event_id}",
                    f"Stripe event {event.event_id} ({event.type}) could not be handled: "
                    f"{error[:160]}. Reconcile covers what it was about; see `purser events`.",
                )
