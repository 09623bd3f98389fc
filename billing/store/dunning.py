"""Dunning windows and the dunning clock: typed reads and named compare-and-set transitions."""

from __future__ import annotations

from dataclasses import asdict

from billing.dunning import NEW_CLOCK, DunningClock, Window
from billing.model import Invoice
from billing.store.engine import Tx


async def get(tx: Tx, invoice_id: str) -> Window | None:
    """By invoice."""
    return await tx.fetch_one(Window, "dunning.get", invoice_id=invoice_id)


async def everything_open(tx: Tx) -> list[Window]:
    """All that are open, oldest first."""
    return await tx.fetch_all(Window, "dunning.everything_open")


async def open_of_tenant(tx: Tx, tenant: str) -> list[Window]:
    """A tenant's open ones, oldest first."""
    return await tx.fetch_all(Window, "dunning.open_of_tenant", tenant=tenant)


async def clock(tx: Tx) -> DunningClock:
    """Counted time as it was last looked at."""
    return await tx.fetch_one(DunningClock, "dunning.clock") or NEW_CLOCK


async def set_clock(tx: Tx, reading: DunningClock) -> None:
    """After a look."""
    await tx.execute("dunning.set_clock", **asdict(reading))


async def open_window(tx: Tx, invoice: Invoice, *, now: int, billing_now: int) -> bool:
    """The one window of this invoice; False: it has had it."""
    reading = await clock(tx)
    return (
        await tx.execute(
            "dunning.open",
            invoice_id=invoice.id,
            tenant=invoice.tenant,
            due_at=invoice.created_at,
            now=now,
            billing_now=billing_now,
            elapsed_s=reading.elapsed_s,
        )
        == 1
    )


async def take(
    tx: Tx, before: Window, day: int, message_key: str, *, billing_now: int, next_look_at: int
) -> bool:
    """Compare-and-set; False: somebody else was first, or it is closed."""
    return (
        await tx.execute(
            "dunning.take",
            invoice_id=before.invoice_id,
            from_day=-1 if before.day is None else before.day,
            day=day,
            message_key=message_key,
            billing_now=billing_now,
            next_look_at=next_look_at,
        )
        == 1
    )


async def close(
    tx: Tx, invoice_id: str, outcome: str, *, now: int, end_subscription_id: str | None = None
) -> bool:
    """Once; False: it was closed."""
    return (
        await tx.execute(
            "dunning.close",
            invoice_id=invoice_id,
            outcome=outcome,
            now=now,
            end_subscription_id=end_subscription_id,
        )
        == 1
    )


async def has_ended(tx: Tx, invoice_id: str) -> bool:
    """Whether its timeline, or that of its subscription, ran to the end: what it carries no longer
    is owed no more."""
    return await tx.scalar("dunning.has_ended", invoice_id=invoice_id) is not None
