"""Payment requests, attempts, settlements: typed reads, named compare-and-set transitions."""

from __future__ import annotations

from billing.model import (
    AttemptState,
    Invoice,
    PaymentAttempt,
    PaymentRequest,
    Purpose,
    Rail,
    RequestState,
    Settlement,
    SettlementState,
)
from billing.payments import WATCH_S, LookupReading
from billing.store.engine import Tx
from billing.unit import Runtime


async def insert_request(tx: Tx, request: PaymentRequest) -> None:
    """Store what our wallet issued; a second live one for the invoice is refused (M2)."""
    await tx.execute(
        "payments.insert_request",
        id=request.id,
        invoice_id=request.invoice_id,
        tenant=request.tenant,
        payee_connection_id=request.payee_connection_id,
        purpose=request.purpose.value,
        payment_hash=request.payment_hash,
        bolt11=request.bolt11,
        amount_msat=request.amount_msat,
        amount_minor=request.amount_minor,
        currency=request.currency,
        rate=request.rate,
        rate_sources=request.rate_sources,
        rate_at=request.rate_at,
        created_at=request.created_at,
        expires_at=request.expires_at,
        margin_s=request.margin_s,
        next_lookup_at=request.next_lookup_at,
        watch_until=request.expires_at + WATCH_S,
    )


def new_request(
    *,
    request_id: str,
    invoice_id: str,
    tenant: str,
    payee_connection_id: str,
    purpose: Purpose,
    payment_hash: str,
    bolt11: str,
    amount_msat: int,
    amount_minor: int,
    currency: str,
    rate: str,
    rate_sources: str,
    rate_at: int,
    now: int,
    expires_at: int,
    margin_s: int,
) -> PaymentRequest:
    """An open request that nobody has seen yet."""
    return PaymentRequest(
        id=request_id,
        invoice_id=invoice_id,
        tenant=tenant,
        payee_connection_id=payee_connection_id,
        purpose=purpose,
        payment_hash=payment_hash,
        bolt11=bolt11,
        amount_msat=amount_msat,
        amount_minor=amount_minor,
        currency=currency,
        rate=rate,
        rate_sources=rate_sources,
        rate_at=rate_at,
        state=RequestState.OPEN,
        created_at=now,
        expires_at=expires_at,
        margin_s=margin_s,
        noted_at=None,
        shown_at=None,
        lookups=0,
        unpaid_since=None,
        unpaid_lookups=0,
        not_found_lookups=0,
        next_lookup_at=now + 2,
        hints=0,
        last_lookup_at=None,
        failed_lookups_since=None,
        escalated_at=None,
        claimed_at=None,
        ended_at=None,
        watch_until=expires_at + WATCH_S,
    )


async def request(tx: Tx, request_id: str) -> PaymentRequest | None:
    """By id."""
    return await tx.fetch_one(PaymentRequest, "payments.request", id=request_id)


async def request_by_hash(tx: Tx, payment_hash: str) -> PaymentRequest | None:
    """By payment hash."""
    return await tx.fetch_one(PaymentRequest, "payments.request_by_hash", payment_hash=payment_hash)


async def requests_of(tx: Tx, invoice_id: str) -> list[PaymentRequest]:
    """Of an invoice, oldest first."""
    return await tx.fetch_all(PaymentRequest, "payments.requests_of", invoice_id=invoice_id)


async def move_request(tx: Tx, before: PaymentRequest, to: RequestState, *, now: int) -> bool:
    """Compare-and-set; False: somebody else was first, reload."""
    return (
        await tx.execute(
            "payments.move_request",
            id=before.id,
            from_state=before.state.value,
            to_state=to.value,
            now=now,
        )
        == 1
    )


async def store_reading(
    tx: Tx,
    seen: PaymentRequest,
    reading: LookupReading,
    *,
    asked_at: int,
    now: int,
    next_lookup_at: int | None,
) -> None:
    """An answer of our wallet; silence is `store_silence`. `seen`: the row before the asking."""
    await tx.execute(
        "payments.store_reading",
        id=seen.id,
        asked_at=asked_at,
        now=now,
        seen_hints=seen.hints,
        next_lookup_at=next_lookup_at,
        unpaid_since=reading.unpaid_since,
        unpaid_lookups=reading.unpaid_lookups,
        not_found_lookups=reading.not_found_lookups,
        failed_lookups_since=None,
    )


async def insert_attempt(tx: Tx, attempt: PaymentAttempt) -> None:
    """An intent row (M1), always `prepared`."""
    assert attempt.state is AttemptState.PREPARED
    await tx.execute(
        "payments.insert_attempt",
        id=attempt.id,
        invoice_id=attempt.invoice_id,
        request_id=attempt.request_id,
        tenant=attempt.tenant,
        rail=attempt.rail.value,
        connection_id=attempt.connection_id,
        operation_id=attempt.operation_id,
        payment_hash=attempt.payment_hash,
        event_id=attempt.event_id,
        event_json=attempt.event_json,
        encryption=attempt.encryption,
        expiration=attempt.expiration,
        fence=attempt.fence,
        prepared_at=attempt.prepared_at,
    )


def new_card_attempt(rt: Runtime, invoice: Invoice, operation_id: str) -> PaymentAttempt:
    """A prepared card attempt; its operation id is the idempotency key of its `pay` (M11)."""
    return PaymentAttempt(
        id=rt.ids.new("att"),
        invoice_id=invoice.id,
        request_id=None,
        tenant=invoice.tenant,
        rail=Rail.CARD,
        connection_id=None,
        operation_id=operation_id,
        payment_hash=None,
        event_id=None,
        event_json=None,
        encryption=None,
        expiration=None,
        state=AttemptState.PREPARED,
        fence=rt.fence.token,
        prepared_at=rt.clock.now(),
    )


async def attempt(tx: Tx, attempt_id: str) -> PaymentAttempt | None:
    """By id."""
    return await tx.fetch_one(PaymentAttempt, "payments.attempt", id=attempt_id)


async def attempt_by_event(tx: Tx, event_id: str) -> PaymentAttempt | None:
    """By the id of its signed NIP-47 request."""
    return await tx.fetch_one(PaymentAttempt, "payments.attempt_by_event", event_id=event_id)


async def attempts_of(tx: Tx, invoice_id: str) -> list[PaymentAttempt]:
    """Of an invoice, oldest first."""
    return await tx.fetch_all(PaymentAttempt, "payments.attempts_of", invoice_id=invoice_id)


async def attempts_of_request(tx: Tx, request_id: str) -> list[PaymentAttempt]:
    """On a payment request, oldest first."""
    return await tx.fetch_all(PaymentAttempt, "payments.attempts_of_request", request_id=request_id)


async def live_attempts(tx: Tx) -> list[PaymentAttempt]:
    """Everything that may still move money."""
    return await tx.fetch_all(PaymentAttempt, "payments.live_attempts")


async def move_attempt(
    tx: Tx,
    before: PaymentAttempt,
    to: AttemptState,
    *,
    now: int,
    outcome: str | None = None,
    reason: str | None = None,
) -> bool:
    """Compare-and-set; False: somebody else was first, reload."""
    return (
        await tx.execute(
            "payments.move_attempt",
            id=before.id,
            from_state=before.state.value,
            to_state=to.value,
            outcome=outcome,
            reason=reason,
            now=now,
        )
        == 1
    )


async def settlement(tx: Tx, payment_hash: str) -> Settlement | None:
    """By payment hash."""
    return await tx.fetch_one(Settlement, "payments.settlement", payment_hash=payment_hash)


async def place_settlement(
    tx: Tx,
    before: Settlement,
    to: SettlementState,
    *,
    target_invoice_id: str | None,
    credit_minor: int,
    credit_operation_id: str | None,
    next_try_at: int | None,
) -> bool:
    """Compare-and-set; with a credit still to be written, `next_try_at` is set."""
    return (
        await tx.execute(
            "payments.place_settlement",
            payment_hash=before.payment_hash,
            from_state=before.state.value,
            to_state=to.value,
            target_invoice_id=target_invoice_id,
            credit_minor=credit_minor,
            credit_operation_id=credit_operation_id,
            next_try_at=next_try_at,
        )
        == 1
    )
