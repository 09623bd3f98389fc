"""Keeps track of what each tenant can be charged with at Stripe, and says when that changes.

Events and collection only ask for a look; what follows from it is the difference between what was
last seen and what is there now, so that a lost, doubled or late event changes nothing (M14).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import structlog

from billing.card_model import Card
from billing.errors import PurserError, StripeMissing
from billing.model import Tenant
from billing.parallel import by_group
from billing.ports import StripeGateway
from billing.store import cards, invoices, operations, tenants
from billing.unit import Runtime, Unit
from billing.views import PaymentMethodView

log = structlog.stdlib.get_logger("purser")

BATCH: Final = 20
BACK_OFF_S: Final = (5, 30, 120, 600, 1800)
"""Then every half hour: a card that is not seen is only not charged."""
WARN_BEFORE_S: Final = 31 * 86_400
"""A month before it ends, and so before every renewal that it could not pay."""


def valid_until(card: PaymentMethodView) -> int | None:
    """The instant from which it is refused: the first of the month after the one printed on it,
    UTC. None: it is no card, or does not expire."""
    if card.exp_month is None or card.exp_year is None:
        return None
    year, month = divmod(card.exp_year * 12 + card.exp_month, 12)
    return int(datetime(year, month + 1, 1, tzinfo=UTC).timestamp())


@dataclass(slots=True)
class CardKeeper:
    """Looks at the cards that are due: the default method, made so where there is none."""

    rt: Runtime
    stripe: StripeGateway

    async def run_once(self, now: int) -> int:
        """Returns how many were due; one's error is its own."""
        async with self.rt.unit() as unit:
            due = await unit.tx.fetch_all(
                Card, "cards.due", now=now, billing_now=unit.billing_now, count=BATCH
            )

        async def one(card: Card) -> None:
            try:
                await self._look(card)
            except PurserError as error:
                log.warning("cards.look_failed", tenant=card.tenant, error=error.what)
                wait_s = BACK_OFF_S[min(card.look_attempts, len(BACK_OFF_S) - 1)]
                async with self.rt.unit() as unit:
                    await unit.tx.execute(
                        "cards.look_failed", tenant=card.tenant, next_at=unit.now + wait_s
                    )

        await by_group(due, lambda card: card.tenant, one)
        return len(due)

    async def _look(self, card: Card) -> None:
        async with self.rt.unit() as unit:
            tenant = await tenants.get(unit.tx, card.tenant)
        assert tenant is not None
        found = None
        if tenant.customer_id is not None:
            found = await self._present(tenant.customer_id, card.wanted_method_id)
        async with self.rt.unit() as unit:
            before = await cards.of_tenant(unit.tx, card.tenant)
            assert before is not None
            await self._differences(unit, tenant, before, found)
            await unit.tx.execute("cards.looked", tenant=card.tenant, seen_wishes=card.look_wishes)

    async def _present(self, customer_id: str, wanted: str | None) -> PaymentMethodView | None:
        """The default method; first the one that was just left at Checkout is made it, or, where
        there is none, the newest card: Checkout only attaches."""
        default = (await self.stripe.customer(customer_id)).default_payment_method
        chosen = wanted
        if chosen is not None and chosen != default:
            method = await self._method(chosen)
            chosen = chosen if method is not None and method.customer_id == customer_id else None
        if chosen is None and default is None:
            attached = await self.stripe.payment_methods_of(customer_id)
            chosen = attached[0].id if attached else None
        if chosen is not None and chosen != default:
            default = await self._make_default(customer_id, chosen)
        if default is None:
            return None
        unknown = PaymentMethodView(default, customer_id, "unknown", None, None, None, None)
        return await self._method(default) or unknown

    async def _method(self, method_id: str) -> PaymentMethodView | None:
        try:
            return await self.stripe.payment_method(method_id)
        except StripeMissing:
            return None

    async def _make_default(self, customer_id: str, method_id: str) -> str | None:
        subject = f"{customer_id}:{method_id}"
        async with operations.absolute(self.rt, "default_card", subject, result="called") as op:
            view = await self.stripe.set_default_method(op.id, customer_id, method_id)
        return view.default_payment_method

    # --- what follows -----------------------------------------------------------------------------

    async def _differences(
        self, unit: Unit, tenant: Tenant, before: Card, found: PaymentMethodView | None
    ) -> None:
        is_new = found is not None and found.id != before.method_id
        ends_at = valid_until(found) if found is not None else None
        warn_at = None if ends_at is None else ends_at - WARN_BEFORE_S
        if warn_at is not None and warn_at <= unit.billing_now:
            # Told now, or not for this tenant: `invoice.upcoming` asks again before a renewal.
            warn_at = None
        await unit.tx.execute(
            "cards.store",
            tenant=tenant.pubkey,
            method_id=found.id if found is not None else None,
            brand=found.brand if found is not None else None,
            last4=found.last4 if found is not None else None,
            exp_month=found.exp_month if found is not None else None,
            exp_year=found.exp_year if found is not None else None,
            since=unit.now if is_new else before.since,
            billing_since=unit.billing_now if is_new else before.billing_since,
            warn_at=warn_at,
        )
        if found is None:
            if before.method_id is not None:
                await self._gone(unit, tenant, before)
            return
        if is_new:
            await self._ready(unit, tenant, found)
        if ends_at is not None and ends_at - WARN_BEFORE_S <= unit.billing_now:
            await self._warn(unit, tenant, found, ends_at)

    async def _ready(self, unit: Unit, tenant: Tenant, found: PaymentMethodView) -> None:
        """It pays what is open, unless an attempt is in flight: collection sees to that (M4)."""
        owed = await invoices.collect_all_of(unit.tx, tenant.pubkey, due_at=unit.now)
        await unit.record("card.ready", tenant=tenant.pubkey, subject=found.id)
        await unit.say(
            f"card:{found.id}:ready",
            tenant.pubkey,
            "card_ready",
            brand=found.brand,
            last4=found.last4,
            owes=any(invoice.status == "open" for invoice in owed),
            wallet=await tenants.payer_of(unit.tx, tenant.pubkey) is not None,
        )

    async def _gone(self, unit: Unit, tenant: Tenant, before: Card) -> None:
        await unit.record("card.gone", tenant=tenant.pubkey, subject=before.method_id)
        await unit.say(
            f"card:{before.method_id}:{before.since}:gone",
            tenant.pubkey,
            "card_gone",
            brand=before.brand,
            last4=before.last4,
            wallet=await tenants.payer_of(unit.tx, tenant.pubkey) is not None,
        )

    async def _warn(
        self, unit: Unit, tenant: Tenant, found: PaymentMethodView, ends_at: int
    ) -> None:
        """Once for each card and date; only who has something to renew."""
        if tenant.subscription_id is None:
            return
        await unit.say(
            f"card:{found.id}:{found.exp_year}-{found.exp_month}:expires",
            tenant.pubkey,
            "card_expires",
            brand=found.brand,
            last4=found.last4,
            ends_at=ends_at,
            is_over=ends_at <= unit.billing_now,
            renews_at=tenant.period_end,
            wallet=await tenants.payer_of(unit.tx, tenant.pubkey) is not None,
        )
