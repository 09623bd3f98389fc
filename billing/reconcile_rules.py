"""Compares what Stripe shows with what stands here, object by object, and says it for people.

Pure: a difference of a subscription is whatever `billing.subscriptions.next_step` would do about
it, so that the plan that is printed is the plan that is carried out.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from billing.model import Invoice
from billing.money import format_fiat
from billing.plan_changes import Seats, count_seats
from billing.plans import Catalogue, amount_of_lookup_key, plan_of_lookup_key
from billing.store.sweeps import SweptSeats, SweptTenant, Unsubscribed
from billing.subscriptions import (
    AddItems,
    CancelAtPeriodEnd,
    CreateSubscription,
    InSync,
    KeepRunning,
    SetItems,
    Step,
    WaitForFirstPayment,
    next_step,
    price_relays,
)
from billing.views import InvoiceView, SubscriptionView

NOTHING: Final = "nothing"


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing to put right: `kind` and `subject` for machines, `text`, `here` and `there` (at
    Stripe) for people. `tenant` is a pubkey, `name` what its tenant is called here."""

    kind: str
    subject: str
    text: str
    tenant: str | None = None
    name: str = ""
    here: str = ""
    there: str = ""


def lost_customer(tenant: SweptTenant, view: SubscriptionView) -> Difference:
    """A tenant of a restored backup: the subscription still says whose it is."""
    return Difference(
        "customer",
        view.customer_id,
        f"customer {view.customer_id} is unknown here",
        tenant.pubkey,
        tenant.name,
        here="no customer",
        there=f"{view.customer_id}, {told(view)}",
    )


def subscription_difference(
    tenant: SweptTenant,
    seats: SweptSeats,
    view: SubscriptionView,
    catalogue: Catalogue,
) -> Difference | None:
    """Status, period and items of a living subscription. `ConfigurationWrong`: a relay is on a plan
    that is not configured (M12)."""
    if view.status != tenant.subscription_status:
        text = (
            f"subscription {view.id} is {view.status} at Stripe and "
            f"{tenant.subscription_status} here"
        )
    elif view.period_end != tenant.period_end:
        text = f"subscription {view.id} has another period at Stripe"
    else:
        wanted = count_seats(seats.relays, seats.live, frozenset(seats.uncarried), catalogue)
        step = _step(wanted, view, catalogue)
        if isinstance(step, InSync | WaitForFirstPayment):
            return None
        text = f"subscription {view.id} is not what its relays say: {_will(step)}"
        return Difference(
            "tenant",
            tenant.pubkey,
            text,
            tenant.pubkey,
            tenant.name,
            here=_wanted_text(wanted),
            there=told(view),
        )
    here = f"{tenant.subscription_status}{_until(tenant.period_end)}"
    there = f"{view.status}{_until(view.period_end)}"
    return Difference(
        "subscription", view.id, text, tenant.pubkey, tenant.name, here=here, there=there
    )


def ended_difference(tenant: SweptTenant, view: SubscriptionView | None) -> Difference:
    """The subscription is not among the living ones; `view` None: Stripe does not know it."""
    known = view is not None and tenant.subscription_id is not None
    return Difference(
        # One that Stripe does not know at all has nothing to be read again.
        "subscription" if known else "tenant",
        (tenant.subscription_id or "") if known else tenant.pubkey,
        f"subscription {tenant.subscription_id} is over at Stripe",
        tenant.pubkey,
        tenant.name,
        here=f"{tenant.subscription_status}{_until(tenant.period_end)}",
        there=view.status if view is not None else "unknown",
    )


def unsubscribed_difference(row: Unsubscribed) -> Difference:
    """Relays that nothing at Stripe pays for."""
    return Difference(
        "tenant",
        row.pubkey,
        f"it has no subscription for {row.relays} of its relays",
        row.pubkey,
        row.name,
        here=f"{_relays(row.relays)} to pay for",
        there="no subscription",
    )


def invoice_difference(
    mine: Invoice | None,
    view: InvoiceView,
    tenant: str,
    name: str,
    *,
    subscription_id: str | None = None,
) -> Difference | None:
    """Status and what remains; `mine` None: it is unknown here, as are those of a subscription that
    was made beside the tenant's own, `subscription_id`."""
    if mine is None and view.is_beside(subscription_id):
        return None
    if mine is None:
        text = f"invoice {view.id} is {view.status} at Stripe and unknown here"
    elif mine.status != view.status:
        text = f"invoice {view.id} is {view.status} at Stripe and {mine.status} here"
    elif mine.amount_remaining_minor != view.amount_remaining_minor:
        text = f"invoice {view.id} has another amount at Stripe"
    else:
        return None
    return Difference(
        "invoice",
        view.id,
        text,
        tenant,
        name,
        here=NOTHING if mine is None else _owed(mine, mine.created_at),
        there=_owed(view, view.created_at),
    )


def gone_difference(mine: Invoice, name: str) -> Difference:
    """Open here, and not at Stripe at all: a draft that was deleted."""
    return Difference(
        "invoice",
        mine.id,
        f"invoice {mine.id} is {mine.status} here and over at Stripe",
        mine.tenant,
        name,
        here=_owed(mine, mine.created_at),
        there="deleted",
    )


# --- what would be done -------------------------------------------------------------------------


def _step(seats: Seats, view: SubscriptionView, catalogue: Catalogue) -> Step:
    """As `billing.subscription_sync` plans it, with lookup keys in place of prices not bought yet:
    no price is made for a comparison."""
    bought = {item.lookup_key: item.price_id for item in view.items}
    keys = {p: catalogue.get(p).lookup_key for p in seats.staying.keys() | seats.ordered.keys()}
    priced = price_relays(
        seats.staying,
        seats.ordered,
        current_prices={plan: bought.get(key, key) for plan, key in keys.items()},
        actual=view,
    )
    return next_step(priced.desired, view, ordered=priced.ordered)


def _will(step: Step) -> str:
    match step:
        case CreateSubscription():
            return "another is made"
        case AddItems(changes=changes) | SetItems(changes=changes):
            return f"{len(changes)} of its items change"
        case CancelAtPeriodEnd():
            return "it is to end with its period"
        case KeepRunning():
            return "it is to go on"
        case InSync() | WaitForFirstPayment():
            return "nothing"


# --- words --------------------------------------------------------------------------------------


def told(view: SubscriptionView) -> str:
    """`active until 2026-12-01, 2 on basic ($4.00 each)`."""
    items = []
    for item in view.items:
        plan = plan_of_lookup_key(item.lookup_key) or item.price_id
        items.append(f"{item.quantity} on {plan}{_each(item.lookup_key)}")
    ends = ", to end then" if view.cancel_at_period_end else ""
    return f"{view.status}{_until(view.period_end)}{ends}, {', '.join(items) or 'nothing on it'}"


def _each(lookup_key: str | None) -> str:
    amount = amount_of_lookup_key(lookup_key)
    if amount is None or lookup_key is None:
        return ""
    return f" ({format_fiat(amount, lookup_key.split('_')[-2])} each)"


def _wanted_text(seats: Seats) -> str:
    plans = seats.staying + seats.ordered
    return ", ".join(f"{count} on {plan}" for plan, count in sorted(plans.items())) or (
        "no relay to be renewed"
    )


def _relays(count: int) -> str:
    return f"{count} {'relay' if count == 1 else 'relays'}"


def _until(epoch_s: int | None) -> str:
    return "" if epoch_s is None else f" until {day(epoch_s)}"


def _owed(invoice: Invoice | InvoiceView, created_at: int) -> str:
    remaining = invoice.amount_remaining_minor
    total = format_fiat(invoice.total_minor, invoice.currency)
    owed = f", {format_fiat(remaining, invoice.currency)} to pay" if remaining else ""
    return f"{invoice.status}, {total} of {day(created_at)}{owed}"


def day(epoch_s: int) -> str:
    """`2026-11-21`, UTC."""
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%d")
