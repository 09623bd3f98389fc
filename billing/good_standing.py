"""Says whether a tenant pays and owes nothing, on which more may be given before or back after."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from billing.model import RelayState, Tenant
from billing.plan_changes import Provision
from billing.ports import StripeGateway
from billing.store import invoices, refunds, tenants
from billing.unit import Runtime, Unit

StopPolicy: TypeAlias = Literal["period_end", "now_with_credit"]
"""When stopping the last paid relay ends the subscription."""
PERIODS: Final = frozenset({"subscription_create", "subscription_cycle"})
"""Stripe's billing reasons of the invoices that pay for a period."""


async def owes_nothing(unit: Unit, pubkey: str, provision: Provision) -> bool:
    """With `provision = "good_standing"`: a running subscription, an invoice that was paid, none
    that is open, and no relay that was taken for not paying. What such a tenant orders comes up at
    once, and its price is on the next invoice."""
    if provision != "good_standing":
        return False
    tenant = await tenants.get(unit.tx, pubkey)
    if tenant is None or tenant.subscription_status != "active":
        return False
    billed = await invoices.of_tenant(unit.tx, pubkey)
    is_paying = any(invoice.status == "paid" for invoice in billed)
    if not is_paying or any(invoice.is_unpaid for invoice in billed):
        return False
    relays = await tenants.relays_of(unit.tx, pubkey)
    return all(r.state not in (RelayState.LIMITED, RelayState.STOPPED) for r in relays)


async def credit_is_due(unit: Unit, tenant: Tenant, since: int) -> bool:
    """Whether what is left of the period was paid for: its own invoice and every other is paid, and
    nothing of them went back. Never credit for time never paid. `since`: its own invoice was not
    made before; the one that is known may be of an earlier period."""
    owed = await invoices.of_tenant(unit.tx, tenant.pubkey)
    periods = [
        invoice
        for invoice in owed
        if invoice.subscription_id == tenant.subscription_id and invoice.billing_reason in PERIODS
    ]
    if not periods or periods[-1].status != "paid" or periods[-1].created_at < since:
        return False
    if any(invoice.is_unpaid for invoice in owed):
        return False
    counted = [invoice for invoice in owed if invoice.created_at >= periods[-1].created_at]
    given_back = [
        refund
        for invoice in counted
        for refund in await refunds.of_invoice(unit.tx, invoice.id)
        if refund.state != "failed"
    ]
    if given_back:
        return False
    paid_at = periods[-1].paid_at or periods[-1].created_at
    # By hands, or by a bank: which invoice it was of is not known here, and to run to the end of
    # the period is no loss.
    by_others = await unit.tx.scalar(
        "activity.count_given_elsewhere", tenant=tenant.pubkey, since=paid_at
    )
    return not by_others


async def is_still_due(rt: Runtime, stripe: StripeGateway, tenant: Tenant, slack_s: int) -> bool:
    """The same right before it is given. A stop may have waited for hours for Stripe to answer, and
    a renewal come meanwhile: credit for that period would be for time never paid. Raises the
    gateway's errors. `slack_s`: how far Stripe's clock and ours may differ."""
    assert tenant.subscription_id is not None
    began_at = (await stripe.subscription(tenant.subscription_id)).period_start
    async with rt.unit() as unit:
        return began_at is not None and await credit_is_due(unit, tenant, began_at - slack_s)
