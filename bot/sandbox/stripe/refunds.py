"""Refunds of card payments."""

from __future__ import annotations

from bot.sandbox.stripe.errors import Obj, invalid
from bot.sandbox.stripe.registry import Call, merge_metadata, operation, page, within


@operation("POST", "/v1/refunds", "RefundCreateParams", "amount metadata payment_intent reason")
def create(call: Call) -> Obj:
    """All or part of a succeeded payment intent. Errors: 400 for more than was paid."""
    world = call.world
    named = call.get("payment_intent")
    if not named:
        raise invalid("One of the following params should be provided: payment_intent or charge.")
    intent = world.get("payment_intent", named, "payment_intent", status=400)
    done = sum(
        r["amount"] for r in world.table("refund").values() if r["payment_intent"] == intent["id"]
    )
    left = intent["amount_received"] - done
    amount = call.get("amount", left)
    if left <= 0:
        raise invalid("This payment has already been refunded.", code="charge_already_refunded")
    if not 0 < amount <= left:
        raise invalid(
            f"Refund amount ({amount}) is greater than unrefunded amount ({left})", param="amount"
        )
    metadata = merge_metadata(None, call.get("metadata"))
    refund = world.add(
        {
            "id": world.new_id("re"),
            "object": "refund",
            "amount": amount,
            "balance_transaction": None,
            "charge": f"ch_{intent['id'].removeprefix('pi_')}",
            "created": world.now(),
            "currency": intent["currency"],
            "customer": intent["customer"],
            "destination_details": {"type": "card"},
            "metadata": metadata,
            "payment_intent": intent["id"],
            "reason": call.get("reason"),
            "receipt_number": None,
            "source_transfer_reversal": None,
            "status": "succeeded",
            "transfer_reversal": None,
        }
    )
    world.emit("refund.created", refund)
    return refund


@operation("GET", "/v1/refunds/{refund}", "RefundRetrieveParams")
def retrieve(call: Call) -> Obj:
    """One refund."""
    return call.world.get("refund", call.ids["refund"])


@operation("GET", "/v1/refunds", "RefundListParams", "charge created payment_intent", listing=True)
def list_all(call: Call) -> Obj:
    """Newest first."""
    return page(
        call,
        (
            r
            for r in call.world.newest("refund")
            if call.get("payment_intent") in (None, r["payment_intent"])
            and call.get("charge") in (None, r["charge"])
            and within(r["created"], call.get("created"))
        ),
    )
