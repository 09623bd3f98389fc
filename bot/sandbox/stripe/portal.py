"""Hosted pages: portal and checkout sessions that have a URL and nothing behind it."""

from __future__ import annotations

from bot.sandbox.stripe.customers import living
from bot.sandbox.stripe.errors import Obj, invalid
from bot.sandbox.stripe.registry import Call, merge_metadata, operation
from bot.sandbox.stripe.world import DAY_S


@operation(
    "POST", "/v1/billing_portal/sessions", "billing_portal.SessionCreateParams",
    "customer return_url",
)  # fmt: skip
def portal(call: Call) -> Obj:
    """A customer portal session."""
    world = call.world
    if not call.get("customer"):
        raise invalid(
            "Missing required param: customer.", param="customer", code="parameter_missing"
        )
    customer = living(world, call.params["customer"])
    session_id = world.new_id("bps")
    return world.add(
        {
            "id": session_id,
            "object": "billing_portal.session",
            "configuration": world.settings.account_id.replace("acct", "bpc"),
            "created": world.now(),
            "customer": customer["id"],
            "flow": None,
            "livemode": False,
            "locale": None,
            "on_behalf_of": None,
            "return_url": call.get("return_url"),
            "url": f"https://billing.stripe.com/p/session/{session_id}",
        }
    )


@operation(
    "POST",
    "/v1/checkout/sessions",
    "checkout.SessionCreateParams",
    "cancel_url client_reference_id currency customer metadata mode return_url success_url",
)
def checkout(call: Call) -> Obj:
    """A set-up session, where a tenant would leave a card."""
    world = call.world
    if call.get("mode") != "setup":
        raise invalid("Only mode=setup exists here.", param="mode")
    customer = call.get("customer")
    if customer:
        living(world, customer)
    session_id = world.new_id("cs_test", 58)
    return world.add(
        {
            "id": session_id,
            "object": "checkout.session",
            "automatic_tax": {
                "enabled": False,
                "liability": None,
                "provider": None,
                "status": None,
            },
            "cancel_url": call.get("cancel_url"),
            "client_reference_id": call.get("client_reference_id"),
            "created": world.now(),
            "currency": call.get("currency"),
            "custom_fields": [],
            "custom_text": {
                "after_submit": None,
                "shipping_address": None,
                "submit": None,
                "terms_of_service_acceptance": None,
            },
            "customer": customer,
            "expires_at": world.now() + DAY_S,
            "livemode": False,
            "metadata": merge_metadata(None, call.get("metadata")),
            "mode": "setup",
            "payment_intent": None,
            "payment_method_types": ["card"],
            "payment_status": "no_payment_required",
            "setup_intent": None,
            "shipping_options": [],
            "status": "open",
            "success_url": call.get("success_url"),
            "url": f"https://checkout.stripe.com/c/pay/{session_id}",
        }
    )
