"""Works off recorded Stripe events: handler, effects and `handled_at` commit together (M14).

Nothing of it happens in the webhook's request (C6). An event that fails is tried again for three
days and is then a dead letter; one whose subject is not here yet waits an hour for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import structlog

from billing.errors import PurserError, StripeUnavailable
from billing.handlers import NAMELESS, REGISTRY, Handlers
from billing.handling import Answer, Ignored, NotYet
from billing.model import InboxEvent
from billing.parallel import by_group
from billing.unit import Runtime, Unit

log = structlog.stdlib.get_logger("purser")

BATCH: Final = 50
BACK_OFF_S: Final = (2, 10, 60, 300, 1800, 7200, 21_600, 43_200, 86_400, 86_400)
"""Eleven tries over 2.9 days, as long as Stripe itself would deliver it again. Then a dead letter:
operators are told once, and `purser events replay` gives it to the same handler."""
OUTAGE_RETRY_S: Final = 43_200
"""Stripe being away says nothing about the event: operators are told after the same three days, and
it is tried twice a day for as long as Stripe keeps events."""
OUTAGE_GIVE_UP_S: Final = 30 * 86_400
WAIT_S: Final = (2, 10, 60, 300, 900, 2700)
"""A subject that is created at this moment is here in a second; one that is restored from a backup,
or taken up by reconcile, within its quarter of an hour. After 66 minutes there is none."""


WAITS: Final = "waits: "


def _waits_of(event: InboxEvent) -> int:
    """How often it has waited for its subject; tries that failed for another reason, as while
    Stripe was away, are no waits: they must not use up its turn."""
    return event.attempts if (event.error or "").startswith(WAITS) else 0


def next_failure_at(event: InboxEvent, error: Exception, now: int) -> int | None:
    """When it is tried again; None: never, it is a dead letter."""
    if event.attempts < len(BACK_OFF_S):
        return now + BACK_OFF_S[event.attempts]
    is_outage = isinstance(error, StripeUnavailable)
    if is_outage and now - event.received_at < OUTAGE_GIVE_UP_S:
        return now + OUTAGE_RETRY_S
    return None


@dataclass(slots=True)
class EventWorker:
    """Hop 2: oldest first; one event's error is its own."""

    rt: Runtime
    handlers: Handlers
    livemode: bool
    account: str | None = None
    """Ours, where the configuration names it; only events of connected accounts carry one."""

    async def run_once(self, now: int) -> int:
        """Handle what is due; returns how many."""
        async with self.rt.unit() as unit:
            due = await unit.tx.fetch_all(InboxEvent, "events.due", now=now, count=BATCH)

        async def one(event: InboxEvent) -> None:
            try:
                await self._handle(event)
            except PurserError as error:
                await self._failed(event, error)
            except Exception as error:
                # A bug: the supervisor hears of it. Put back, it does not hold up the others.
                await self._failed(event, error)
                raise

        await by_group(due, lambda event: event.object_id or event.event_id, one)
        return len(due)

    async def _handle(self, event: InboxEvent) -> None:
        answer = await self._find_effect(event)
        if isinstance(answer, NotYet):
            waits = _waits_of(event)
            if waits < len(WAIT_S):
                await self._wait(event, waits, answer.why)
                return
            answer = Ignored(answer.why)
        async with self.rt.unit() as unit:
            marked = await unit.tx.execute(
                "events.handled",
                event_id=event.event_id,
                now=unit.now,
                state="ignored" if isinstance(answer, Ignored) else "handled",
                error=answer.why if isinstance(answer, Ignored) else None,
            )
            if not marked:
                return
            if isinstance(answer, Ignored):
                await unit.record(
                    "event.ignored", subject=event.event_id, type=event.type, why=answer.why
                )
                await self._tell_of_stranger(unit, event)
                return
            await answer(unit)
            await unit.record(
                "event.handled", subject=event.event_id, type=event.type, about=event.object_id
            )

    async def _find_effect(self, event: InboxEvent) -> Answer:
        handler = REGISTRY.get(event.type)
        stranger = self._stranger(event)
        if stranger is not None:
            return Ignored(stranger)
        if handler is None:
            return Ignored("no handler for this type")
        if not event.object_id and event.type not in NAMELESS:
            return Ignored("no object id")
        return await handler(self.handlers, event)

    def _stranger(self, event: InboxEvent) -> str | None:
        """Why it is none of ours, although its signature is good: one endpoint serves them all."""
        if event.livemode != self.livemode:
            return "of the other mode (live or test)"
        if event.account is not None and event.account != self.account:
            return f"of another account ({event.account[:40]})"
        return None

    async def _tell_of_stranger(self, unit: Unit, event: InboxEvent) -> None:
        stranger = self._stranger(event)
        if stranger is not None:
            await self.rt.alarm(
                unit,
                f"stranger:{event.livemode}:{event.account}",
                f"Stripe delivers events here that are {stranger}, such as {event.event_id}. They "
                "are recorded and ignored. Give that mode or account an endpoint of its own.",
            )

    async def _wait(self, event: InboxEvent, waits: int, why: str) -> None:
        async with self.rt.unit() as unit:
            await unit.tx.execute(
                "events.wait",
                event_id=event.event_id,
                attempts=waits + 1,
                next_at=unit.now + WAIT_S[waits],
                error=f"{WAITS}{why}"[:240],
            )

    async def _failed(self, event: InboxEvent, error: Exception) -> None:
        # What a bug says may hold anything; what our own errors say is clean.
        what = str(error) if isinstance(error, PurserError) else f"bug: {type(error).__name__}"
        async with self.rt.unit() as unit:
            next_at = next_failure_at(event, error, unit.now)
            await unit.tx.execute(
                "events.failed",
                event_id=event.event_id,
                next_at=next_at,
                error=what[:240],
                state="new" if next_at is not None else "failed",
            )
            log.warning(
                "event.failed", subject=event.event_id, error=what, dead_letter=next_at is None
            )
            if event.attempts >= len(BACK_OFF_S):
                await self._tell_of_failure(unit, event, what)

    async def _tell_of_failure(self, unit: Unit, event: InboxEvent, what: str) -> None:
        await self.rt.alarm(
            unit,
            f"event:{event.event_id}",
            f"Stripe event {event.event_id} ({event.type}) could not be handled for three days: "
            f"{what[:160]}. Reconcile covers invoices and subscriptions; once the cause is gone, "
            f"say: purser events replay {event.event_id}",
        )
