"""Tells the story of one thing in time order: audit lines, payments, events, messages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from billing.model import (
    Activity,
    HostedRelay,
    InboxEvent,
    Invoice,
    OutboxMessage,
    PaymentAttempt,
    PaymentRequest,
    Settlement,
    Tenant,
)
from billing.money import format_fiat
from billing.refunds import Refund
from billing.store.engine import Tx
from bot.nostr.nip19 import Nip19Error, parse_pubkey
from bot.queries import Row, accepted_by, plain
from wallet.units import format_sats

LATER: Final = 1 << 62
"""Rows without a sequence number stand after the audit lines of the same second."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the story. `at`: wire time; `seq`: of the audit log, None for other rows."""

    at: int
    what: str
    text: str
    seq: int | None = None
    details: Row = field(default_factory=dict)


@dataclass(slots=True)
class Story:
    """What it is about, as it stands now, and what happened."""

    kind: str
    now: Row
    tenant: str | None
    ids: set[str]
    entries: list[Entry] = field(default_factory=list)

    @property
    def is_whole_tenant(self) -> bool:
        """Everything about a tenant, not one thing of theirs."""
        return self.kind == "tenant"


async def tell(tx: Tx, thing: str) -> Story | None:
    """The story of a tenant (npub or hex), relay (id or name), invoice, payment request, payment
    attempt, payment hash, refund, Stripe event or message key; None when there is no such thing."""
    story = await _find(tx, thing.strip())
    if story is None:
        return None
    await _payments(tx, story)
    await _refunds(tx, story)
    await _activity(tx, story)
    await _events(tx, story)
    await _messages(tx, story)
    story.entries = _in_order(story.entries)
    return story


def _in_order(entries: list[Entry]) -> list[Entry]:
    """By time, then by the audit log's sequence; a record stands where the log first names it."""
    first: dict[str, int] = {}
    for entry in entries:
        if entry.seq is not None:
            subject = str(entry.details.get("subject"))
            first[subject] = min(entry.seq, first.get(subject, LATER))

    def place(entry: Entry) -> tuple[int, float]:
        if entry.seq is not None:
            return entry.at, entry.seq
        return entry.at, first.get(str(entry.details.get("id")), LATER) - 0.5

    return sorted(entries, key=place)


async def _find(tx: Tx, thing: str) -> Story | None:
    for look in (_tenant, _relay, _invoice, _payment, _refund, _event_or_message):
        story = await look(tx, thing)
        if story is not None:
            return story
    return None


async def _tenant(tx: Tx, thing: str) -> Story | None:
    try:
        pubkey = parse_pubkey(thing)
    except Nip19Error:
        return None
    tenant = await tx.fetch_one(Tenant, "tenants.get", pubkey=pubkey)
    if tenant is None:
        return None
    ids = {pubkey}
    ids |= {x for x in (tenant.customer_id, tenant.subscription_id) if x is not None}
    for invoice in await tx.fetch_all(Invoice, "invoices.of_tenant", tenant=pubkey):
        ids.add(invoice.id)
    for relay in await tx.fetch_all(HostedRelay, "relays.of_tenant", tenant=pubkey):
        ids.add(relay.id)
    return Story("tenant", plain(tenant), pubkey, ids)


async def _relay(tx: Tx, thing: str) -> Story | None:
    relay = await tx.fetch_one(HostedRelay, "relays.get", id=thing)
    relay = relay or await tx.fetch_one(HostedRelay, "reports.relay_by_name", name=thing)
    return None if relay is None else Story("relay", plain(relay), relay.tenant, {relay.id})


async def _invoice(tx: Tx, thing: str) -> Story | None:
    invoice = await tx.fetch_one(Invoice, "invoices.get", id=thing)
    if invoice is None:
        return None
    return Story("invoice", plain(invoice), invoice.tenant, {invoice.id})


async def _payment(tx: Tx, thing: str) -> Story | None:
    request = await tx.fetch_one(PaymentRequest, "payments.request", id=thing)
    request = request or await tx.fetch_one(
        PaymentRequest, "payments.request_by_hash", payment_hash=thing.lower()
    )
    if request is not None:
        ids = {request.id, request.payment_hash}
        return Story("payment request", plain(request), request.tenant, ids)
    attempt = await tx.fetch_one(PaymentAttempt, "payments.attempt", id=thing)
    if attempt is None:
        return None
    ids = {attempt.id} | {x for x in (attempt.request_id, attempt.payment_hash) if x is not None}
    return Story("payment attempt", plain(attempt), attempt.tenant, ids)


async def _refund(tx: Tx, thing: str) -> Story | None:
    """By its own id, its hash, or what it is called at Stripe: a refund or a credit note."""
    refund = await tx.fetch_one(Refund, "refunds.get", id=thing)
    refund = refund or await tx.fetch_one(Refund, "refunds.by_hash", payment_hash=thing.lower())
    refund = refund or await tx.fetch_one(
        Refund, "refunds.by_stripe", stripe_id=thing, operation_id=thing
    )
    if refund is None:
        return None
    return Story("refund", plain(refund), refund.tenant, _ids_of(refund))


async def _event_or_message(tx: Tx, thing: str) -> Story | None:
    event = await tx.fetch_one(InboxEvent, "events.get", event_id=thing)
    if event is not None:
        return Story("Stripe event", plain(event), None, {event.event_id})
    message = await tx.fetch_one(OutboxMessage, "outbox.get", key=thing)
    if message is not None:
        return Story("message", plain(message), message.recipient, {message.key})
    return None


# --- what happened ------------------------------------------------------------------------------


async def _payments(tx: Tx, story: Story) -> None:
    """Requests and attempts of the invoices; they are part of the story, and their ids too."""
    requests: dict[str, PaymentRequest] = {}
    for thing in sorted(story.ids):
        for request in await tx.fetch_all(PaymentRequest, "payments.requests_of", invoice_id=thing):
            requests[request.id] = request
        single = await tx.fetch_one(PaymentRequest, "payments.request", id=thing)
        if single is not None:
            requests[single.id] = single
        for attempt in await tx.fetch_all(PaymentAttempt, "payments.attempts_of", invoice_id=thing):
            story.ids.add(attempt.id)
        for money in await tx.fetch_all(
            Settlement, "reports.settlements_of_invoice", invoice_id=thing
        ):
            story.entries.append(_settlement(money))
    for request in requests.values():
        story.ids |= {request.id, request.payment_hash}
        story.entries.append(_request(request))
        for attempt in await tx.fetch_all(
            PaymentAttempt, "payments.attempts_of_request", request_id=request.id
        ):
            story.ids.add(attempt.id)
            story.entries.append(_attempt(attempt))


def _request(request: PaymentRequest) -> Entry:
    text = (
        f"{request.id}: {format_sats(request.amount_msat)} for "
        f"{format_fiat(request.amount_minor, request.currency)} at {request.rate}, "
        f"{request.purpose.value}, now {request.state.value} after {request.lookups} look-ups"
    )
    return Entry(request.created_at, "payment request", text, details=plain(request))


def _attempt(attempt: PaymentAttempt) -> Entry:
    said = f", the payer said {attempt.outcome}" if attempt.outcome else ""
    why = f" ({attempt.reason})" if attempt.reason else ""
    text = f"{attempt.id}: {attempt.rail.value}, now {attempt.state.value}{said}{why}"
    return Entry(attempt.prepared_at, "payment attempt", text, details=plain(attempt))


async def _refunds(tx: Tx, story: Story) -> None:
    """Refunds of the invoices, and credits that a tenant was given."""
    found: dict[str, Refund] = {}
    for thing in sorted(story.ids):
        for refund in await tx.fetch_all(Refund, "refunds.of_invoice", invoice_id=thing):
            found[refund.id] = refund
        single = await tx.fetch_one(Refund, "refunds.get", id=thing)
        if single is not None:
            found[single.id] = single
    if story.is_whole_tenant:
        for refund in await tx.fetch_all(Refund, "refunds.of_tenant", tenant=story.tenant):
            found[refund.id] = refund
    for refund in found.values():
        story.ids |= _ids_of(refund)
        story.entries.append(_refund_entry(refund))


def _ids_of(refund: Refund) -> set[str]:
    named = (refund.id, refund.stripe_id, refund.note_id, refund.payment_hash)
    return {name for name in named if name is not None}


def _refund_entry(refund: Refund) -> Entry:
    sats = f" ({format_sats(refund.amount_msat)})" if refund.amount_msat is not None else ""
    why = f": {refund.problem}" if refund.problem else ""
    text = (
        f"{refund.id}: {format_fiat(refund.amount_minor, refund.currency)}{sats} by "
        f"{refund.way.value}, now {refund.state.value}{why}"
    )
    return Entry(refund.created_at, "refund", text, details=plain(refund))


def _settlement(money: Settlement) -> Entry:
    text = f"{format_sats(money.amount_msat)} settled, {money.state.value}"
    return Entry(money.seen_at, "money", text, details=plain(money))


async def _activity(tx: Tx, story: Story) -> None:
    """All lines of a tenant; of one thing, those that name it."""
    lines: dict[int, Activity] = {}
    for thing in sorted(story.ids):
        for line in await tx.fetch_all(Activity, "activity.of_subject", subject=thing):
            lines[line.seq] = line
    if story.tenant is not None:
        for line in await tx.fetch_all(Activity, "activity.of_tenant", tenant=story.tenant):
            if story.is_whole_tenant or _names(line, story.ids):
                lines[line.seq] = line
    for line in lines.values():
        facts = plain(line)["facts"]
        shown = [f"{k}={v}" for k, v in facts.items() if v is not None and v != story.tenant]
        subject = line.subject if line.subject != story.tenant else None
        text = " ".join(([subject] if subject else []) + shown)
        story.entries.append(Entry(line.at, line.kind, text, line.seq, plain(line)))


def _names(line: Activity, ids: set[str]) -> bool:
    """Whether one of the ids stands anywhere in it."""
    return line.subject in ids or any(f'"{thing}"' in line.facts for thing in ids)


async def _events(tx: Tx, story: Story) -> None:
    for thing in sorted(story.ids):
        for event in await tx.fetch_all(InboxEvent, "events.about", object_id=thing):
            error = f": {event.error}" if event.error else ""
            text = f"{event.event_id} {event.type}, {event.state}{error}"
            entry = Entry(event.received_at, "Stripe event", text, details=plain(event))
            story.entries.append(entry)


async def _messages(tx: Tx, story: Story) -> None:
    if story.tenant is None:
        return
    for message in await tx.fetch_all(OutboxMessage, "outbox.to_recipient", recipient=story.tenant):
        about = message.request_id in story.ids or any(
            thing in message.key or f'"{thing}"' in message.facts for thing in story.ids
        )
        if story.is_whole_tenant or about:
            story.entries.append(_message(message))


def _message(message: OutboxMessage) -> Entry:
    row: dict[str, Any] = plain(message)
    answers = row["answers"] if isinstance(row["answers"], list) else []
    relays = accepted_by(answers)
    to = f", {relays} relays said OK" if relays else ""
    text = f"{message.kind}, {message.state}{to}"
    return Entry(message.created_at, "message", text, details=row)
