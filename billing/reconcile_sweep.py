"""One sweep: Stripe's lists page by page against the store; differences only, each by itself.

Nothing is held but the page at hand and what is open, which is little. Where it stands is stored
with every page of subscriptions, so that an interrupted sweep goes on there; the lists after that
one are short, and are begun again.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Final, TypeAlias

import structlog

from billing.errors import PurserError, StripeMissing
from billing.found import INVOICE, SUBSCRIPTION, Found, feed
from billing.model import Invoice
from billing.paging import each_page
from billing.plans import Catalogue
from billing.ports import StripeGateway
from billing.reconcile_rules import (
    Difference,
    ended_difference,
    gone_difference,
    invoice_difference,
    lost_customer,
    subscription_difference,
    unsubscribed_difference,
)
from billing.store import sweeps, tenants
from billing.store.sweeps import SweptSeats, SweptTenant, Unsubscribed, listed
from billing.unit import Runtime, Unit
from billing.views import TENANT_KEY, InvoiceView, OpenStatus, SubscriptionView

log = structlog.stdlib.get_logger("purser")

POSITION: Final = "reconcile"
"""The cursor that says where an interrupted sweep stands."""
RESUME_WITHIN_S: Final = 3600
"""An older position is of another day's list: one begins anew. A restored backup has such a one."""
OUR_PAGE: Final = 500
"""Rows of ours at a time: small enough that other writers wait some milliseconds at most."""
STATUSES: Final[tuple[OpenStatus, ...]] = ("draft", "open", "uncollectible")
FED: Final = {"invoice": INVOICE, "subscription": SUBSCRIPTION}
"""As which of Stripe's events a difference is handled."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a sweep is: `stage` in a word; `total` 0: not known."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Failure:
    """What could not be compared or put right; it is its own (C28)."""

    subject: str
    error: str


Heard: TypeAlias = Difference | Progress | Failure
Hear: TypeAlias = Callable[[Heard], None]
Visit: TypeAlias = Callable[[Sequence[SubscriptionView]], Awaitable[None]]


@dataclass(slots=True)
class Report:
    """What a sweep came to: `resumed` if it went on where an earlier one stopped; `stuck` counts by
    class (`billing.stuck`)."""

    subscriptions: int = 0
    invoices: int = 0
    differences: int = 0
    errors: int = 0
    resumed: bool = False
    stuck: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Position:
    """`sweep` marks what it met; `after` is the last object of its last whole page."""

    sweep: int
    stage: str
    after: str | None
    at: int


def nobody(heard: Heard) -> None:
    """Listens to nothing."""


@dataclass(slots=True)
class Sweep:
    """`run` once; `dry_run` writes nothing at all."""

    rt: Runtime
    stripe: StripeGateway
    catalogue: Catalogue
    livemode: bool
    dry_run: bool
    hear: Hear
    position: Position
    report: Report = field(default_factory=Report)
    _met: set[str] = field(default_factory=set)

    async def run(self) -> Report:
        """All stages from where it stands. Raises the gateway's errors for a list that cannot be
        read: what was done is done, and the next sweep goes on from there."""
        if self.position.stage == "subscriptions":
            await self.subscriptions()
        await self._unseen()
        await self._unsubscribed()
        await self._invoices()
        if not self.dry_run:
            async with self.rt.unit() as unit:
                await unit.tx.execute("leases.set_cursor", name=POSITION, value="")
        return self.report

    # --- subscriptions ---------------------------------------------------------------------------

    async def subscriptions(self, visit: Visit | None = None) -> None:
        """The long list. `visit` sees every page before it is compared."""
        async with self.rt.unit() as unit:
            total = await unit.tx.scalar("reconcile.count_subscribed")
        async for page in each_page(self.stripe.subscription_page, self.position.after):
            if visit is not None:
                await visit(page.rows)
            await self._page(page.rows, page.after)
            self.report.subscriptions += len(page.rows)
            self.hear(Progress("subscriptions", self.report.subscriptions, int(total or 0)))

    async def _page(self, views: Sequence[SubscriptionView], after: str | None) -> None:
        async with self.rt.unit() as unit:
            for difference in await self._differences(unit, views):
                await self._put_right(unit, difference)
            self._met.update(view.id for view in views)
            if self.dry_run:
                return
            await unit.tx.execute(
                "reconcile.mark_seen",
                sweep=self.position.sweep,
                ids=listed(view.id for view in views),
            )
            stage = "subscriptions" if after is not None else "rest"
            self.position = Position(self.position.sweep, stage, after, unit.now)
            await unit.tx.execute(
                "leases.set_cursor", name=POSITION, value=json.dumps(asdict(self.position))
            )

    async def _differences(self, unit: Unit, views: Sequence[SubscriptionView]) -> list[Difference]:
        known = await sweeps.tenants_of(unit.tx, (view.customer_id for view in views))
        lost = await sweeps.tenants_without_customer(
            unit.tx, (v.metadata.get(TENANT_KEY, "") for v in views if v.customer_id not in known)
        )
        seats = await sweeps.seats_of(unit.tx, (tenant.pubkey for tenant in known.values()))
        found: list[Difference] = []
        for view in views:
            tenant = known.get(view.customer_id)
            whose = lost.get(view.metadata.get(TENANT_KEY, ""))
            if tenant is None and whose is not None:
                found.append(lost_customer(whose, view))
            if tenant is None or tenant.subscription_id != view.id:
                # Another subscription of the same customer is not the one we keep (C16).
                continue
            try:
                one = subscription_difference(
                    tenant, seats.get(tenant.pubkey, SweptSeats()), view, self.catalogue
                )
            except PurserError as error:
                self._failed(tenant.pubkey, error)
                continue
            found += [] if one is None else [one]
        return found

    async def _unseen(self) -> None:
        """Subscriptions we keep that the list did not show: they are over."""
        after, looked_at = "", 0
        while True:
            async with self.rt.unit() as unit:
                rows = await unit.tx.fetch_all(
                    SweptTenant,
                    "reconcile.unseen",
                    sweep=self.position.sweep,
                    after=after,
                    count=OUR_PAGE,
                )
            for tenant in rows:
                if tenant.subscription_id not in self._met:
                    await self._over(tenant)
                    looked_at += 1
                    self.hear(Progress("ended subscriptions", looked_at, 0))
            if len(rows) < OUR_PAGE:
                return
            after = rows[-1].pubkey

    async def _over(self, tenant: SweptTenant) -> None:
        assert tenant.subscription_id is not None
        view: SubscriptionView | None = None
        try:
            view = await self.stripe.subscription(tenant.subscription_id)
        except StripeMissing:
            view = None
        except PurserError as error:
            self._failed(tenant.pubkey, error)
            return
        if view is not None and not view.is_terminal:
            # It was made while the list was read.
            return
        async with self.rt.unit() as unit:
            await self._put_right(unit, ended_difference(tenant, view))

    async def _unsubscribed(self) -> None:
        free = [plan.id for plan in self.catalogue if plan.is_free]
        after = ""
        while True:
            async with self.rt.unit() as unit:
                rows = await unit.tx.fetch_all(
                    Unsubscribed,
                    "reconcile.unsubscribed",
                    free=json.dumps(free),
                    after=after,
                    count=OUR_PAGE,
                )
                for row in rows:
                    await self._put_right(unit, unsubscribed_difference(row))
            if len(rows) < OUR_PAGE:
                return
            after = rows[-1].pubkey

    # --- invoices --------------------------------------------------------------------------------

    async def _invoices(self) -> None:
        """Drafts before open ones: one that is finalized meanwhile is met at least once."""
        met: set[str] = set()
        for status in STATUSES:
            ask = partial(self.stripe.invoice_page, status=status)
            async for page in each_page(ask):
                met.update(view.id for view in page.rows)
                await self._invoice_page(page.rows)
                self.report.invoices += len(page.rows)
                self.hear(Progress("open invoices", self.report.invoices, 0))
        await self._open_here(met)

    async def _invoice_page(self, views: Sequence[InvoiceView]) -> None:
        async with self.rt.unit() as unit:
            known = await sweeps.tenants_of(unit.tx, (view.customer_id for view in views))
            ours = await sweeps.invoices_by_id(unit.tx, (view.id for view in views))
            for view in views:
                tenant = known.get(view.customer_id)
                if tenant is not None:
                    mine = ours.get(view.id)
                    found = invoice_difference(
                        mine,
                        view,
                        tenant.pubkey,
                        tenant.name,
                        subscription_id=tenant.subscription_id,
                    )
                    if found is not None:
                        await self._put_right(unit, found)

    async def _open_here(self, met: set[str]) -> None:
        """Open here and not listed: each is looked at, however old it is (K2)."""
        after = ""
        while True:
            async with self.rt.unit() as unit:
                rows = await unit.tx.fetch_all(
                    Invoice, "reconcile.open_here", after=after, count=OUR_PAGE
                )
            for invoice in rows:
                if invoice.id not in met:
                    await self._look(invoice)
            if len(rows) < OUR_PAGE:
                return
            after = rows[-1].id

    async def _look(self, invoice: Invoice) -> None:
        try:
            view = await self.stripe.invoice(invoice.id)
        except StripeMissing:
            difference: Difference | None = gone_difference(invoice, "")
        except PurserError as error:
            self._failed(invoice.id, error)
            return
        else:
            difference = invoice_difference(invoice, view, invoice.tenant, "")
        if difference is not None:
            async with self.rt.unit() as unit:
                await self._put_right(unit, difference)

    # --- what is done about it -------------------------------------------------------------------

    async def _put_right(self, unit: Unit, difference: Difference) -> None:
        self._count(difference)
        if self.dry_run:
            return
        assert difference.tenant is not None
        match difference.kind:
            case "invoice" | "subscription" as kind:
                # The handler reads it again: a webhook may have been quicker than the list.
                found = Found(FED[kind], difference.subject, str(unit.now))
                await feed(unit, found, livemode=self.livemode)
            case _:
                if difference.kind == "customer":
                    await tenants.adopt_customer(unit.tx, difference.tenant, difference.subject)
                await tenants.want_sync(unit.tx, difference.tenant, due_at=unit.now)
        await unit.record(
            f"reconcile.{difference.kind}",
            tenant=difference.tenant,
            subject=difference.subject,
            what=difference.text,
        )

    def _count(self, difference: Difference) -> None:
        self.report.differences += 1
        self.hear(difference)

    def _failed(self, subject: str, error: PurserError) -> None:
        self.report.errors += 1
        log.warning("reconcile.failed", subject=subject, error=str(error))
        self.hear(Failure(subject, str(error)))


async def read_position(unit: Unit) -> Position | None:
    """Where an interrupted sweep stands, unless that was too long ago."""
    text = await unit.tx.scalar("leases.cursor", name=POSITION)
    if not text:
        return None
    position = Position(**json.loads(str(text)))
    is_fresh = 0 <= unit.now - position.at <= RESUME_WITHIN_S
    return position if is_fresh else None
