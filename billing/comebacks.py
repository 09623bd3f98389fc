"""What a paid invoice owes for relays that did not run any more: the relay again, or its share.

A renewal may carry several relays, and one of them may have come to the end of the timeline on an
earlier invoice. Whoever pays the later one pays for that one too: money for nothing is never kept.
A renewal may also have the seat of a relay whose `stop` Stripe heard of too late.
"""

from __future__ import annotations

from typing import Final

from billing import lapses
from billing.model import HostedRelay, Invoice, RelayState
from billing.open_money import RENEWAL
from billing.refunds import RefundWay
from billing.store import invoices, refunds, tenants
from billing.unit import Unit
from billing.views import InvoiceView

WORTH_IT_S: Final = lapses.LAST_HOUR_S
"""A relay is not brought back for less than that of paid time: its share is worth more."""

ORDER_LIVES_S: Final = 2 * 86_400
"""An order that was given up keeps its seat no longer than this: 23 h, and its requests' death."""
SAME_MOMENT_S: Final = 60
"""A stop is dated by the end of the period that Stripe names; seconds lie between two readings."""


async def come_back(unit: Unit, invoice: Invoice, view: InvoiceView) -> list[HostedRelay]:
    """Once, when it is seen paid. Returns the relays that come up again: to the end of what is
    paid, and not renewed unless their tenant says `resume`, since the subscription may be over, or
    has no seat for them. Where the name is taken, or that time is over, the share is credit."""
    back: list[HostedRelay] = []
    lost: list[HostedRelay] = []
    for relay in await invoices.relays_of(unit.tx, invoice.id):
        if not _ended_unasked(relay) or invoice.billing_reason != RENEWAL:
            continue
        if await _can_run(unit, relay, view) and await _bring_back(unit, relay, invoice):
            back.append(relay)
        else:
            lost.append(relay)
    lost += await _stopped_too_late(unit, invoice, view)
    if lost:
        await give_share(unit, invoice, lost)
    return back


async def _stopped_too_late(unit: Unit, invoice: Invoice, view: InvoiceView) -> list[HostedRelay]:
    """Relays whose stop took effect where this renewal begins, and whose seat it has all the same:
    it carries them, or it has more seats than it carries relays, for which the cheapest count."""
    if invoice.billing_reason != RENEWAL:
        return []
    carried = await invoices.relays_of(unit.tx, invoice.id)
    linked = {relay.id for relay in carried}
    found: list[HostedRelay] = []
    unlinked: list[HostedRelay] = []
    left = (view.seats or 0) - len(carried)
    for relay in await tenants.relays_of(unit.tx, invoice.tenant):
        if relay.plan not in unit.prices:
            continue
        if _stops_with(relay, invoice.period_end):
            (found if relay.id in linked else unlinked).append(relay)
        elif relay.id not in linked and await _may_have_seat(unit, relay, invoice):
            left -= 1
    unlinked.sort(key=lambda relay: unit.prices[relay.plan])
    return found + unlinked[: max(0, left)]


async def _may_have_seat(unit: Unit, relay: HostedRelay, renewal: Invoice) -> bool:
    """It was on an invoice by then, as an addition that waits for payment is: a seat that nobody
    else accounts for may be its own, and is not taken for another's."""
    carriers = await invoices.of_relay(unit.tx, relay.id)
    by_then = [c.created_at for c in carriers if c.created_at <= renewal.created_at]
    since = renewal.created_at - ORDER_LIVES_S if relay.state is RelayState.ENDED else 0
    return bool(by_then) and max(by_then) >= since


def _stops_with(relay: HostedRelay, period_end: int) -> bool:
    """Its tenant had it run to the end of that period, and no longer."""
    is_stopped = relay.stop_requested_at is not None and relay.lapses_at is None
    if not is_stopped or relay.activated_at is None or relay.stops_at is None:
        return False
    return abs(relay.stops_at - period_end) <= SAME_MOMENT_S


def _ended_unasked(relay: HostedRelay) -> bool:
    """It was up once, and it was not its tenant who stopped it."""
    is_stopped = relay.stop_requested_at is not None and relay.lapses_at is None
    return relay.state is RelayState.ENDED and relay.activated_at is not None and not is_stopped


async def _can_run(unit: Unit, relay: HostedRelay, view: InvoiceView) -> bool:
    """Its host keeps what it stored under its name; there is something left of what was paid."""
    if view.covers_until is None or view.covers_until <= unit.billing_now + WORTH_IT_S:
        return False
    return await tenants.living_relay_named(unit.tx, relay.name) is None


async def _bring_back(unit: Unit, relay: HostedRelay, invoice: Invoice) -> bool:
    facts = {"was": relay.state.value, "invoice": invoice.id}
    if not await tenants.move(unit, relay, RelayState.ACTIVE, **facts):
        return False
    # A date that it had before is of a time that is over; the new one follows from the invoice.
    await unit.tx.execute("relays.keep", id=relay.id)
    await lapses.request_lapse(unit, relay, None, "it had ended before it was paid")
    return True


async def give_share(unit: Unit, invoice: Invoice, relays: list[HostedRelay]) -> None:
    """What was paid for these relays becomes credit, once for an invoice: the intent is stored
    here, the desk's worker carries it out and tells (M1, M10)."""
    # The beginning keeps it out of the index by which an operator's credits come one at a time.
    refund_id = f"ref_unused_{invoice.id}"
    carried = {relay.id: relay for relay in await invoices.relays_of(unit.tx, invoice.id)}
    carried |= {relay.id: relay for relay in relays}
    amount_minor = share_minor(unit, invoice, list(carried.values()), relays)
    if amount_minor <= 0 or await refunds.get(unit.tx, refund_id) is not None:
        return
    tenant = await tenants.get(unit.tx, invoice.tenant)
    names = [relay.name for relay in relays]
    has_customer = tenant is not None and tenant.customer_id is not None
    if has_customer:
        await refunds.insert(
            unit.tx,
            refund_id=refund_id,
            tenant=invoice.tenant,
            invoice_id=None,
            way=RefundWay.BALANCE,
            amount_minor=amount_minor,
            currency=invoice.currency,
            reason=f"{', '.join(names)} did not run when {invoice.id} was paid"[:300],
            # Named after the invoice: another life of this database gives it once (M11).
            operation_id=f"op_unused_{invoice.id}",
            note_operation_id=None,
            amount_msat=None,
            rate=None,
            now=unit.now,
        )
    await unit.record(
        "refund.pending" if has_customer else "share.owed",
        tenant=invoice.tenant,
        subject=refund_id,
        invoice=invoice.id,
        relays=names,
        amount_minor=amount_minor,
        currency=invoice.currency,
    )
    await unit.say(
        f"invoice:{invoice.id}:unused",
        invoice.tenant,
        "paid_for_ended",
        relays=names,
        amount_minor=amount_minor,
        currency=invoice.currency,
        as_credit=has_customer,
    )


def share_minor(
    unit: Unit, invoice: Invoice, carried: list[HostedRelay], relays: list[HostedRelay]
) -> int:
    """Their plans' prices, or in proportion where the invoice was over less than what it carries
    (a coupon); never more."""
    price = sum(unit.prices.get(relay.plan, 0) for relay in relays)
    whole = sum(unit.prices.get(relay.plan, 0) for relay in carried)
    if whole <= 0 or invoice.total_minor <= 0:
        return 0
    return min(price, price * invoice.total_minor // whole, invoice.total_minor)
