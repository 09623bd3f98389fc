"""The end of the timeline: relays, what is owed for them, and an empty subscription end.

K5: a subscription that nobody pays is not invoiced again for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import structlog

from billing.dunning import Window
from billing.errors import PurserError, StripeRejected
from billing.model import Change, HostedRelay, Invoice, RelayState
from billing.plans import Catalogue
from billing.ports import StripeGateway
from billing.store import dunning, invoices, operations, tenants
from billing.unit import Runtime, Unit

log = structlog.stdlib.get_logger("purser")

BATCH: Final = 20
RETRY_S: Final = 60


async def end(unit: Unit, invoice: Invoice, relays: list[HostedRelay]) -> None:
    """In the transaction of the last step. Other unpaid invoices that carry nothing any more are
    written off with it; collection voids each once its payment requests are dead."""
    for relay in relays:
        await tenants.move(unit, relay, RelayState.ENDED, because="unpaid", invoice=invoice.id)
    for window in await dunning.open_of_tenant(unit.tx, invoice.tenant):
        left = [
            relay
            for relay in await invoices.relays_of(unit.tx, window.invoice_id)
            if relay.state is not RelayState.ENDED
        ]
        if window.invoice_id != invoice.id and left:
            continue
        is_own = window.invoice_id == invoice.id
        await dunning.close(
            unit.tx,
            window.invoice_id,
            "ended",
            now=unit.now,
            end_subscription_id=invoice.subscription_id if is_own else None,
        )
        await unit.record(
            "dunning.closed", tenant=window.tenant, subject=window.invoice_id, outcome="ended"
        )
        await invoices.want_collection(unit.tx, window.invoice_id, due_at=unit.now)
    await tenants.want_sync(unit.tx, invoice.tenant, due_at=unit.now)


@dataclass(slots=True)
class SubscriptionEnder:
    """Cancels at Stripe what nothing is left of; with other relays on it the sync reduces it."""

    rt: Runtime
    stripe: StripeGateway
    catalogue: Catalogue

    async def run_once(self, now: int) -> int:
        """One's error is its own."""
        async with self.rt.unit() as unit:
            due = await unit.tx.fetch_all(
                Window, "dunning.subscriptions_to_end", now=now, count=BATCH
            )
        for window in due:
            try:
                await self._end(window)
            except PurserError as error:
                log.warning("dunning.not_ended", subject=window.invoice_id, error=error.what)
                async with self.rt.unit() as unit:
                    await unit.tx.execute(
                        "dunning.end_later",
                        invoice_id=window.invoice_id,
                        next_at=unit.now + RETRY_S,
                    )
        return len(due)

    async def _end(self, window: Window) -> None:
        subscription_id = window.end_subscription_id
        assert subscription_id is not None
        async with self.rt.unit() as unit:
            tenant = await tenants.get(unit.tx, window.tenant)
            running = await unit.tx.fetch_one(Change, "changes.running", tenant=window.tenant)
            is_empty = not await self._is_needed(unit, window.tenant) and running is None
            is_current = tenant is not None and tenant.subscription_id == subscription_id
            if is_empty and is_current:
                operation = await operations.begin(
                    unit.tx, self.rt, "end_subscription", subscription_id
                )
            else:
                if running is None:
                    await unit.tx.execute(
                        "dunning.subscription_ended", invoice_id=window.invoice_id
                    )
                    return
                raise PurserError(subscription_id, "a change of it is under way")
        try:
            await self.stripe.cancel_subscription(operation.id, subscription_id)
            result = "ended"
        except StripeRejected as error:
            result = f"refused: {error.what}"  # it is over already: the sync sees what is there
        async with self.rt.unit() as unit:
            await operations.finish(unit.tx, operation.id, result, now=unit.now)
            await unit.tx.execute("dunning.subscription_ended", invoice_id=window.invoice_id)
            await unit.record(
                "subscription.lapsed", tenant=window.tenant, subject=subscription_id, result=result
            )
            await tenants.want_sync(unit.tx, window.tenant, due_at=unit.now)

    async def _is_needed(self, unit: Unit, pubkey: str) -> bool:
        return any(
            relay.state is not RelayState.ENDED
            and not relay.is_lapsed
            and not self.catalogue.is_free(relay.plan)
            for relay in await tenants.relays_of(unit.tx, pubkey)
        )
