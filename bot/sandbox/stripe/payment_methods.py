"""Payment methods: test cards that pay, decline, ask the customer, or stay in progress."""

from __future__ import annotations

from bot.sandbox.stripe.errors import Obj, card, invalid
from bot.sandbox.stripe.registry import Call, merge_metadata, operation, page
from bot.sandbox.stripe.world import World, view

OK, DECLINE, NO_FUNDS, EXPIRED, ACTION, PROCESSING = (
    "ok",
    "decline",
    "insufficient_funds",
    "expired_card",
    "requires_action",
    "processing",
)
BEHAVIOURS = (OK, DECLINE, NO_FUNDS, EXPIRED, ACTION, PROCESSING)

# docs.stripe.com/testing: token → brand, last four, behaviour, attaching fails.
_TOKENS: dict[str, tuple[str, str, str, bool]] = {
    "visa": ("visa", "4242", OK, False),
    "mastercard": ("mastercard", "4444", OK, False),
    "amex": ("amex", "8431", OK, False),
    "chargeCustomerFail": ("visa", "0341", DECLINE, False),
    "chargeDeclined": ("visa", "0002", DECLINE, True),
    "visa_chargeDeclined": ("visa", "0002", DECLINE, True),
    "visa_chargeDeclinedInsufficientFunds": ("visa", "9995", NO_FUNDS, True),
    "chargeDeclinedExpiredCard": ("visa", "0069", EXPIRED, True),
    "authenticationRequired": ("visa", "3184", ACTION, False),
}
DECLINES: dict[str, tuple[str, str, str | None]] = {
    DECLINE: ("card_declined", "Your card was declined.", "generic_decline"),
    NO_FUNDS: ("card_declined", "Your card has insufficient funds.", "insufficient_funds"),
    EXPIRED: ("expired_card", "Your card has expired.", None),
}


def _known(name: str) -> tuple[str, str, str, bool] | None:
    for prefix in ("pm_card_", "tok_"):
        if name.startswith(prefix):
            return _TOKENS.get(name[len(prefix) :])
    return None


def _make(world: World, known: tuple[str, str, str, bool]) -> Obj:
    brand, last4, behaviour, refuses = known
    nobody = {"address": None, "email": None, "name": None, "phone": None, "tax_id": None}
    return world.add(
        {
            "id": world.new_id("pm"),
            "object": "payment_method",
            "allow_redisplay": "unspecified",
            "billing_details": nobody,
            "card": {
                "brand": brand,
                "checks": {
                    "address_line1_check": None,
                    "address_postal_code_check": None,
                    "cvc_check": "pass",
                },
                "country": "US",
                "display_brand": brand,
                "exp_month": 12,
                "exp_year": 2040,
                "fingerprint": world.new_id("f", 16)[2:],
                "funding": "credit",
                "generated_from": None,
                "last4": last4,
                "networks": {"available": [brand], "preferred": None},
                "three_d_secure_usage": {"supported": True},
                "wallet": None,
            },
            "created": world.now(),
            "customer": None,
            "livemode": False,
            "metadata": {},
            "type": "card",
            "_behaviour": behaviour,
            "_refuses": refuses,
        }
    )


def usable(world: World, name: str, customer: Obj, param: str = "payment_method") -> Obj:
    """A method attached to this customer. Errors: 400 when missing or somebody else's."""
    known = _known(name)
    method = None if known else world.get("payment_method", name, param, status=400)
    if method is None or method["customer"] != customer["id"]:
        raise invalid(
            f"The customer does not have a payment method with the ID {name[:80]}. "
            "The payment method must be attached to the customer.",
            param=param,
            code="resource_missing",
        )
    return method


def attachable(world: World, name: str) -> None:
    """Errors: 402 or 400 when `attach_to` a new customer would fail; nothing is written."""
    known = _known(name)
    if known:
        if known[3]:
            raise declined(known[2])
        return
    method = world.get("payment_method", name, "payment_method", status=400)
    if method["_refuses"]:
        raise declined(method["_behaviour"])
    if method["customer"] is not None:
        raise _taken()


def _taken() -> Exception:
    return invalid(
        "The payment method you provided has already been attached to a customer.",
        param="payment_method",
    )


def declined(behaviour: str) -> Exception:
    """The 402 of a card that declines."""
    code, message, decline = DECLINES[behaviour]
    return card(code, message, decline)


def attach_to(world: World, name: str, customer: Obj) -> Obj:
    """Attach a method, or what a test token stands for, to a customer."""
    known = _known(name)
    method = _make(world, known) if known else world.get("payment_method", name, "payment_method")
    if method["_refuses"]:
        if known:
            world.remove(method)
        raise declined(method["_behaviour"])
    if method["customer"] not in (None, customer["id"]):
        raise _taken()
    method["customer"] = customer["id"]
    world.emit("payment_method.attached", method)
    return method


@operation("POST", "/v1/payment_methods", "PaymentMethodCreateParams", "type card metadata")
def create(call: Call) -> Obj:
    """A card from a test token (`card[token]=tok_visa`) or the test number 4242…"""
    given = call.get("card") or {}
    token = given.get("token") or "tok_visa"
    known = _known(token)
    if call.get("type") != "card" or known is None:
        raise invalid("Only test cards exist here.", param="type")
    metadata = merge_metadata(None, call.get("metadata"))
    method = _make(call.world, known)
    method["metadata"] = metadata
    return method


@operation("GET", "/v1/payment_methods/{payment_method}", "PaymentMethodRetrieveParams")
def retrieve(call: Call) -> Obj:
    """One method."""
    return call.world.get("payment_method", call.ids["payment_method"], "payment_method")


@operation("POST", "/v1/payment_methods/{payment_method}", "PaymentMethodUpdateParams", "metadata")
def update(call: Call) -> Obj:
    """Only metadata."""
    method = retrieve(call)
    before = view(call.world, method)
    method["metadata"] = merge_metadata(method["metadata"], call.get("metadata"))
    call.world.emit_change("payment_method.updated", method, before)
    return method


@operation(
    "POST", "/v1/payment_methods/{payment_method}/attach", "PaymentMethodAttachParams", "customer"
)
def attach(call: Call) -> Obj:
    """Errors: 402 for cards that decline when attached."""
    from bot.sandbox.stripe.customers import living

    wanted = call.get("customer")
    if not wanted:
        raise invalid(
            "Missing required param: customer.", param="customer", code="parameter_missing"
        )
    return attach_to(call.world, call.ids["payment_method"], living(call.world, wanted))


@operation("POST", "/v1/payment_methods/{payment_method}/detach", "PaymentMethodDetachParams")
def detach(call: Call) -> Obj:
    """Forgets the customer, and every default that named it."""
    world = call.world
    method = retrieve(call)
    if method["customer"] is None:
        raise invalid("The payment method you provided is not attached to a customer.")
    customer = world.get("customer", method["customer"])
    before = view(world, customer)
    former = {"customer": method["customer"]}
    method["customer"] = None
    method["_refuses"] = False
    world.emit("payment_method.detached", method, former)
    settings = customer.get("invoice_settings")
    if settings and settings["default_payment_method"] == method["id"]:
        settings["default_payment_method"] = None
        world.emit_change("customer.updated", customer, before)
    for sub in world.table("subscription").values():
        if sub["default_payment_method"] == method["id"]:
            sub["default_payment_method"] = None
    return method


@operation("GET", "/v1/payment_methods", "PaymentMethodListParams", "customer type", listing=True)
def list_all(call: Call) -> Obj:
    """Those of a customer."""
    return page(call, _of(call, call.get("customer")))


@operation(
    "GET", "/v1/customers/{customer}/payment_methods", "CustomerPaymentMethodListParams", "type",
    listing=True,
)  # fmt: skip
def list_of_customer(call: Call) -> Obj:
    """Those of the customer in the path."""
    call.world.get("customer", call.ids["customer"])
    return page(call, _of(call, call.ids["customer"]))


def _of(call: Call, customer: str | None) -> list[Obj]:
    kind = call.get("type")
    return [
        m
        for m in call.world.newest("payment_method")
        if m["customer"] is not None
        and customer in (None, m["customer"])
        and kind in (None, m["type"])
    ]
