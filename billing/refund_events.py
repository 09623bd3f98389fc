"""What Stripe tells of money that went back: ours is hurried on, a hand's is taken up and told."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from billing.errors import StripeMissing
from billing.handling import Answer, Ignored
from billing.model import InboxEvent, Tenant
from billing.money import format_fiat
from billing.refund_end import end_refund, say_bounced
from billing.refunds import CAME_BACK, RefundSeen, RefundState
from billing.store import ledger, refunds
from billing.unit import Fact, Unit
from billing.views import CreditNoteView, DisputeView, RefundView

if TYPE_CHECKING:
    from billing.handlers import Handlers

Elsewhere: TypeAlias = RefundView | DisputeView | CreditNoteView
CLOSED = frozenset({"won", "lost", "warning_closed", "prevented"})


async def on_refund(handlers: Handlers, event: InboxEvent) -> Answer:
    """`refund.*`: by its id; one that no operation of ours made is never passed over (V2)."""
    assert event.object_id is not None
    try:
        view = await handlers.stripe.refund(event.object_id)
    except StripeMissing:
        return Ignored("the refund is gone")
    return await _take_up(handlers, [view])


async def on_charge_refunded(handlers: Handlers, event: InboxEvent) -> Answer:
    """`charge.refunded`: every refund of that charge."""
    assert event.object_id is not None
    return await _take_up(handlers, list(await handlers.stripe.refunds_of_charge(event.object_id)))


async def _take_up(handlers: Handlers, views: list[RefundView]) -> Answer:
    if not views:
        return Ignored("no refund stands behind it")
    found = [(view, await _tenant(handlers, view.customer_id)) for view in views]

    async def effect(unit: Unit) -> None:
        for view, tenant in found:
            ours = await refunds.by_stripe(unit.tx, view.id, view.operation_id)
            if ours is not None:
                await unit.tx.execute("refunds.look_now", id=ours.id, now=unit.now)
                if ours.state is RefundState.DONE and view.status in CAME_BACK:
                    problem = f"Stripe's refund {view.id} is {view.status}"
                    await end_refund(handlers.rt, unit, ours, RefundSeen.BOUNCED, problem=problem)
                continue
            await _by_hand(handlers, unit, view, tenant)

    return effect


async def _by_hand(handlers: Handlers, unit: Unit, view: RefundView, tenant: Tenant | None) -> None:
    came_back = view.status in CAME_BACK
    text = f"{_amount(view)} went back by card to {_who(tenant)} and Purser did not order it: "
    text += f"Stripe's refund {view.id} is {view.status}. What it can still give back is less by "
    text += "that."
    if came_back:
        text = f"{_amount(view)} did not reach the card of {_who(tenant)}: Stripe's refund "
        text += f"{view.id}, which Purser did not order, is {view.status}. The money is in your "
        text += "Stripe balance; give it back another way (purser refund, purser credit)."
    await _not_ours(
        handlers,
        unit,
        "refund.bounced" if came_back else "refund.elsewhere",
        view,
        tenant,
        key=f"refund_elsewhere:{view.id}:{view.status}",
        text=text,
        status=view.status,
    )
    if came_back:
        # Their customer may be deleted since: whose it was stands in the books.
        moved = (view.amount_minor, view.currency)
        booked_for = await ledger.post_bounced(unit, view.id, None, *moved)
        if booked_for is not None:
            await say_bounced(unit, view.id, booked_for, *moved)
    if tenant is not None and view.status == "succeeded":
        await _card_paid_back(unit, view, tenant, "refund", f"refund:{view.id}")


async def on_dispute(handlers: Handlers, event: InboxEvent) -> Answer:
    """`charge.dispute.*`: operators hear of the opening, with its last day, and of the end."""
    assert event.object_id is not None
    try:
        view = await handlers.stripe.dispute(event.object_id)
    except StripeMissing:
        return Ignored("the dispute is gone")
    tenant = await _tenant(handlers, view.customer_id)

    async def effect(unit: Unit) -> None:
        await _not_ours(
            handlers,
            unit,
            "dispute." + ("closed" if view.status in CLOSED else "open"),
            view,
            tenant,
            key=f"dispute:{view.id}:{view.status}",
            text=_dispute_text(view, tenant, unit.billing_now),
            status=view.status,
            reason=view.reason,
        )
        if tenant is not None and view.status == "lost":
            await _card_paid_back(unit, view, tenant, "dispute", f"dispute:{view.id}:lost")

    return effect


def _dispute_text(view: DisputeView, tenant: Tenant | None, now: int) -> str:
    text = (
        f"Dispute {view.id} of {_who(tenant)} over {_amount(view)} ({view.reason}) is "
        f"{view.status}."
    )
    if view.status in CLOSED:
        return text
    if view.evidence_due_at is not None:
        days = max(0, (view.evidence_due_at - now) // 86_400)
        text += f" Answer it at Stripe within {days} days."
    return f"{text} Its relays go on: Purser does not cut off over a dispute."


async def on_credit_note(handlers: Handlers, event: InboxEvent) -> Answer:
    """`credit_note.*`: written by hand, it is money given back that we must not give again."""
    assert event.object_id is not None
    try:
        view = await handlers.stripe.credit_note(event.object_id)
    except StripeMissing:
        return Ignored("the credit note is gone")
    tenant = await _tenant(handlers, view.customer_id)

    async def effect(unit: Unit) -> None:
        ours = await refunds.by_stripe(unit.tx, view.id, view.operation_id)
        if ours is not None:
            await unit.tx.execute("refunds.look_now", id=ours.id, now=unit.now)
            return
        await _not_ours(
            handlers,
            unit,
            "credit_note.elsewhere",
            view,
            tenant,
            key=f"note_elsewhere:{view.id}:{view.is_issued}",
            text=f"Credit note {view.id} over {_amount(view)} on invoice {view.invoice_id} was "
            f"{'written' if view.is_issued else 'voided'} at Stripe by hand. "
            "Purser's own refunds of that invoice count it.",
            invoice=view.invoice_id,
            issued=view.is_issued,
        )

    return effect


async def _not_ours(
    handlers: Handlers,
    unit: Unit,
    kind: str,
    view: Elsewhere,
    tenant: Tenant | None,
    *,
    key: str,
    text: str,
    **facts: Fact,
) -> None:
    """What others did with money at Stripe: one audit line, and operators hear of it (C20, V2)."""
    await unit.record(
        kind,
        tenant=None if tenant is None else tenant.pubkey,
        subject=view.id,
        amount_minor=view.amount_minor,
        currency=view.currency,
        **facts,
    )
    await handlers.rt.alarm(unit, key, text)


async def _card_paid_back(
    unit: Unit, view: RefundView | DisputeView, tenant: Tenant, how: str, key: str
) -> None:
    """Stripe took it from the operator's account, whoever ordered it; its tenant is told."""
    await ledger.post_refund(
        unit, view.id, tenant.pubkey, None, "card", view.amount_minor, view.currency
    )
    await unit.say(
        key,
        tenant.pubkey,
        "money_back",
        how=how,
        amount_minor=view.amount_minor,
        currency=view.currency,
    )


def _amount(view: Elsewhere) -> str:
    return format_fiat(view.amount_minor, view.currency)


def _who(tenant: Tenant | None) -> str:
    return f"tenant {tenant.pubkey[:16]}…" if tenant is not None else "nobody known here"


async def _tenant(handlers: Handlers, customer_id: str | None) -> Tenant | None:
    return await handlers.tenant_of(customer_id) if customer_id else None
