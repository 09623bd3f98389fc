"""The customer's balance: negative is credit, every change is a transaction."""

from __future__ import annotations

from bot.sandbox.stripe.errors import Obj, invalid
from bot.sandbox.stripe.registry import Call, merge_metadata, operation, page, within
from bot.sandbox.stripe.world import World, view

_BASE = "/v1/customers/{customer}/balance_transactions"


def adjust(
    world: World,
    customer: Obj,
    amount: int,
    currency: str,
    kind: str,
    *,
    invoice: str | None = None,
    credit_note: str | None = None,
    description: str | None = None,
    metadata: Obj | None = None,
) -> Obj:
    """Add `amount` minor units to the balance and record the transaction."""
    from bot.sandbox.stripe.customers import settle_currency

    settle_currency(customer, currency)
    before = view(world, customer)
    customer["currency"] = currency
    customer["balance"] += amount
    transaction = world.add(
        {
            "id": world.new_id("cbtxn"),
            "object": "customer_balance_transaction",
            "amount": amount,
            "checkout_session": None,
            "created": world.now(),
            "credit_note": credit_note,
            "currency": currency,
            "customer": customer["id"],
            "description": description,
            "ending_balance": customer["balance"],
            "invoice": invoice,
            "livemode": False,
            "metadata": metadata or {},
            "type": kind,
        }
    )
    world.emit_change("customer.updated", customer, before)
    return transaction


@operation(
    "POST",
    _BASE,
    "CustomerBalanceTransactionCreateParams",
    "amount currency description metadata",
)
def create(call: Call) -> Obj:
    """An adjustment; negative gives credit."""
    from bot.sandbox.stripe.customers import check_currency, living

    customer = living(call.world, call.ids["customer"], "id", 404)
    currency = check_currency(call.params["currency"])
    metadata = merge_metadata(None, call.get("metadata"))
    if call.params["amount"] == 0:
        raise invalid("The amount must not be zero.", param="amount")
    return adjust(
        call.world,
        customer,
        call.params["amount"],
        currency,
        "adjustment",
        description=call.get("description"),
        metadata=metadata,
    )


@operation("GET", _BASE + "/{transaction}", "CustomerBalanceTransactionRetrieveParams")
def retrieve(call: Call) -> Obj:
    """One transaction of this customer."""
    found = call.world.get("customer_balance_transaction", call.ids["transaction"])
    if found["customer"] != call.ids["customer"]:
        return call.world.get("customer_balance_transaction", "", "id")
    return found


@operation(
    "POST",
    _BASE + "/{transaction}",
    "CustomerBalanceTransactionUpdateParams",
    "description metadata",
)
def update(call: Call) -> Obj:
    """Only description and metadata can change."""
    found = retrieve(call)
    found["metadata"] = merge_metadata(found["metadata"], call.get("metadata"))
    if "description" in call.params:
        found["description"] = call.params["description"] or None
    return found


@operation("GET", _BASE, "CustomerBalanceTransactionListParams", "created invoice", listing=True)
def list_all(call: Call) -> Obj:
    """Newest first."""
    call.world.get("customer", call.ids["customer"])
    return page(
        call,
        (
            t
            for t in call.world.newest("customer_balance_transaction")
            if t["customer"] == call.ids["customer"]
            and call.get("invoice") in (None, t["invoice"])
            and within(t["created"], call.get("created"))
        ),
    )
