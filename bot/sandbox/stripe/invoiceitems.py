"""Invoice items: amounts waiting for an invoice, prorations among them."""

from __future__ import annotations

from bot.sandbox.stripe import invoice_flow, invoice_lines, money
from bot.sandbox.stripe.customers import check_currency, living
from bot.sandbox.stripe.errors import Obj, invalid
from bot.sandbox.stripe.registry import Call, merge_metadata, operation, page, within
from bot.sandbox.stripe.world import World


def build(
    world: World,
    *,
    customer: str,
    currency: str,
    amount: int,
    description: str | None,
    period: tuple[int, int],
    quantity: int = 1,
    pricing: Obj | None = None,
    parent: Obj | None = None,
    proration: bool = False,
    metadata: Obj | None = None,
) -> Obj:
    """An invoice item, not stored (previews use it as it is)."""
    return {
        "id": world.new_id("ii"),
        "object": "invoiceitem",
        "amount": amount,
        "currency": currency,
        "customer": customer,
        "date": world.now(),
        "description": description,
        "discountable": not proration,
        "discounts": [],
        "invoice": None,
        "livemode": False,
        "metadata": metadata or {},
        "net_amount": amount,
        "parent": parent,
        "period": {"start": period[0], "end": period[1]},
        "pricing": pricing,
        "proration": proration,
        "proration_details": {"discount_amounts": []} if proration else None,
        "quantity": quantity,
        "quantity_decimal": str(quantity),
        "tax_rates": [],
        "test_clock": None,
    }


def store(world: World, item: Obj) -> Obj:
    """Keep and tell a built item."""
    world.add(item)
    world.emit("invoiceitem.created", item)
    return item


@operation(
    "POST",
    "/v1/invoiceitems",
    "InvoiceItemCreateParams",
    "amount currency customer description discountable invoice metadata period pricing quantity "
    "subscription unit_amount_decimal",
)
def create(call: Call) -> Obj:
    """An amount, or a price times a quantity; onto a draft at once if one is named."""
    world = call.world
    if not call.get("customer"):
        raise invalid(
            "Missing required param: customer.", param="customer", code="parameter_missing"
        )
    customer = living(world, call.params["customer"])
    amount, currency, quantity, pricing = _money(call)
    target = _draft(call, customer)
    now = world.now()
    period = call.get("period") or {"start": now, "end": now}
    parent = None
    if call.get("subscription"):
        sub = world.get("subscription", call.params["subscription"], "subscription", status=400)
        parent = {
            "subscription_details": {"subscription": sub["id"]},
            "type": "subscription_details",
        }
    item = build(
        world,
        customer=customer["id"],
        currency=currency,
        amount=amount,
        description=call.get("description"),
        period=(period["start"], period["end"]),
        quantity=quantity,
        pricing=pricing,
        parent=parent,
        metadata=merge_metadata(None, call.get("metadata")),
    )
    item["discountable"] = call.get("discountable", True)
    store(world, item)
    if target is not None:
        invoice_lines.take(world, target, [item])
        invoice_flow.total_up(target)
        world.emit("invoice.updated", target, {})
    return item


def _money(call: Call) -> tuple[int, str, int, Obj | None]:
    quantity = call.get("quantity", 1)
    if quantity < 0:
        raise invalid("Invalid non-negative integer", param="quantity")
    named = (call.get("pricing") or {}).get("price")
    if named:
        price = call.world.get("price", named, "pricing[price]", status=400)
        if price["recurring"]:
            raise invalid(
                "The price specified is set to `type=recurring` but this field only accepts "
                "prices with `type=one_time`.",
                param="pricing[price]",
            )
        amount = money.times(price["unit_amount_decimal"], quantity)
        return amount, price["currency"], quantity, invoice_lines.pricing(price)
    if "amount" not in call.params and "unit_amount_decimal" not in call.params:
        raise invalid("Missing required param: amount.", param="amount", code="parameter_missing")
    if not call.get("currency"):
        raise invalid(
            "Missing required param: currency.", param="currency", code="parameter_missing"
        )
    currency = check_currency(call.params["currency"])
    if "amount" in call.params:
        return call.params["amount"], currency, quantity, None
    return money.times(call.params["unit_amount_decimal"], quantity), currency, quantity, None


def _draft(call: Call, customer: Obj) -> Obj | None:
    named = call.get("invoice")
    if not named:
        return None
    invoice = call.world.get("invoice", named, "invoice", status=400)
    if invoice["status"] != "draft" or invoice["customer"] != customer["id"]:
        raise invalid(
            "You can only add invoice items to draft invoices of the same customer.",
            param="invoice",
        )
    return invoice


@operation("GET", "/v1/invoiceitems/{invoiceitem}", "InvoiceItemRetrieveParams")
def retrieve(call: Call) -> Obj:
    """One item."""
    return call.world.get("invoiceitem", call.ids["invoiceitem"], "invoiceitem")


@operation(
    "GET",
    "/v1/invoiceitems",
    "InvoiceItemListParams",
    "created customer invoice pending",
    listing=True,
)
def list_all(call: Call) -> Obj:
    """`pending=true`: those not on any invoice."""
    pending = call.get("pending")
    return page(
        call,
        (
            i
            for i in call.world.newest("invoiceitem")
            if call.get("customer") in (None, i["customer"])
            and call.get("invoice") in (None, i["invoice"])
            and pending in (None, i["invoice"] is None)
            and within(i["date"], call.get("created"))
        ),
    )


@operation("DELETE", "/v1/invoiceitems/{invoiceitem}", "InvoiceItemDeleteParams")
def delete(call: Call) -> Obj:
    """Only while pending or on a draft."""
    world = call.world
    item = retrieve(call)
    invoice = world.table("invoice").get(item["invoice"] or "")
    if invoice is not None:
        if invoice["status"] != "draft":
            raise invalid("You cannot delete an invoice item of a finalized invoice.")
        invoice["_lines"] = [line for line in invoice["_lines"] if _source(line) != item["id"]]
        invoice_flow.total_up(invoice)
        world.emit("invoice.updated", invoice, {})
    world.remove(item)
    world.emit("invoiceitem.deleted", item)
    return {"id": item["id"], "object": "invoiceitem", "deleted": True}


def _source(line: Obj) -> str | None:
    parent = line["parent"]
    details = parent["invoice_item_details"] or parent["subscription_item_details"]
    source: str | None = details["invoice_item"]
    return source
