"""Hosted pages: portal and checkout sessions, and what a person does on them.

There is no page: a `POST` of `{"card": "visa"}` to the link of a session is the person who types
that test card in (`complete`).
"""

from __future__ import annotations

from bot.sandbox.stripe.customers import living
from bot.sandbox.stripe.errors import Obj, invalid
from bot.sandbox.stripe.payment_methods import attach_to
from bot.sandbox.stripe.registry import Call, merge_metadata, operation
from bot.sandbox.stripe.world import DAY_S, World, view


@operation(
    "POST", "/v1/billing_portal/sessions", "billing_portal.SessionCreateParams",
    "customer flow_data return_url",
)  # fmt: skip
def portal(call: Call) -> Obj:
    """A customer portal session."""
    world = call.world
    if not call.get("customer"):
        raise invalid(
            "Missing required param: customer.", param="customer", code="parameter_missing"
        )
    customer = living(world, call.params["customer"])
    if not world.settings.portal_configured:
        raise invalid(
            "No configuration provided and your test mode default configuration has not been "
            "created. Provide a configuration or create your default by saving your customer "
            "portal settings in test mode."
        )
    flow = call.get("flow_data")
    session_id = world.new_id("bps")
    return world.add(
        {
            "id": session_id,
            "object": "billing_portal.session",
            "configuration": world.settings.account_id.replace("acct", "bpc"),
            "created": world.now(),
            "customer": customer["id"],
            "flow": None if flow is None else _flow(flow),
            "livemode": False,
            "locale": None,
            "on_behalf_of": None,
            "return_url": call.get("return_url"),
            "url": _link(world, "https://billing.stripe.com/p/session", session_id),
        }
    )


def _flow(flow: Obj) -> Obj:
    if flow.get("type") != "payment_method_update":
        raise invalid("Only the flow payment_method_update exists here.", param="flow_data[type]")
    return {
        "after_completion": {
            "hosted_confirmation": None,
            "redirect": None,
            "type": "portal_homepage",
        },
        "subscription_cancel": None,
        "subscription_update": None,
        "subscription_update_confirm": None,
        "type": "payment_method_update",
    }


def _link(world: World, page: str, session_id: str) -> str:
    """Stripe's own, or one that answers: see `complete`."""
    base = world.settings.pages_url
    return f"{base}/sandbox/pages/{session_id}" if base else f"{page}/{session_id}"


@operation(
    "POST",
    "/v1/checkout/sessions",
    "checkout.SessionCreateParams",
    "allowed_payment_method_types cancel_url client_reference_id currency customer metadata mode "
    "return_url success_url",
)
def checkout(call: Call) -> Obj:
    """A set-up session, where a tenant would leave a card."""
    world = call.world
    if call.get("mode") != "setup":
        raise invalid("Only mode=setup exists here.", param="mode")
    if not call.get("success_url"):
        raise invalid(
            "Missing required param: success_url.", param="success_url", code="parameter_missing"
        )
    if not call.get("currency") and not call.get("allowed_payment_method_types"):
        raise invalid(
            "Missing required param: currency.", param="currency", code="parameter_missing"
        )
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
            "url": _link(world, "https://checkout.stripe.com/c/pay", session_id),
        }
    )


@operation("GET", "/v1/checkout/sessions/{session}", "checkout.SessionRetrieveParams")
def retrieve(call: Call) -> Obj:
    """One session; `expand[]=setup_intent` shows which payment method was left."""
    return call.world.get("checkout.session", call.ids["session"], "session")


@operation("GET", "/v1/setup_intents/{intent}", "SetupIntentRetrieveParams")
def retrieve_setup_intent(call: Call) -> Obj:
    """One set-up intent."""
    return call.world.get("setup_intent", call.ids["intent"], "intent")


def complete(world: World, session_id: str, card: str) -> Obj:
    """A person leaves the test card `card` (as in `pm_card_<card>`) on this page; returns it.

    Checkout attaches it and makes nothing the default; the portal makes it the default. Errors:
    400 when the session has ended, 402 when the card cannot be attached.
    """
    session = world.by_id.get(session_id)
    if session is None or session["object"] not in ("checkout.session", "billing_portal.session"):
        raise invalid("There is no such page.", param="session", status=404)
    customer = living(world, session["customer"])
    is_checkout = session["object"] == "checkout.session"
    if is_checkout and (session["status"] != "open" or session["expires_at"] <= world.now()):
        raise invalid("This page has expired or was used.", param="session")
    method = attach_to(world, f"pm_card_{card}", customer)
    if is_checkout:
        intent = _setup_intent(world, customer["id"], method["id"])
        session["status"], session["setup_intent"] = "complete", intent["id"]
        session["url"] = None
        world.emit("checkout.session.completed", session)
    else:
        before = view(world, customer)
        customer["invoice_settings"]["default_payment_method"] = method["id"]
        world.emit_change("customer.updated", customer, before)
    return method


def _setup_intent(world: World, customer: str, method: str) -> Obj:
    intent = world.add(
        {
            "id": world.new_id("seti"),
            "object": "setup_intent",
            "created": world.now(),
            "customer": customer,
            "livemode": False,
            "metadata": {},
            "payment_method": method,
            "payment_method_types": ["card"],
            "status": "succeeded",
            "usage": "off_session",
        }
    )
    world.emit("setup_intent.succeeded", intent)
    return intent
