"""Checkers of what is said in the end: receipts, credit, and what reached nobody (M14)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from billing.outbox import UNDELIVERABLE_AFTER

if TYPE_CHECKING:
    from tests.sim.world import SimWorld

DAY_S = 86400


def check_told(world: SimWorld) -> None:
    """Who paid was told, who has credit was told, and operators know who cannot be told."""
    _receipts(world)
    _credits(world)
    _undeliverable(world)


def _receipts(world: SimWorld) -> None:
    """Whatever life saw it: what is paid at Stripe has its receipt, with what it came to."""
    receipts = {
        key: json.loads(facts)
        for key, facts in world.connection.execute(
            "SELECT key, facts FROM outbox_messages WHERE kind = 'invoice_paid'"
        )
    }
    now = world.clock.now()
    # What Stripe has just told of is on its way.
    news = {
        event.raw["data"]["object"].get("id")
        for event in world.stripe.books.events
        if event.created_at > now - 300
    }
    for invoice in world.stripe.books.invoices.values():
        if invoice.id in news:
            continue
        total_minor = invoice.view().total_minor
        if invoice.status != "paid" or total_minor <= 0:
            continue
        told = receipts.get(f"invoice:{invoice.id}:paid")
        if told is None:
            world.violate("M14", f"{invoice.id} is paid, and no receipt was written")
        elif told["amount_minor"] != total_minor:
            world.violate(
                "M14", f"the receipt of {invoice.id} says {told['amount_minor']}, not {total_minor}"
            )


def _credits(world: SimWorld) -> None:
    """Money that became credit, whole or in part, was announced; or it is owed to somebody without
    a customer, and operators know."""
    for (payment_hash,) in world.connection.execute(
        "SELECT payment_hash FROM settlements s WHERE s.state IN ('placed', 'credited') "
        "AND s.credit_minor > 0 AND NOT EXISTS (SELECT 1 FROM outbox_messages m "
        "WHERE m.key = 'money:' || s.payment_hash || ':credit' AND m.kind = 'credit_added') "
        "AND NOT EXISTS (SELECT 1 FROM activity a WHERE a.kind = 'operator.alarm' "
        "AND a.subject = 'liability:' || s.payment_hash)"
    ).fetchall():
        world.violate("M14", f"money {payment_hash[:8]} became credit, and nobody was told")


def _undeliverable(world: SimWorld) -> None:
    """What no relay took for so long is an alarm, one a day for each person, though it was taken
    later; of alarms it is none."""
    told = {
        (person, int(day))
        for person, _, day in (
            subject.removeprefix("undeliverable:").partition(":")
            for (subject,) in world.connection.execute(
                "SELECT subject FROM activity WHERE kind = 'operator.alarm' "
                "AND subject LIKE 'undeliverable:%'"
            )
        )
    }
    for key, recipient, created_at in world.connection.execute(
        "SELECT key, recipient, created_at FROM outbox_messages "
        # The try that was heard counts too.
        "WHERE (state = 'undeliverable' OR attempts > ?) AND kind <> 'operator_alarm' "
        "ORDER BY seq",
        (UNDELIVERABLE_AFTER,),
    ):
        world.count("message_undeliverable")
        if not any(who == recipient and day >= created_at // DAY_S for who, day in told):
            world.violate("M14", f"message {key} reached nobody, and operators were not told")
