"""Tenants' cards and the pages to leave one: typed reads and named transitions."""

from __future__ import annotations

from billing.card_model import Card, CardRequest
from billing.store.engine import Tx


async def of_tenant(tx: Tx, tenant: str) -> Card | None:
    """None: never looked at."""
    return await tx.fetch_one(Card, "cards.get", tenant=tenant)


async def want_look(tx: Tx, tenant: str, *, due_at: int) -> None:
    """Have Stripe asked what this tenant can be charged with."""
    await tx.execute("cards.want_look", tenant=tenant, due_at=due_at)


async def page_of_session(tx: Tx, session_id: str) -> CardRequest | None:
    """The page that became this session; None: not one of ours."""
    return await tx.fetch_one(CardRequest, "cards.page_of_session", session_id=session_id)
