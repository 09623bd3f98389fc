"""Finds what Stripe says that this database does not know, page by page; usually nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Final

from billing.catch_up import UNKNOWN_GAP_S, whole_up_to
from billing.errors import StripeMissing
from billing.model import Invoice
from billing.paging import each_page
from billing.ports import StripeGateway
from billing.rails.issue import noted_in
from billing.refund_memory import refunds_in
from billing.stated_relays import stated_in
from billing.store import sweeps
from billing.unit import Runtime
from billing.views import InvoiceView, OpenStatus, SubscriptionView

LOOK_BACK_S: Final = UNKNOWN_GAP_S
"""Older payment requests are watched by nobody (M9), and the books want a quarter's invoices
(simulation seed 2343)."""
JUST_STARTED_S: Final = 120
"""What a life has written before its rebuild ran says nothing of the backup's age."""
SEEN_OVERLAP_S: Final = 86_400
"""An invoice may be a day older than the moment at which it was first heard of."""
OVERLAP_S: Final = 6 * 3600
"""Further back than the last look at Stripe's events: they come late, and clocks differ."""


@dataclass(slots=True)
class Questions:
    """What `billing.rebuild` has to look into."""

    rt: Runtime
    stripe: StripeGateway

    async def unknown_subscriptions(
        self, views: Sequence[SubscriptionView]
    ) -> list[SubscriptionView]:
        """Those of a page that say something this database does not know; usually none."""
        async with self.rt.unit() as unit:
            owners = await sweeps.tenants_of(unit.tx, (view.customer_id for view in views))
            relays = await sweeps.known_relays(
                unit.tx, (row.relay_id for view in views for row in stated_in(view.metadata))
            )
        return [
            view
            for view in views
            if (owner := owners.get(view.customer_id)) is None
            or owner.subscription_id != view.id
            or any(row.relay_id not in relays for row in stated_in(view.metadata))
        ]

    async def invoices_in_question(self) -> list[InvoiceView]:
        """Invoices that say something this database does not know: among those that are open at
        Stripe, or here, and those made since it was last up to date."""
        since = await self._since()
        lists: tuple[tuple[OpenStatus | None, int], ...] = (
            ("draft", 0),
            ("open", 0),
            ("uncollectible", 0),
            (None, since),
        )
        kept: dict[str, InvoiceView] = {}
        met: set[str] = set()
        for status, created in lists:
            ask = partial(self.stripe.invoice_page, status=status, since=created)
            async for page in each_page(ask):
                met.update(view.id for view in page.rows)
                kept |= {view.id: view for view in await self._unknown_invoices(page.rows)}
        async with self.rt.unit() as unit:
            open_here = await unit.tx.fetch_all(Invoice, "reconcile.unended_here")
        for invoice_id in sorted(invoice.id for invoice in open_here):
            if invoice_id not in met:
                kept |= await self._look_at(invoice_id)
        return list(kept.values())

    async def _look_at(self, invoice_id: str) -> dict[str, InvoiceView]:
        try:
            view = await self.stripe.invoice(invoice_id)
        except StripeMissing:
            return {}
        return {view.id: view for view in await self._unknown_invoices([view])}

    async def _since(self) -> int:
        """From when on Stripe's invoices may be unknown here. A database that read Stripe's events
        up to some time knows all before it; one that never did, all before the last thing that it
        saw, and at least what is watched (M9) is looked at. Either may be long ago."""
        whole_at = await whole_up_to(self.rt)
        if whole_at is not None:
            return whole_at - OVERLAP_S
        before = self.rt.clock.now() - JUST_STARTED_S
        async with self.rt.unit() as unit:
            seen = await unit.tx.scalar("activity.newest_before", before=before)
        watched = self.rt.clock.billing_now() - LOOK_BACK_S
        return watched if seen is None else min(watched, int(seen) - SEEN_OVERLAP_S)

    async def _unknown_invoices(self, views: Sequence[InvoiceView]) -> list[InvoiceView]:
        noted = {view.id: {n.payment_hash for n in noted_in(view.metadata)} for view in views}
        stated = {view.id: {r.relay_id for r in stated_in(view.metadata)} for view in views}
        refunds = {view.id: {r.refund_id for r in refunds_in(view.metadata)} for view in views}
        async with self.rt.unit() as unit:
            owners = await sweeps.tenants_of(unit.tx, (view.customer_id for view in views))
            given = await sweeps.known_refunds(unit.tx, chain.from_iterable(refunds.values()))
            mirrored = await sweeps.invoices_by_id(unit.tx, (view.id for view in views))
            hashes = await sweeps.known_hashes(unit.tx, chain.from_iterable(noted.values()))
            relays = await sweeps.known_relays(unit.tx, chain.from_iterable(stated.values()))
        return [
            view
            for view in views
            if not (noted[view.id] <= hashes and stated[view.id] <= relays)
            or not refunds[view.id] <= given
            or (view.id not in mirrored and view.customer_id in owners)
        ]
