"""What `/metrics` shows of a running bot: webhooks, messages, relays, workers, what is due."""

from __future__ import annotations

from collections.abc import Iterable

from bot.build import Parts
from bot.metrics import Reading
from bot.supervise import Supervisor

DUE = ("events", "subscriptions", "collections", "lookups", "settlements", "relays", "messages")


class Readings:
    """Counts as `bot.metrics` wants them; the backlog is read from the store by `run_once`."""

    def __init__(self, parts: Parts, supervisor: Supervisor) -> None:
        self._parts = parts
        self._supervisor = supervisor
        self._due: dict[str, float] = {}
        self._dead_letters = 0.0

    async def run_once(self, now: int) -> int:
        """Count what is due in one transaction; scrapes read the last answer."""
        async with self._parts.core.engine.transaction() as tx:
            for name in DUE:
                count = await tx.scalar(f"backlog.{name}", now=now)
                self._due[name] = float(count) if isinstance(count, int) else 0.0
            count = await tx.scalar("backlog.dead_letters")
            self._dead_letters = float(count) if isinstance(count, int) else 0.0
        return 0

    def collect(self) -> Iterable[Reading]:
        """Every reading now."""
        parts = self._parts
        yield Reading(
            "purser_webhooks",
            "Webhook deliveries by outcome.",
            {outcome: float(n) for outcome, n in parts.intake.inbox.counts.items()},
            "outcome",
            "counter",
        )
        yield Reading(
            "purser_messages_dropped",
            "Direct messages dropped because too many waited to be stored.",
            {"": float(parts.intake.inbound.dropped)},
            kind="counter",
        )
        yield Reading("purser_due", "What is due now, by kind of work.", self._due, "work")
        reconciler = parts.workers.reconciler
        yield Reading(
            "purser_reconcile",
            "Sweeps of Stripe's lists since the start, differences found, errors.",
            {name: float(reconciler.counts[name]) for name in ("sweeps", "differences", "errors")},
            "what",
            "counter",
        )
        yield Reading(
            "purser_stuck",
            "What was older than it may get at the last sweep, by kind.",
            {name: float(count) for name, count in reconciler.stuck.counts.items()},
            "kind",
        )
        yield Reading(
            "purser_dead_letters",
            "Stripe events that were given up: see purser events --failed.",
            {"": self._dead_letters},
        )
        yield Reading(
            "purser_relay_connections", "Relay connections.", {"": float(len(parts.core.pool))}
        )
        yield Reading(
            "purser_worker_restarts",
            "Restarts by worker.",
            {h.name: float(h.restarts) for h in self._supervisor.health()},
            "worker",
            "counter",
        )
        yield Reading(
            "purser_worker_fresh",
            "Whether a worker runs and has shown a sign of life lately.",
            {h.name: float(h.fresh) for h in self._supervisor.health()},
            "worker",
        )
        yield Reading(
            "purser_lease_held",
            "Whether this is the active instance.",
            {"": float(parts.core.lease.is_held())},
        )
