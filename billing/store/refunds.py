"""Refunds and spending connections: typed reads and named compare-and-set transitions."""

from __future__ import annotations

from billing.model import Connection
from billing.refunds import FINAL, OutgoingReading, Refund, RefundState, RefundWay
from billing.store.engine import Tx


async def insert(
    tx: Tx,
    *,
    refund_id: str,
    tenant: str,
    invoice_id: str | None,
    way: RefundWay,
    amount_minor: int,
    currency: str,
    reason: str,
    operation_id: str,
    note_operation_id: str | None,
    amount_msat: int | None,
    rate: str | None,
    now: int,
) -> None:
    """A pending refund; `ConstraintViolated` while another of the invoice may still move money."""
    await tx.execute(
        "refunds.insert",
        id=refund_id,
        tenant=tenant,
        invoice_id=invoice_id,
        way=way.value,
        amount_minor=amount_minor,
        currency=currency,
        reason=reason,
        operation_id=operation_id,
        note_operation_id=note_operation_id,
        amount_msat=amount_msat,
        rate=rate,
        created_at=now,
    )


async def get(tx: Tx, refund_id: str) -> Refund | None:
    """By id."""
    return await tx.fetch_one(Refund, "refunds.get", id=refund_id)


async def by_event(tx: Tx, event_id: str) -> Refund | None:
    """By the id of its signed pay request."""
    return await tx.fetch_one(Refund, "refunds.by_event", event_id=event_id)


async def by_hash(tx: Tx, payment_hash: str) -> Refund | None:
    """By payment hash."""
    return await tx.fetch_one(Refund, "refunds.by_hash", payment_hash=payment_hash)


async def by_stripe(tx: Tx, stripe_id: str, operation_id: str | None) -> Refund | None:
    """Ours, by the id of Stripe's object or the operation id in its metadata; else None."""
    return await tx.fetch_one(
        Refund, "refunds.by_stripe", stripe_id=stripe_id, operation_id=operation_id or ""
    )


async def of_invoice(tx: Tx, invoice_id: str) -> list[Refund]:
    """Oldest first."""
    return await tx.fetch_all(Refund, "refunds.of_invoice", invoice_id=invoice_id)


async def move(
    tx: Tx,
    before: Refund,
    to: RefundState,
    *,
    now: int,
    next_try_at: int | None = None,
    outcome: str | None = None,
    problem: str | None = None,
    preimage: str | None = None,
) -> bool:
    """Compare-and-set; False: somebody else was first. What failed for good rests."""
    assert to in FINAL or to is RefundState.IN_FLIGHT
    return (
        await tx.execute(
            "refunds.move",
            id=before.id,
            from_state=before.state.value,
            to_state=to.value,
            now=now,
            next_try_at=next_try_at,
            outcome=outcome,
            problem=problem,
            preimage=preimage,
        )
        > 0
    )


async def store_reading(
    tx: Tx, refund: Refund, reading: OutgoingReading, *, next_try_at: int
) -> None:
    """What a look-up that decided nothing has counted."""
    await tx.execute(
        "refunds.store_reading",
        id=refund.id,
        unpaid_since=reading.unpaid_since,
        unpaid_lookups=reading.unpaid_lookups,
        next_try_at=next_try_at,
    )


async def again(tx: Tx, refund_id: str, problem: str, *, next_try_at: int) -> None:
    """Not now; try at this time."""
    await tx.execute("refunds.again", id=refund_id, problem=problem, next_try_at=next_try_at)


async def spender(tx: Tx) -> Connection | None:
    """The spending connection of today's configuration."""
    return await tx.fetch_one(Connection, "refunds.spender")


async def spender_by_wallet(tx: Tx, wallet_pubkey: str) -> Connection | None:
    """The newest of this wallet, replaced ones too."""
    return await tx.fetch_one(Connection, "refunds.spender_by_wallet", wallet_pubkey=wallet_pubkey)


async def spender_by_id(tx: Tx, connection_id: str) -> Connection | None:
    """Any, replaced ones too: what they sent is resolved by them."""
    return await tx.fetch_one(Connection, "refunds.spender_by_id", id=connection_id)
