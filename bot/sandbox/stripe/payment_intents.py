"""Payment intents, for reading: whether a card payment is in progress."""

from __future__ import annotations

from bot.sandbox.stripe.errors import Obj
from bot.sandbox.stripe.registry import Call, operation, page, within


@operation("GET", "/v1/payment_intents/{intent}", "PaymentIntentRetrieveParams")
def retrieve(call: Call) -> Obj:
    """One intent."""
    return call.world.get("payment_intent", call.ids["intent"], "intent")


@operation(
    "GET", "/v1/payment_intents", "PaymentIntentListParams", "created customer", listing=True
)
def list_all(call: Call) -> Obj:
    """Newest first."""
    return page(
        call,
        (
            i
            for i in call.world.newest("payment_intent")
            if call.get("customer") in (None, i["customer"])
            and within(i["created"], call.get("created"))
        ),
    )
