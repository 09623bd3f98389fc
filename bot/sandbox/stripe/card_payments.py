"""Card payments of invoices: payment intents, invoice payments, attempts, retries."""

from __future__ import annotations

from bot.sandbox.stripe import payment_methods as pm
from bot.sandbox.stripe.errors import Obj, StripeError, card, invalid
from bot.sandbox.stripe.world import DAY_S, World, view

NO_SOURCE = (
    "This customer has no attached payment source or default payment method. Please consider "
    "adding a default payment method."
)
_OVER = ("succeeded", "canceled")


def open_for(world: World, invoice: Obj) -> Obj:
    """The intent that a finalized invoice carries, and the invoice payment that links them."""
    source = default_method(world, invoice)
    intent = world.add(
        {
            "id": world.new_id("pi"),
            "object": "payment_intent",
            "amount": invoice["amount_due"],
            "amount_capturable": 0,
            "amount_received": 0,
            "application": None,
            "canceled_at": None,
            "cancellation_reason": None,
            "capture_method": "automatic",
            "client_secret": None,
            "confirmation_method": "automatic",
            "created": world.now(),
            "currency": invoice["currency"],
            "customer": invoice["customer"],
            "description": None,
            "last_payment_error": None,
            "latest_charge": None,
            "livemode": False,
            "metadata": {},
            "next_action": None,
            "on_behalf_of": None,
            "payment_method": source["id"] if source else None,
            "payment_method_types": ["card"],
            "processing": None,
            "receipt_email": None,
            "setup_future_usage": "off_session",
            "status": "requires_confirmation" if source else "requires_payment_method",
            "_invoice": invoice["id"],
        }
    )
    intent["client_secret"] = f"{intent['id']}_secret_{world.new_id('s', 24)[2:]}"
    payment = world.add(
        {
            "id": world.new_id("inpay"),
            "object": "invoice_payment",
            "amount_paid": None,
            "amount_requested": invoice["amount_due"],
            "created": world.now(),
            "currency": invoice["currency"],
            "invoice": invoice["id"],
            "is_default": True,
            "livemode": False,
            "payment": {"payment_intent": intent["id"], "type": "payment_intent"},
            "status": "open",
            "status_transitions": {"canceled_at": None, "paid_at": None},
        }
    )
    invoice["_payment"] = payment["id"]
    world.emit("payment_intent.created", intent)
    return intent


def payment_of(world: World, invoice: Obj) -> Obj | None:
    """The invoice payment that is its default, if the invoice was finalized with something due."""
    return world.table("invoice_payment").get(invoice.get("_payment") or "")


def intent_of(world: World, invoice: Obj) -> Obj | None:
    payment = payment_of(world, invoice)
    return world.get("payment_intent", payment["payment"]["payment_intent"]) if payment else None


def in_progress(world: World, invoice: Obj) -> bool:
    """A card payment whose outcome is not known yet."""
    intent = intent_of(world, invoice)
    return intent is not None and intent["status"] == "processing"


def cancel_for(world: World, invoice: Obj) -> None:
    """The invoice ended otherwise: its intent is canceled."""
    payment, intent = payment_of(world, invoice), intent_of(world, invoice)
    if payment is None or intent is None or intent["status"] in _OVER:
        return
    intent.update(status="canceled", canceled_at=world.now(), cancellation_reason="void_invoice")
    payment["status"] = "canceled"
    payment["status_transitions"]["canceled_at"] = world.now()
    world.emit("payment_intent.canceled", intent)


def default_method(world: World, invoice: Obj) -> Obj | None:
    """The card Stripe would charge: the invoice's, the subscription's, the customer's."""
    from bot.sandbox.stripe.subscription_status import subscription_of

    sub = subscription_of(world, invoice)
    customer = world.get("customer", invoice["customer"])
    names = (
        invoice["default_payment_method"],
        sub["default_payment_method"] if sub else None,
        (customer.get("invoice_settings") or {}).get("default_payment_method"),
    )
    found = next((n for n in names if n), None)
    return world.table("payment_method").get(found) if found else None


def attempt(
    world: World, invoice: Obj, method: Obj | None = None, *, automatic: bool
) -> StripeError | None:
    """Try to charge an open invoice; None when it is paid or in progress, else the refusal.

    A refusal is recorded on the invoice and told as `invoice.payment_failed`.
    """
    from bot.sandbox.stripe.invoice_flow import mark_paid

    intent = intent_of(world, invoice) or open_for(world, invoice)
    source = method or default_method(world, invoice)
    first = not invoice["attempted"]
    invoice["attempted"] = True
    if first or automatic:
        invoice["attempt_count"] += 1
    if source is None:
        _failed(world, invoice, automatic)
        return invalid(NO_SOURCE, code="resource_missing")
    intent["payment_method"] = source["id"]
    behaviour = source["_behaviour"]
    if behaviour == pm.OK:
        settle_intent(world, intent)
        mark_paid(world, invoice)
        return None
    if behaviour == pm.PROCESSING:
        intent["status"] = "processing"
        world.emit("payment_intent.processing", intent)
        return None
    error = _refusal(world, intent, source, behaviour)
    _failed(world, invoice, automatic, action=behaviour == pm.ACTION)
    return error


def settle_intent(world: World, intent: Obj) -> None:
    """The money moved."""
    intent.update(
        status="succeeded",
        amount_received=intent["amount"],
        last_payment_error=None,
        next_action=None,
    )
    payment = payment_of(world, world.get("invoice", intent["_invoice"]))
    if payment is not None:
        payment.update(status="paid", amount_paid=payment["amount_requested"])
        payment["status_transitions"]["paid_at"] = world.now()
        world.emit("invoice_payment.paid", payment)
    world.emit("payment_intent.succeeded", intent)


def _refusal(world: World, intent: Obj, source: Obj, behaviour: str) -> StripeError:
    if behaviour == pm.ACTION:
        intent["status"] = "requires_action"
        intent["next_action"] = {"type": "use_stripe_sdk", "use_stripe_sdk": {}}
        world.emit("payment_intent.requires_action", intent)
        return card(
            "invoice_payment_intent_requires_action",
            "This payment requires additional user action before it can be completed.",
            None,
        )
    code, message, decline = pm.DECLINES[behaviour]
    intent["status"] = "requires_payment_method"
    intent["last_payment_error"] = {
        "code": code,
        "decline_code": decline,
        "message": message,
        "payment_method": view(world, source),
        "type": "card_error",
    }
    world.emit("payment_intent.payment_failed", intent)
    return card(code, message, decline, {"payment_intent": view(world, intent)})


def _failed(world: World, invoice: Obj, automatic: bool, *, action: bool = False) -> None:
    from bot.sandbox.stripe import subscription_status
    from bot.sandbox.stripe.invoice_flow import plan_attempt

    days = world.settings.retry_days
    tried = invoice["attempt_count"]
    exhausted = tried > len(days)
    # A manual attempt after the first leaves the schedule as it is.
    if automatic or tried == 1:
        again = invoice["auto_advance"] and not exhausted
        plan_attempt(world, invoice, world.now() + days[tried - 1] * DAY_S if again else None)
    if action:
        world.emit("invoice.payment_action_required", invoice)
    world.emit("invoice.payment_failed", invoice)
    subscription_status.payment_failed(world, invoice)
    if exhausted and automatic:
        invoice["auto_advance"] = False
        subscription_status.gave_up(world, invoice)


def resolve(world: World, intent: Obj, *, succeed: bool) -> None:
    """End a payment that is in progress (a sandbox control)."""
    from bot.sandbox.stripe.invoice_flow import mark_paid

    if intent["status"] not in ("processing", "requires_action"):
        raise invalid(f"This PaymentIntent is {intent['status']}, nothing is in progress.")
    invoice = world.get("invoice", intent["_invoice"])
    if succeed:
        settle_intent(world, intent)
        if invoice["status"] in ("open", "uncollectible"):
            mark_paid(world, invoice)
        return
    intent["status"] = "requires_payment_method"
    world.emit("payment_intent.payment_failed", intent)
    _failed(world, invoice, automatic=False)
