"""Puts what a sweep found into the inbox of Stripe's events, for the handler of its type.

So a webhook, the catch-up and a sweep lead through the same code, with its retries and dead letters
(K3): a sweep finds, a handler acts on the object as it then is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from billing.ingest import InboxRow, columns
from billing.unit import Unit

SUBSCRIPTION = "customer.subscription.updated"
INVOICE = "invoice.updated"
CUSTOMER_DELETED = "customer.deleted"
REFUND = "refund.updated"
CREDIT_NOTE = "credit_note.created"
DISPUTE = "charge.dispute.updated"


@dataclass(frozen=True, slots=True)
class Found:
    """An event that Stripe did not send. `key`: with the object's id, what happens once."""

    type: str
    object_id: str
    key: str

    @property
    def event_id(self) -> str:
        """Not one of Stripe's: those begin with `evt_`."""
        return f"found:{self.object_id}:{self.key}"


async def feed(unit: Unit, found: Found, *, livemode: bool) -> bool:
    """Record it; False: it was recorded before, or the same is waiting for its handler."""
    waiting = await unit.tx.scalar(
        "reconcile.waiting_event", object_id=found.object_id, type=found.type
    )
    if waiting:
        return False
    body = {
        "id": found.event_id,
        "object": "event",
        "type": found.type,
        "created": unit.billing_now,
        "livemode": livemode,
        "data": {"object": {"id": found.object_id}},
    }
    row = InboxRow(
        event_id=found.event_id,
        type=found.type,
        object_id=found.object_id,
        api_created=unit.billing_now,
        livemode=livemode,
        account=None,
        payload=json.dumps(body),
        received_at=unit.now,
    )
    return await unit.tx.execute("ingest.insert_event", **columns(row)) > 0
