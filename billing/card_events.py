"""Payment methods come, change and go, and somebody leaves a card at Checkout: a look is wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing.errors import StripeMissing
from billing.handling import Answer, Ignored, customer_in
from billing.model import InboxEvent, Tenant
from billing.store import cards
from billing.unit import Unit

if TYPE_CHECKING:
    from billing.handlers import Handlers


async def on_payment_method(handlers: Handlers, event: InboxEvent) -> Answer:
    """`payment_method.attached`, `.updated`: as it is now, whoever it belongs to now."""
    assert event.object_id is not None
    try:
        method = await handlers.stripe.payment_method(event.object_id)
    except StripeMissing:
        return Ignored("the payment method is gone")
    if method.customer_id is None:
        return Ignored("it is attached to nobody any more")
    return await _look_at(handlers, method.customer_id)


async def on_detached(handlers: Handlers, event: InboxEvent) -> Answer:
    """`payment_method.detached`: whose it was stands in the event alone; what they have left is
    asked of Stripe."""
    customer_id = customer_in(event)
    return (
        Ignored("it was nobody's") if customer_id is None else await _look_at(handlers, customer_id)
    )


async def _look_at(handlers: Handlers, customer_id: str) -> Answer:
    tenant = await handlers.owner_of(customer_id)
    if not isinstance(tenant, Tenant):
        return tenant

    async def effect(unit: Unit) -> None:
        await cards.want_look(unit.tx, tenant.pubkey, due_at=unit.now)

    return effect


async def on_checkout(handlers: Handlers, event: InboxEvent) -> Answer:
    """`checkout.session.completed` of a page of ours: the card left there becomes the default.

    Once for each page: replayed after a year, it must not bring an old card back (M14).
    """
    assert event.object_id is not None
    try:
        session = await handlers.stripe.checkout(event.object_id)
    except StripeMissing:
        return Ignored("the session is gone")
    if session.mode != "setup" or not session.is_complete or session.customer_id is None:
        return Ignored("no card was left there")
    tenant = await handlers.owner_of(session.customer_id)
    if not isinstance(tenant, Tenant):
        return tenant

    async def effect(unit: Unit) -> None:
        await cards.want_look(unit.tx, tenant.pubkey, due_at=unit.now)
        page = await cards.page_of_session(unit.tx, session.id)
        if page is None or session.payment_method_id is None:
            # Of another life of this database, or the operator's: it counts where there is none.
            return
        if await unit.tx.execute("cards.page_completed", id=page.id):
            await unit.tx.execute(
                "cards.want_default",
                tenant=tenant.pubkey,
                method_id=session.payment_method_id,
            )
            await unit.record("card.left", tenant=tenant.pubkey, subject=session.payment_method_id)

    return effect
