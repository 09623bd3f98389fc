"""Reads how far each unpaid invoice is on its timeline, and what comes next, for an operator."""

from __future__ import annotations

from typing import Final

from billing.dunning import Policy, paused
from billing.money import format_fiat
from billing.store import dunning, invoices
from billing.store.engine import Tx
from billing.turns import coming as steps_to_come
from bot.nostr.nip19 import npub_encode
from bot.queries import Row

COLUMNS: Final = (
    "invoice", "npub", "owes", "relays", "day", "next", "next_at", "waits_for", "paused_days",
    "due_at",
)  # fmt: skip


async def windows(tx: Tx, policy: Policy, now: int) -> list[Row]:
    """The open windows, oldest first; `next_at` is the earliest, in billing time."""
    clock = await dunning.clock(tx)
    # The sandbox's bot knows how far billing time is ahead, and this process does not.
    billing_now = now + (clock.beat_billing_at or 0) - (clock.beat_at or 0)
    rows: list[Row] = []
    for window in await dunning.everything_open(tx):
        invoice = await invoices.get(tx, window.invoice_id)
        assert invoice is not None
        coming = await steps_to_come(tx, window, policy, billing_now)
        relays = await invoices.relays_of(tx, window.invoice_id)
        left_s = window.pause_s - paused(window, clock)
        rows.append(
            {
                "invoice": window.invoice_id,
                "npub": npub_encode(window.tenant),
                "owes": format_fiat(invoice.amount_remaining_minor, invoice.currency),
                "relays": ", ".join(f"{r.name} ({r.state.value})" for r in relays),
                "day": window.day,
                "next": coming[0][0].action.value if coming else None,
                "next_at": coming[0][1] if coming else None,
                "waits_for": window.waits_for,
                "paused_days": round(left_s / 86_400, 1) if window.pause_clock else None,
                "due_at": window.due_at,
                "told": window.told_clock is not None,
                "promised_at": window.promised_at,
            }
        )
    return rows


async def standstill(tx: Tx) -> str | None:
    """Why the dunning clock does not move, if it does not."""
    clock = await dunning.clock(tx)
    if clock.paused_at is not None:
        return f"paused for all: {clock.paused_why}"
    return f"stands still: {clock.down} cannot be asked" if clock.down else None
