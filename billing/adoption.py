"""Takes up payments that another life of this bot began, from what Stripe notes of them.

A restored backup, a lost database, or a second bot: it is watched like our own, and until its end
is seen nothing new is issued for its invoice (M1, M2, M4).
"""

from __future__ import annotations

from billing.model import Connection, Invoice, PaymentRequest, Purpose, RequestState
from billing.observations import observe_attempt
from billing.payments import AttemptSeen
from billing.rails.card_note import NotedCard
from billing.rails.issue import NotedRequest
from billing.store import payments
from billing.unit import Runtime, Unit


async def issuer_of(
    rt: Runtime, unit: Unit, current: Connection, invoice_id: str, noted: NotedRequest
) -> Connection | None:
    """The wallet that issued what is noted: `current`, or an earlier one of this database.

    None, with an alarm, where neither is it: another wallet's "not found" proves nothing (M6), so
    nobody may be asked, and nothing be issued, until people decide.
    """
    if noted.payee in ("", current.wallet_pubkey):
        return current
    earlier = await unit.tx.fetch_one(
        Connection, "connections.payee_by_key", wallet_pubkey=noted.payee
    )
    if earlier is None:
        await rt.alarm(
            unit,
            f"unknown_payee:{noted.payment_hash}",
            f"Invoice {invoice_id} carries a payment hash ({noted.payment_hash[:16]}…) of a wallet "
            f"that this database does not know ({noted.payee[:16]}…). Nothing is issued for it: "
            "start Purser once with that wallet as payee, or void the invoice at Stripe.",
        )
    return earlier


async def adopt_request(
    rt: Runtime, unit: Unit, payee: Connection, invoice: Invoice, noted: NotedRequest
) -> PaymentRequest | None:
    """Store and report it as open; None: it is known, or another one of this invoice is open."""
    if await payments.request_by_hash(unit.tx, noted.payment_hash) is not None:
        return None
    requests = await payments.requests_of(unit.tx, invoice.id)
    if any(r.state is RequestState.OPEN for r in requests):
        return None
    request = payments.new_request(
        request_id=rt.ids.new("req"),
        invoice_id=invoice.id,
        tenant=invoice.tenant,
        payee_connection_id=payee.id,
        purpose=Purpose.ADOPTED,
        payment_hash=noted.payment_hash,
        bolt11="",
        amount_msat=noted.amount_msat,
        amount_minor=noted.amount_minor,
        currency=invoice.currency,
        rate=noted.rate,
        rate_sources="[]",
        rate_at=unit.now,
        now=unit.now,
        expires_at=noted.expires_at,
        margin_s=noted.margin_s,
    )
    await payments.insert_request(unit.tx, request)
    await unit.tx.execute("payments.note_request", id=request.id, now=unit.now)
    await rt.alarm(
        unit,
        f"adopted:{noted.payment_hash}",
        f"Invoice {invoice.id} carries a payment hash this database does not know "
        f"({noted.payment_hash[:16]}…): a restored backup or a second bot. It is "
        "watched; nothing new is issued until it is dead.",
    )
    return request


async def adopt_card(rt: Runtime, unit: Unit, invoice: Invoice, noted: NotedCard) -> None:
    """A card payment in flight that somebody else began: only Stripe can say what became of it.

    The caller has seen that nothing else of this invoice is live.
    """
    attempt = payments.new_card_attempt(rt, invoice, noted.operation_id)
    await payments.insert_attempt(unit.tx, attempt)
    await observe_attempt(rt, unit, attempt, AttemptSeen.CLAIMED_FOR_WRITE)
    await rt.alarm(
        unit,
        f"adopted_card:{noted.operation_id}",
        f"Invoice {invoice.id} carries the note of a card payment this database does not know "
        f"({noted.operation_id}): a restored backup or a second bot. Nothing else is charged for "
        "it until Stripe shows its end.",
    )
