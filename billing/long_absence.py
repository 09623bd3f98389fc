"""Finds by listing what events would have said, when they are older than Stripe keeps them.

An empty database is as one away for as long as it takes: it may be a new bot, or a lost disk.

Everything found goes to the handler that the event would have gone to. It is begun anew when it was
interrupted: a month of 10 000 tenants is a hundred pages, and what is known already is skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from billing import found
from billing.found import Found, feed
from billing.paging import each_page
from billing.ports import StripeGateway
from billing.reconcile_rules import invoice_difference
from billing.store import sweeps
from billing.unit import Runtime
from billing.views import InvoiceView, TraceKind

log = structlog.stdlib.get_logger("purser")

OVERLAP_S: Final = 86_400
"""The last event was read some time after what it was about."""
LOOK_BACK_S: Final[dict[TraceKind, int]] = {
    "refund": 45 * 86_400,
    "dispute": 180 * 86_400,
    "credit_note": OVERLAP_S,
}
"""Of those made before, some end much later: a refund fails weeks after it was made, and a bank
takes months to decide."""
TYPE_OF: Final[dict[TraceKind, str]] = {
    "refund": found.REFUND,
    "dispute": found.DISPUTE,
    "credit_note": found.CREDIT_NOTE,
}


@dataclass(slots=True)
class LongAbsence:
    """`run` for the time since which nothing is known; raises the gateway's errors."""

    rt: Runtime
    stripe: StripeGateway
    livemode: bool

    async def run(self, since: int) -> int:
        """How much was handed to handlers. Subscriptions that ended are the sweep's to find."""
        count = await self._invoices(since - OVERLAP_S)
        for kind, back_s in LOOK_BACK_S.items():
            count += await self._traces(kind, since - back_s)
        count += await self._customers()
        async with self.rt.unit() as unit:
            # Cards that came or went: what is open is looked at, whoever it belongs to.
            await unit.tx.execute("reconcile.collect_all_open", now=unit.now)
            await unit.record("reconcile.long_absence", since=since, found=count)
        log.info("reconcile.long_absence", since=since, found=count)
        return count

    async def _invoices(self, since: int) -> int:
        """Made since then, whatever became of them: those of ours that are other, or unknown."""
        count = 0
        async for page in each_page(partial(self.stripe.invoice_page, since=since)):
            count += await self._invoice_page(page.rows, str(since))
        return count

    async def _invoice_page(self, views: Sequence[InvoiceView], key: str) -> int:
        async with self.rt.unit() as unit:
            owners = await sweeps.tenants_of(unit.tx, (view.customer_id for view in views))
            ours = await sweeps.invoices_by_id(unit.tx, (view.id for view in views))
            fed = 0
            for view in views:
                owner = owners.get(view.customer_id)
                if owner is None:
                    continue
                mine, own = ours.get(view.id), owner.subscription_id
                if invoice_difference(mine, view, owner.pubkey, owner.name, subscription_id=own):
                    event = Found(found.INVOICE, view.id, key)
                    fed += await feed(unit, event, livemode=self.livemode)
            return fed

    async def _traces(self, kind: TraceKind, since: int) -> int:
        fed = 0
        traces = await self.stripe.traces_since(kind, since)
        async with self.rt.unit() as unit:
            if not await sweeps.customers_here(unit.tx):
                return 0  # a new bot on the account of another business: none of them is ours
            for trace in traces:
                event = Found(TYPE_OF[kind], trace.id, trace.status)
                fed += await feed(unit, event, livemode=self.livemode)
        return fed

    async def _customers(self) -> int:
        """Ours that are gone: all of the account's are listed, a hundred to a page."""
        async with self.rt.unit() as unit:
            ours = await sweeps.customers_here(unit.tx)
        if not ours:
            return 0
        alive = {view.id for view in await self.stripe.all_customers()}
        fed = 0
        async with self.rt.unit() as unit:
            for customer_id in ours:
                if customer_id not in alive:
                    event = Found(found.CUSTOMER_DELETED, customer_id, "deleted")
                    fed += await feed(unit, event, livemode=self.livemode)
        return fed
