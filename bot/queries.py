"""Reads the tables that an operator looks at, as plain rows without secrets."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any, Final, TypeAlias

from billing.inbox import Rejection
from billing.model import (
    Connection,
    ConnectionRole,
    ConnectionState,
    HostedRelay,
    InboxEvent,
    Invoice,
    OutboxMessage,
    PaymentAttempt,
    PaymentRequest,
    RelayState,
    Tenant,
)
from billing.money import format_fiat
from billing.refunds import Refund
from billing.store.engine import MigratableEngine, Tx
from billing.store.migrate import require_current
from billing.store.open import open_engine
from bot.config import Config
from bot.nostr.nip19 import npub_encode
from wallet.units import format_sats

Row: TypeAlias = dict[str, Any]

SECRET_COLUMNS: Final = frozenset(
    {"sealed_uri", "sealed_rumor", "event_json", "payload", "preimage"}
)
"""Sealed or not: nobody needs them on a terminal."""


@asynccontextmanager
async def open_reader(config: Config) -> AsyncIterator[MigratableEngine]:
    """The database for reading only, beside a running bot or without one."""
    engine = await open_engine(config.store_url, read_only=True)
    try:
        await require_current(engine)
        yield engine
    finally:
        await engine.close()


def plain(record: Any) -> Row:
    """A record as JSON values, without its secret columns; pubkeys also as npub."""
    row = {name: value for name, value in asdict(record).items() if name not in SECRET_COLUMNS}
    for name in ("facts", "answers", "rate_sources", "methods"):
        if isinstance(row.get(name), str):
            row[name] = _parsed(row[name])
    for name in ("tenant", "pubkey", "recipient"):
        if isinstance(row.get(name), str):
            row["npub"] = npub_encode(row[name])
    return row


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


async def tenants(tx: Tx) -> list[Row]:
    """Each with its relays, what it owes and its wallet; oldest first."""
    relays = await tx.fetch_all(HostedRelay, "relays.everything")
    connections = await tx.fetch_all(Connection, "connections.everything")
    invoices = await tx.fetch_all(Invoice, "invoices.everything")
    living = Counter(r.tenant for r in relays if r.state is not RelayState.ENDED)
    wallets = {
        c.tenant: "not answering" if c.problem else c.state.value
        for c in connections
        if c.role is ConnectionRole.PAYER
        and c.state in (ConnectionState.PROBING, ConnectionState.ACTIVE)
    }
    rows = []
    for tenant in await tx.fetch_all(Tenant, "tenants.everyone"):
        open_ones = [i for i in invoices if i.tenant == tenant.pubkey and i.status == "open"]
        rows.append(
            plain(tenant)
            | {
                "relays": living[tenant.pubkey],
                "owes": _sum(open_ones),
                "payer": wallets.get(tenant.pubkey),
            }
        )
    return rows


async def relays(tx: Tx) -> list[Row]:
    """Oldest first; `synced` tells whether the relay host has caught up."""
    return [
        plain(relay) | {"synced": relay.wanted_rev == relay.applied_rev}
        for relay in await tx.fetch_all(HostedRelay, "relays.everything")
    ]


async def invoices(tx: Tx) -> list[Row]:
    """Oldest first."""
    return [
        plain(invoice)
        | {
            "total": format_fiat(invoice.total_minor, invoice.currency),
            "remaining": format_fiat(invoice.amount_remaining_minor, invoice.currency),
        }
        for invoice in await tx.fetch_all(Invoice, "invoices.everything")
    ]


async def refunds(tx: Tx, count: int) -> list[Row]:
    """Newest first."""
    return [
        plain(refund) | {"amount": format_fiat(refund.amount_minor, refund.currency)}
        for refund in await tx.fetch_all(Refund, "refunds.everything", count=count)
    ]


async def payments(tx: Tx, count: int) -> list[Row]:
    """Payment requests with their attempts, and card attempts; newest first."""
    attempts = await tx.fetch_all(PaymentAttempt, "reports.attempts", count=count)
    of_request: dict[str | None, list[PaymentAttempt]] = {}
    for attempt in attempts:
        of_request.setdefault(attempt.request_id, []).append(attempt)
    rows = []
    for request in await tx.fetch_all(PaymentRequest, "payments.everything", count=count):
        tries = of_request.get(request.id, [])
        rows.append(
            plain(request)
            | {
                "amount": format_sats(request.amount_msat),
                "fiat": format_fiat(request.amount_minor, request.currency),
                "rail": _rails(request, tries),
                "attempt": tries[0].state.value if tries else None,
                "outcome": tries[0].outcome if tries else None,
                "attempts": [plain(attempt) for attempt in tries],
                "at": request.created_at,
            }
        )
    for attempt in of_request.get(None, []):
        rows.append(
            plain(attempt)
            | {"attempt": attempt.state.value, "rail": "card", "at": attempt.prepared_at}
        )
    return sorted(rows, key=lambda row: -row["at"])[:count]


def _rails(request: PaymentRequest, tries: Sequence[PaymentAttempt]) -> str | None:
    """A refused request may be shown to a person afterwards."""
    rails = (["nwc"] if tries else []) + (["manual"] if request.shown_at is not None else [])
    return ", ".join(rails) or None


async def events(tx: Tx, count: int, *, failed: bool = False) -> list[Row]:
    """Stripe events, newest first; `failed`: only dead letters."""
    statement = "events.failed_ones" if failed else "events.newest"
    return [plain(e) for e in await tx.fetch_all(InboxEvent, statement, count=count)]


async def rejected(tx: Tx, count: int) -> list[Row]:
    """Deliveries that were not believed, newest first. What they say of themselves is theirs."""
    return [
        asdict(row) | {"user_agent": row.headers.get("user-agent")}
        for row in await tx.fetch_all(Rejection, "ingest.rejected", count=count)
    ]


async def messages(tx: Tx, count: int) -> list[Row]:
    """What was said to whom, newest first; `relays`: how many said OK."""
    rows = []
    for message in await tx.fetch_all(OutboxMessage, "outbox.newest", count=count):
        row = plain(message)
        answers = row["answers"] if isinstance(row["answers"], list) else []
        row["relays"] = accepted_by(answers)
        rows.append(row)
    return rows


def accepted_by(answers: Sequence[Mapping[str, Any]]) -> str | None:
    """`2 of 3` relays said OK."""
    if not answers:
        return None
    good = sum(1 for answer in answers if isinstance(answer, dict) and answer.get("ok"))
    return f"{good} of {len(answers)}"


def _sum(open_ones: Iterable[Invoice]) -> str | None:
    """By currency."""
    owed: Counter[str] = Counter()
    for invoice in open_ones:
        owed[invoice.currency] += invoice.amount_remaining_minor
    return ", ".join(format_fiat(minor, currency) for currency, minor in owed.items()) or None
