"""What follows from a re-fetched invoice: its mirror, the relays it carries, a word to its tenant.

Status is read from Stripe's object only, never from a webhook's payload (C4, C16); what payment
brings up are the relays on that invoice, by their own state (C8, C29, M12, M13).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from billing import credit_note, plan_effects, taken_up_later
from billing.comebacks import come_back
from billing.dunning import Policy
from billing.errors import StripeMissing
from billing.model import (
    AttemptState,
    HostedRelay,
    Invoice,
    PaymentRequest,
    Rail,
    RelayState,
)
from billing.open_money import RENEWAL
from billing.plan_model import PlanChangeState
from billing.ports import StripeGateway
from billing.receipts import receipt
from billing.standing import restore
from billing.store import dunning, invoices, ledger, payments, plan_changes, spends, tenants
from billing.unit import Runtime, Unit
from billing.views import InvoiceView

PAID_BY_KEY: Final = "purser_paid_by"
"""Invoice metadata: the payment hash with which we marked it paid."""
RENEWED_WITHIN_S: Final = 2 * 3600
"""After a period's end Stripe may take so long to make the renewal."""
_FINAL: Final = ("paid", "void", "deleted")
_STRICT: Final = Policy(restore="all")
"""What comes back in the transaction of a payment; a milder policy's rest follows from dunning."""


async def refresh(unit: Unit, tenant: str, view: InvoiceView) -> Invoice:
    """Store what Stripe just said and do what follows from it."""
    before = await invoices.get(unit.tx, view.id)
    if before is not None and before.status in _FINAL and view.status != before.status:
        # Fetched before, stored after a newer answer: what is final does not come back.
        return before
    invoice = await invoices.upsert(unit.tx, tenant, view, now=unit.now)
    await ledger.post_invoice(unit, tenant, view, before)
    if before is None:
        await _first_sight(unit, invoice)
    elif before.status != invoice.status:
        await unit.record(
            f"invoice.{invoice.status}",
            tenant=tenant,
            subject=invoice.id,
            was=before.status,
            remaining_minor=invoice.amount_remaining_minor,
        )
        if invoice.status in ("void", "deleted"):
            # What waits for its payment needs another invoice to carry it (M12).
            await tenants.want_sync(unit.tx, tenant, due_at=unit.now)
    if await spends.adopt(unit, tenant, view):
        await invoices.want_collection(unit.tx, invoice.id, due_at=unit.now)
    if invoice.status == "paid" and invoice.paid_at is None:
        await _on_paid(unit, invoice, view)
        invoice = await invoices.get(unit.tx, view.id) or invoice
    return invoice


async def _first_sight(unit: Unit, invoice: Invoice) -> None:
    await unit.record(
        "invoice.seen",
        tenant=invoice.tenant,
        subject=invoice.id,
        status=invoice.status,
        reason=invoice.billing_reason,
        remaining_minor=invoice.amount_remaining_minor,
        currency=invoice.currency,
    )
    if invoice.billing_reason == RENEWAL:
        await invoices.link_relays(unit.tx, invoice.id, await _renewed_by(unit, invoice))
    if invoice.status in ("draft", "open"):
        await invoices.want_collection(unit.tx, invoice.id, due_at=unit.now)


async def _renewed_by(unit: Unit, renewal: Invoice) -> list[str]:
    """Ids of the relays that it is for. One of another subscription, seen late, is nothing to a
    relay that came up since: who pays for that one owes no old renewal for it (M13)."""
    tenant = await tenants.get(unit.tx, renewal.tenant)
    is_ours = tenant is not None and tenant.subscription_id == renewal.subscription_id
    found: list[str] = []
    for relay in await tenants.relays_of(unit.tx, renewal.tenant):
        if relay.state is RelayState.PENDING_PAYMENT or not relay.is_renewed:
            continue
        if not is_ours and (relay.activated_at or 0) > renewal.created_at:
            continue
        if await _billed_plan(unit, relay) not in unit.free_plans:
            found.append(relay.id)
    return found


async def _billed_plan(unit: Unit, relay: HostedRelay) -> str:
    """The plan that a renewal of now has on it: a downgrade is in its price already."""
    change = await plan_changes.live_of(unit.tx, relay.id)
    is_scheduled = change is not None and change.state is PlanChangeState.SCHEDULED
    return change.to_plan if change is not None and is_scheduled else relay.plan


async def carry(unit: Unit, invoice: Invoice, relay_ids: list[str]) -> None:
    """This invoice carries these relays; were it paid before we knew, they come up now."""
    await invoices.link_relays(unit.tx, invoice.id, relay_ids)
    if invoice.status == "paid":
        await _bring_up(unit, invoice)
        await plan_effects.apply_paid(unit, invoice)


async def is_orphaned(unit: Unit, invoice: Invoice, view: InvoiceView) -> bool:
    """All that it is for was given up: relays that ended without ever coming up, changes of plan
    that were undone; or it was dunned to the end, or made for a relay that was stopped before it
    began: nothing is owed on it any more."""
    invoice_id = invoice.id
    carried = await invoices.relays_of(unit.tx, invoice_id)
    is_over = all(relay.state is RelayState.ENDED or relay.is_lapsed for relay in carried)
    if is_over and await dunning.has_ended(unit.tx, invoice_id):
        return True
    changes = await plan_changes.of_invoice(unit.tx, invoice_id)
    if not carried and not changes:
        return await _is_renewal_of_nothing(unit, invoice, view)
    return bool(carried or changes) and all(
        [_was_given_up(relay) for relay in carried]
        + [change.state is PlanChangeState.UNDONE for change in changes]
    )


async def _is_renewal_of_nothing(unit: Unit, invoice: Invoice, view: InvoiceView) -> bool:
    """Stripe made it before it heard of the stop: it is for a period in which nothing runs, and for
    nothing that was used before."""
    covers_from, covers_until = view.covers_from, view.covers_until
    if invoice.billing_reason != RENEWAL or covers_from is None:
        return False
    is_of_the_past = covers_until is None or covers_until <= invoice.created_at
    if is_of_the_past or covers_from < invoice.created_at - RENEWED_WITHIN_S:
        return False
    return all(
        relay.state is RelayState.ENDED
        or relay.is_lapsed
        or relay.plan in unit.free_plans
        or (_is_stopped(relay) and relay.stops_at is not None and relay.stops_at <= covers_from)
        for relay in await tenants.relays_of(unit.tx, invoice.tenant)
    )


def _is_stopped(relay: HostedRelay) -> bool:
    """For good: one that lapses may be taken back by whoever had its subscription end."""
    return relay.stop_requested_at is not None and relay.lapses_at is None


def _was_given_up(relay: HostedRelay) -> bool:
    return relay.is_lapsed or (relay.state is RelayState.ENDED and relay.activated_at is None)


async def date_stops(unit: Unit, invoice_id: str, until: int) -> None:
    """Its relays that are not renewed and have no date yet, since their subscription was cancelled
    over this invoice, run until then."""
    for relay in await invoices.relays_of(unit.tx, invoice_id):
        if await unit.tx.execute("relays.date_stop", id=relay.id, stops_at=until):
            await unit.say(
                f"relay:{relay.id}:not_renewed:{until}",
                relay.tenant,
                "stopping",
                name=relay.name,
                stops_at=until,
            )


async def _on_paid(unit: Unit, invoice: Invoice, view: InvoiceView) -> None:
    mark = view.metadata.get(PAID_BY_KEY) if view.amount_paid_off_stripe_minor > 0 else None
    request = await payments.request_by_hash(unit.tx, mark) if mark else None
    if mark and request is None and not mark.startswith(credit_note.MARK):
        # Another bot on this Stripe account was paid for it: `billing.rebuild` books that here.
        await taken_up_later.add(unit.tx, invoice.id)
    paid_by = await _paid_by(unit, view, mark or "", request)
    await unit.tx.execute("invoices.set_paid", id=invoice.id, now=unit.now, paid_by=paid_by)
    await unit.record("invoice.settled", tenant=invoice.tenant, subject=invoice.id, paid_by=paid_by)
    brought = await _bring_up(unit, invoice)
    brought += await come_back(unit, invoice, view)
    changed = await plan_effects.apply_paid(unit, invoice)
    if view.covers_until is not None:
        await date_stops(unit, invoice.id, view.covers_until)
    await tenants.want_sync(unit.tx, invoice.tenant, due_at=unit.now)
    if invoice.total_minor < 0:
        await unit.say(
            f"invoice:{invoice.id}:credit",
            invoice.tenant,
            "stop_credit",
            credit_minor=-invoice.total_minor,
            currency=invoice.currency,
        )
    if invoice.total_minor > 0:
        named = await invoices.named_relays(unit.tx, invoice.id)
        new_plan = {change.relay_id for change in changed}
        await unit.say(
            f"invoice:{invoice.id}:paid",
            invoice.tenant,
            "invoice_paid",
            invoice=invoice.id,
            amount_minor=invoice.total_minor,
            currency=invoice.currency,
            paid_by=paid_by,
            relays=[relay.name for relay in named],
            brought_up=[relay.name for relay in brought],
            changed=[relay.name for relay in named if relay.id in new_plan],
            **await receipt(unit, invoice, view, view.metadata.get(PAID_BY_KEY)),
        )


async def _paid_by(unit: Unit, view: InvoiceView, mark: str, request: PaymentRequest | None) -> str:
    """nwc, manual, card, credit, or stripe (marked paid there by somebody else). `mark`: what we
    marked it with, and the request whose payment hash that is."""
    if mark.startswith(credit_note.MARK):
        return "credit"
    if request is not None:
        tried = await payments.attempts_of_request(unit.tx, request.id)
        settled = any(attempt.state is AttemptState.SETTLED for attempt in tried)
        return Rail.NWC.value if settled else Rail.MANUAL.value
    if view.amount_paid_off_stripe_minor > 0:
        return "stripe"
    return Rail.CARD.value if view.amount_paid_minor > 0 else "credit"


async def _bring_up(unit: Unit, invoice: Invoice) -> list[HostedRelay]:
    """Relays of this invoice that waited for it, that non-payment took, or whose order ran out
    before we heard that it was paid."""
    brought: list[HostedRelay] = await restore(unit, invoice.id, _STRICT)
    for relay in await invoices.relays_of(unit.tx, invoice.id):
        if await _ran_out_unheard(unit, relay):
            await tenants.move_relay(unit.tx, relay, RelayState.PENDING_PAYMENT, now=unit.now)
            relay = replace(relay, state=RelayState.PENDING_PAYMENT)
        if relay.state is not RelayState.PENDING_PAYMENT:
            continue
        was = relay.state.value
        if await tenants.move(unit, relay, RelayState.ACTIVE, was=was, invoice=invoice.id):
            brought.append(relay)
    return brought


async def _ran_out_unheard(unit: Unit, relay: HostedRelay) -> bool:
    """It ended unpaid, nobody asked it to stop, and its name is still free."""
    return (
        relay.state is RelayState.ENDED
        and relay.activated_at is None
        and relay.stop_requested_at is None
        and await tenants.living_relay_named(unit.tx, relay.name) is None
    )


async def fetch(stripe: StripeGateway, known: Invoice) -> InvoiceView:
    """As it is at Stripe now. A draft that was deleted there comes back as such: nothing can be
    collected, and money for it becomes credit."""
    try:
        return await stripe.invoice(known.id)
    except StripeMissing:
        return deleted_view(known)


async def look_again(rt: Runtime, stripe: StripeGateway, known: Invoice) -> InvoiceView:
    """Fetch it again and store it, with what follows. Raises the gateway's errors."""
    view = await fetch(stripe, known)
    async with rt.unit() as unit:
        await refresh(unit, known.tenant, view)
    return view


def deleted_view(known: Invoice) -> InvoiceView:
    """A draft that is gone at Stripe, as a view."""
    return InvoiceView(
        id=known.id,
        customer_id=known.customer_id,
        subscription_id=known.subscription_id,
        status="deleted",
        currency=known.currency,
        total_minor=known.total_minor,
        amount_due_minor=0,
        amount_remaining_minor=0,
        amount_paid_minor=0,
        amount_paid_off_stripe_minor=0,
        auto_advance=False,
        billing_reason=known.billing_reason,
        created_at=known.created_at,
        due_at=None,
        period_start=known.period_start,
        period_end=known.period_end,
        number=known.number,
        hosted_invoice_url=None,
    )
