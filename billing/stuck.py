"""Counts what is older than it may get, and takes up again what nobody would look at.

Reads and hastens only: what is taken up goes to the worker or the handler it always goes to, which
looks before it decides (V1), and whose errors leave the row as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import structlog

from billing.found import INVOICE, SUBSCRIPTION, Found, feed
from billing.unit import Runtime, Unit

log = structlog.stdlib.get_logger("purser")

BATCH: Final = 50
"""Of each class at a time: the next sweep takes up the rest."""


@dataclass(frozen=True, slots=True)
class Stuck:
    """One class. `after_s`: the age from which it counts. `fed_as`: the type of the event by which
    it is read again; None: the worker's own timer is set. `forgotten`: that it was there at all is
    a bug, so operators are told; the others are normal, and have alarms of their own."""

    name: str
    says: str
    after_s: int
    clock: Literal["wire", "billing"]
    fed_as: str | None = None

    @property
    def forgotten(self) -> bool:
        """Its workers always set a next time."""
        return self.fed_as is None


CLASSES: Final = (
    Stuck("invoices", "invoices open for more than 3 days", 72 * 3600, "billing", INVOICE),
    Stuck(
        "first_payments",
        "first payments neither made nor over after a day",
        24 * 3600,
        "billing",
        SUBSCRIPTION,
    ),
    Stuck("refunds", "refunds under way for more than an hour", 3600, "wire"),
    Stuck("requests", "payment requests undecided an hour after their margin", 3600, "wire"),
    Stuck("settlements", "payments without a home for more than an hour", 3600, "wire"),
    Stuck("changes", "changes of a subscription not made within an hour", 3600, "wire"),
    Stuck("relays", "relays that the relay host does not catch up with", 900, "wire"),
    Stuck("messages", "messages not delivered for more than an hour", 3600, "wire"),
    Stuck("events", "Stripe events not handled within an hour", 3600, "wire"),
)


@dataclass(frozen=True, slots=True)
class Left:
    """One row of a class."""

    subject: str
    tenant: str | None


@dataclass(slots=True)
class StuckSweep:
    """`counts` are those of the last look, by class (C21)."""

    rt: Runtime
    livemode: bool
    counts: dict[str, int] = field(default_factory=dict)

    async def run_once(self, now: int) -> int:
        """Take up a batch of each class; returns how many."""
        del now
        taken = 0
        for kind in CLASSES:
            async with self.rt.unit() as unit:
                rows = await unit.tx.fetch_all(
                    Left, f"stuck.{kind.name}", before=_before(kind, unit), count=BATCH
                )
            for row in rows:
                taken += await self._take(kind, row)
        await self.count()
        return taken

    async def count(self) -> Mapping[str, int]:
        """How many there are of each class now; only reads."""
        async with self.rt.unit() as unit:
            for kind in CLASSES:
                found = await unit.tx.scalar(f"stuck.count_{kind.name}", before=_before(kind, unit))
                self.counts[kind.name] = int(found or 0)
        return dict(self.counts)

    async def _take(self, kind: Stuck, row: Left) -> int:
        async with self.rt.unit() as unit:
            if kind.fed_as is not None:
                # A day's worth at most, should its handler find nothing to change.
                event = Found(kind.fed_as, row.subject, f"stuck:{unit.now // 86400}")
                taken = int(await feed(unit, event, livemode=self.livemode))
            else:
                taken = await unit.tx.execute(
                    f"stuck.take_{kind.name}", subject=row.subject, now=unit.now
                )
            if not taken:
                return 0
            await unit.record(f"stuck.{kind.name}", tenant=row.tenant, subject=row.subject)
            if kind.forgotten:
                await self.rt.alarm(
                    unit,
                    f"stuck:{kind.name}:{row.subject}",
                    f"{row.subject} was left behind ({kind.says}) and nothing would have looked at "
                    "it again. Purser has taken it up; please report this as a bug.",
                )
        return 1


def _before(kind: Stuck, unit: Unit) -> int:
    return (unit.now if kind.clock == "wire" else unit.billing_now) - kind.after_s
