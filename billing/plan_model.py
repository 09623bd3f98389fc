"""The records of changes of a relay's plan, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class PlanChangeState(StrEnum):
    """A change of a relay's plan: an offer (wanted, quoted), confirmed (confirmed, ordered,
    scheduled), or over. `ordered`: it is in the subscription and waits for its invoice."""

    WANTED = "wanted"
    QUOTED = "quoted"
    CONFIRMED = "confirmed"
    ORDERED = "ordered"
    SCHEDULED = "scheduled"
    APPLIED = "applied"
    UNDONE = "undone"
    CANCELLED = "cancelled"
    REPLACED = "replaced"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class PlanChange:
    """One wish for another plan. `next_at`, `proration_at` and `due_until` are billing time,
    `quote_expires_at` is wire time; amounts are minor units of `currency`."""

    id: str
    tenant: str
    relay_id: str
    kind: str
    from_plan: str
    to_plan: str
    state: PlanChangeState
    code: str | None
    currency: str
    now_minor: int | None
    next_minor: int | None
    next_at: int | None
    proration_at: int | None
    quote_expires_at: int | None
    due_until: int | None
    invoice_id: str | None
    applied_rev: int | None
    attempts: int
    next_try_at: int | None
    created_at: int
    confirmed_at: int | None
    ended_at: int | None
    problem: str | None
