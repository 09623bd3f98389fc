"""Credit notes: less due on an open invoice, or money given back for a paid one."""

from __future__ import annotations

from bot.sandbox.stripe import invoice_flow
from bot.sandbox.stripe.balance import adjust
from bot.sandbox.stripe.errors import Obj, invalid
from bot.sandbox.stripe.registry import Call, merge_metadata, operation, page, within
from bot.sandbox.stripe.world import World, list_of, view, viewer


@viewer("credit_note")
def _view(_world: World, stored: Obj, shown: Obj) -> None:
    shown["lines"] = list_of([], f"/v1/credit_notes/{stored['id']}/lines")


@operation(
    "POST",
    "/v1/credit_notes",
    "CreditNoteCreateParams",
    "amount credit_amount invoice memo metadata out_of_band_amount reason refunds",
)
def create(call: Call) -> Obj:
    """On a paid invoice the parts must sum exactly; on an open one it reduces what is due."""
    world = call.world
    invoice = world.get("invoice", call.params["invoice"], "invoice", status=400)
    if invoice["status"] not in ("open", "paid", "uncollectible"):
        raise invalid(
            f"Credit notes need a finalized invoice; this one is {invoice['status']}.",
            param="invoice",
        )
    credit, outside = call.get("credit_amount", 0), call.get("out_of_band_amount", 0)
    refunds = _refunds(call)
    carded = sum(row["amount_refunded"] for row in refunds)
    amount = call.get("amount", credit + outside + carded)
    already = (
        invoice["pre_payment_credit_notes_amount"] + invoice["post_payment_credit_notes_amount"]
    )
    if min(credit, outside) < 0 or not 0 < amount <= invoice["total"] - already:
        raise invalid(
            "The credit note's amount must be positive and not exceed what the invoice has left.",
            param="amount",
        )
    paid = invoice["status"] == "paid"
    if paid and credit + outside + carded != amount:
        raise invalid(
            "The sum of refund, credit_amount and out_of_band_amount must equal the credit note "
            f"amount ({amount}); it is {credit + outside + carded}.",
            param="amount",
        )
    if not paid and (credit or outside or carded or amount > invoice["amount_remaining"]):
        raise invalid("An open invoice takes only `amount`, up to what remains.", param="amount")
    metadata = merge_metadata(None, call.get("metadata"))
    note = _note(call, invoice, amount, outside, metadata, paid)
    note["refunds"] = refunds
    world.add(note)
    if paid and credit:
        customer = world.get("customer", invoice["customer"])
        note["customer_balance_transaction"] = adjust(
            world, customer, -credit, invoice["currency"], "credit_note", credit_note=note["id"]
        )["id"]
    _apply(world, invoice, amount, paid)
    world.emit("credit_note.created", note)
    return note


def _refunds(call: Call) -> list[Obj]:
    """Refunds that exist and that no other credit note stands for."""
    rows = []
    for row in call.get("refunds", []):
        refund = call.world.get("refund", row["refund"], "refunds", status=400)
        taken = [r for n in call.world.table("credit_note").values() for r in n["refunds"]]
        if any(r["refund"] == refund["id"] for r in taken):
            raise invalid("This refund is already associated with a credit note.", param="refunds")
        rows.append(
            {
                "refund": refund["id"],
                "amount_refunded": int(row.get("amount_refunded", refund["amount"])),
                "payment_record_refund": None,
                "type": "refund",
            }
        )
    return rows


def _note(call: Call, invoice: Obj, amount: int, outside: int, metadata: Obj, paid: bool) -> Obj:
    world = call.world
    number = sum(1 for n in world.table("credit_note").values() if n["invoice"] == invoice["id"])
    return {
        "id": world.new_id("cn"),
        "object": "credit_note",
        "amount": amount,
        "amount_shipping": 0,
        "created": world.now(),
        "currency": invoice["currency"],
        "customer": invoice["customer"],
        "customer_balance_transaction": None,
        "discount_amount": 0,
        "discount_amounts": [],
        "effective_at": world.now(),
        "invoice": invoice["id"],
        "livemode": False,
        "memo": call.get("memo"),
        "metadata": metadata,
        "number": f"{invoice['number']}-CN-{number + 1:02d}",
        "out_of_band_amount": outside or None,
        "pdf": "https://pay.stripe.com/credit_notes/pdf",
        "post_payment_amount": amount if paid else 0,
        "pre_payment_amount": 0 if paid else amount,
        "pretax_credit_amounts": [],
        "reason": call.get("reason"),
        "refunds": [],
        "shipping_cost": None,
        "status": "issued",
        "subtotal": amount,
        "subtotal_excluding_tax": amount,
        "total": amount,
        "total_excluding_tax": amount,
        "total_taxes": [],
        "type": "post_payment" if paid else "pre_payment",
        "voided_at": None,
    }


def _apply(world: World, invoice: Obj, amount: int, paid: bool) -> None:
    before = view(world, invoice)
    if paid:
        invoice["post_payment_credit_notes_amount"] += amount
    else:
        invoice["pre_payment_credit_notes_amount"] += amount
        invoice["amount_due"] -= amount
        invoice["amount_remaining"] -= amount
        if invoice["amount_remaining"] == 0:
            invoice_flow.mark_paid(world, invoice)
    world.emit_change("invoice.updated", invoice, before)


@operation("GET", "/v1/credit_notes/{id}", "CreditNoteRetrieveParams")
def retrieve(call: Call) -> Obj:
    """One credit note."""
    return call.world.get("credit_note", call.ids["id"])


@operation(
    "GET", "/v1/credit_notes", "CreditNoteListParams", "created customer invoice", listing=True
)
def list_all(call: Call) -> Obj:
    """Newest first."""
    return page(
        call,
        (
            n
            for n in call.world.newest("credit_note")
            if call.get("invoice") in (None, n["invoice"])
            and call.get("customer") in (None, n["customer"])
            and within(n["created"], call.get("created"))
        ),
    )
