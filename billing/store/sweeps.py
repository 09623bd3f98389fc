"""Looks up what stands here of one page of Stripe's objects, in one statement each."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from billing.model import HostedRelay, Invoice
from billing.plan_model import PlanChange
from billing.store.engine import Tx


@dataclass(frozen=True, slots=True)
class SweptTenant:
    """What a sweep compares of a tenant."""

    pubkey: str
    name: str
    customer_id: str | None
    subscription_id: str | None
    subscription_status: str | None
    period_end: int | None
    sync_due_at: int | None


@dataclass(slots=True)
class SweptSeats:
    """What a tenant's subscription is to hold: living relays, their confirmed changes of plan by
    relay, and those that no invoice carries yet (`billing.plan_changes.count_seats`)."""

    relays: list[HostedRelay] = field(default_factory=list)
    live: dict[str, PlanChange] = field(default_factory=dict)
    uncarried: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Unsubscribed:
    """A tenant with relays to pay for and nothing at Stripe that would."""

    pubkey: str
    name: str
    relays: int


@dataclass(frozen=True, slots=True)
class _Name:
    name: str


@dataclass(frozen=True, slots=True)
class _Owned:
    tenant: str
    name: str


def listed(names: Iterable[str]) -> str:
    """A parameter of the statements that take many ids: a JSON list, the same on both engines."""
    return json.dumps(sorted({name for name in names if name}))


async def tenants_of(tx: Tx, customer_ids: Iterable[str]) -> dict[str, SweptTenant]:
    """By customer id."""
    rows = await tx.fetch_all(
        SweptTenant, "reconcile.tenants_of_customers", ids=listed(customer_ids)
    )
    return {row.customer_id: row for row in rows if row.customer_id is not None}


async def tenants_without_customer(tx: Tx, pubkeys: Iterable[str]) -> dict[str, SweptTenant]:
    """By pubkey."""
    rows = await tx.fetch_all(
        SweptTenant, "reconcile.tenants_without_customer", ids=listed(pubkeys)
    )
    return {row.pubkey: row for row in rows}


async def seats_of(tx: Tx, pubkeys: Iterable[str]) -> dict[str, SweptSeats]:
    """By tenant; one without a living relay has none."""
    ids = listed(pubkeys)
    found: dict[str, SweptSeats] = {}
    for relay in await tx.fetch_all(HostedRelay, "reconcile.relays_of_tenants", ids=ids):
        found.setdefault(relay.tenant, SweptSeats()).relays.append(relay)
    for change in await tx.fetch_all(PlanChange, "reconcile.live_changes_of_tenants", ids=ids):
        found.setdefault(change.tenant, SweptSeats()).live[change.relay_id] = change
    for row in await tx.fetch_all(_Owned, "reconcile.uncarried_of_tenants", ids=ids):
        found.setdefault(row.tenant, SweptSeats()).uncarried.add(row.name)
    return found


async def invoices_by_id(tx: Tx, ids: Iterable[str]) -> dict[str, Invoice]:
    """Our mirror of them."""
    rows = await tx.fetch_all(Invoice, "reconcile.invoices_by_id", ids=listed(ids))
    return {row.id: row for row in rows}


async def known_relays(tx: Tx, ids: Iterable[str]) -> set[str]:
    """Which of these relays have a row."""
    rows = await tx.fetch_all(_Name, "reconcile.known_relays", ids=listed(ids))
    return {row.name for row in rows}


async def known_refunds(tx: Tx, ids: Iterable[str]) -> set[str]:
    """Which of these refunds have a row."""
    rows = await tx.fetch_all(_Name, "reconcile.known_refunds", ids=listed(ids))
    return {row.name for row in rows}


async def known_hashes(tx: Tx, hashes: Iterable[str]) -> set[str]:
    """Which of these payment hashes have a payment request."""
    rows = await tx.fetch_all(_Name, "reconcile.known_hashes", ids=listed(hashes))
    return {row.name for row in rows}


async def customers_here(tx: Tx) -> list[str]:
    """Every customer that a tenant has."""
    rows = await tx.fetch_all(_Name, "reconcile.customers_here")
    return [row.name for row in rows]
