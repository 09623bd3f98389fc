"""Disputes of card payments: opened and closed by the sandbox's own control, read over the API."""

from __future__ import annotations

from bot.sandbox.stripe.errors import Obj, invalid
from bot.sandbox.stripe.registry import Call, operation, page, within
from bot.sandbox.stripe.world import DAY_S, World


def open_dispute(world: World, intent: Obj, reason: str = "fraudulent") -> Obj:
    """The cardholder's bank takes a payment back; a week to answer."""
    dispute = world.add(
        {
            "id": world.new_id("dp"),
            "object": "dispute",
            "amount": intent["amount_received"],
            "balance_transactions": [],
            "charge": f"ch_{intent['id'].removeprefix('pi_')}",
            "created": world.now(),
            "currency": intent["currency"],
            "enhanced_eligibility_types": [],
            "evidence": {"enhanced_evidence": {}},
            "evidence_details": {
                "due_by": world.now() + 7 * DAY_S,
                "enhanced_eligibility": {},
                "has_evidence": False,
                "past_due": False,
                "submission_count": 0,
            },
            "is_charge_refundable": False,
            "livemode": False,
            "metadata": {},
            "payment_intent": intent["id"],
            "reason": reason,
            "status": "needs_response",
        }
    )
    world.emit("charge.dispute.created", dispute)
    return dispute


def close_dispute(world: World, dispute: Obj, status: str) -> Obj:
    """Won or lost. Errors: 400 for another word."""
    if status not in ("won", "lost"):
        raise invalid("status must be won or lost", param="status")
    dispute["status"] = status
    world.emit("charge.dispute.closed", dispute)
    return dispute


@operation("GET", "/v1/disputes/{dispute}", "DisputeRetrieveParams")
def retrieve(call: Call) -> Obj:
    """One dispute."""
    return call.world.get("dispute", call.ids["dispute"], "dispute")


@operation(
    "GET", "/v1/disputes", "DisputeListParams", "charge created payment_intent", listing=True
)
def list_all(call: Call) -> Obj:
    """Newest first."""
    return page(
        call,
        (
            d
            for d in call.world.newest("dispute")
            if call.get("payment_intent") in (None, d["payment_intent"])
            and call.get("charge") in (None, d["charge"])
            and within(d["created"], call.get("created"))
        ),
    )
