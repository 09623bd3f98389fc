"""The records of cards as plain values: what a tenant can be charged with, and pages asked for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Card:
    """What a tenant's invoices can be charged to at Stripe: the customer's default payment method
    as last seen. `since`: when it was first seen as such."""

    tenant: str
    method_id: str | None
    brand: str | None
    last4: str | None
    exp_month: int | None
    exp_year: int | None
    since: int | None
    billing_since: int | None
    wanted_method_id: str | None
    look_due_at: int | None
    look_attempts: int
    look_wishes: int
    warn_at: int | None


@dataclass(frozen=True, slots=True)
class CardRequest:
    """A page at Stripe that a tenant asked for, to leave a card; its address is not kept."""

    id: str
    tenant: str
    kind: str
    state: str
    operation_id: str
    session_id: str | None
    created_at: int
    attempts: int
    next_try_at: int | None
