"""What the fake Stripe knows and what time does to it: no HTTP, no SDK, deterministic ids."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from billing.money import minimum_charge_minor
from billing.views import (
    TENANT_KEY,
    CardProgress,
    CustomerView,
    InvoiceStatus,
    InvoiceView,
    StripeEvent,
    SubscriptionItemView,
    SubscriptionView,
)

HOUR_S = 3600
DAY_S = 86400
RETRY_DAYS = (3, 5, 7)

Card = Literal["none", "ok", "decline", "processing", "requires_action"]


def add_month(at: int, months: int) -> int:
    """The same day so many months later, clamped to the month's end."""
    day = datetime.fromtimestamp(at, UTC)
    index = day.year * 12 + day.month - 1 + months
    year, month = divmod(index, 12)
    first = datetime(year, month + 1, 1, tzinfo=UTC)
    following = datetime(year + (month == 11), (month + 1) % 12 + 1, 1, tzinfo=UTC)
    last_day = (following - first).days
    return int(day.replace(year=year, month=month + 1, day=min(day.day, last_day)).timestamp())


@dataclass
class Price:
    id: str
    lookup_key: str
    amount_minor: int
    currency: str
    interval: str


@dataclass
class Customer:
    id: str
    metadata: dict[str, str]
    balance_minor: int = 0
    currency: str | None = None
    email: str | None = None
    card: Card = "none"
    default_method: str | None = None
    deleted: bool = False
    credits: dict[str, str] = field(default_factory=dict)
    endings: dict[str, int] = field(default_factory=dict)

    def view(self) -> CustomerView:
        if self.deleted:
            return CustomerView(self.id, True, 0, None, None)
        named = self.default_method or f"pm_{self.id}"
        method = None if self.card == "none" else named
        return CustomerView(
            self.id, False, self.balance_minor, self.currency, method, dict(self.metadata)
        )


@dataclass
class Item:
    id: str
    price: Price
    quantity: int


@dataclass
class Subscription:
    id: str
    customer: Customer
    items: list[Item]
    metadata: dict[str, str]
    created_at: int
    period_start: int
    period_end: int
    status: str = "incomplete"
    cancel_at_period_end: bool = False
    cancel_at: int | None = None
    pause_behavior: str | None = None
    latest_invoice_id: str | None = None
    periods: int = 1
    pending: list[int] = field(default_factory=list)
    days_until_due: int | None = None

    @property
    def collection_method(self) -> str:
        return "charge_automatically" if self.days_until_due is None else "send_invoice"

    @property
    def is_terminal(self) -> bool:
        return self.status in ("canceled", "incomplete_expired")

    def view(self) -> SubscriptionView:
        return SubscriptionView(
            id=self.id,
            customer_id=self.customer.id,
            status=self.status,
            items=tuple(
                SubscriptionItemView(
                    item.id,
                    item.price.id,
                    item.quantity,
                    self.period_start,
                    self.period_end,
                    item.price.lookup_key,
                )
                for item in self.items
            ),
            cancel_at_period_end=self.cancel_at_period_end,
            cancel_at=self.cancel_at,
            pause_behavior=self.pause_behavior,
            latest_invoice_id=self.latest_invoice_id,
            collection_method=self.collection_method,
            created_at=self.created_at,
            metadata=dict(self.metadata),
        )


@dataclass
class Invoice:
    id: str
    customer: Customer
    subscription: Subscription | None
    currency: str
    lines: list[int]
    reason: str
    created_at: int
    period_start: int
    period_end: int
    auto_advance: bool
    metadata: dict[str, str] = field(default_factory=dict)
    status: InvoiceStatus = "draft"
    amount_due: int = 0
    remaining: int = 0
    paid: int = 0
    off_stripe: int = 0
    number: str | None = None
    attempts: int = 0
    next_attempt: int | None = None
    finalizes_at: int | None = None
    card: CardProgress = "none"
    due_at: int | None = None
    covers: tuple[int | None, int | None] = (None, None)
    seats: int | None = None
    balance_after: int | None = None

    @property
    def total(self) -> int:
        return sum(self.lines)

    @property
    def days_until_due(self) -> int | None:
        return self.subscription.days_until_due if self.subscription else None

    def view(self) -> InvoiceView:
        due = self.amount_due if self.status != "draft" else max(0, self.total)
        return InvoiceView(
            id=self.id,
            customer_id=self.customer.id,
            subscription_id=self.subscription.id if self.subscription else None,
            status=self.status,
            currency=self.currency,
            total_minor=self.total,
            amount_due_minor=due,
            amount_remaining_minor=self.remaining if self.status != "draft" else due,
            amount_paid_minor=self.paid,
            amount_paid_off_stripe_minor=self.off_stripe,
            auto_advance=self.auto_advance,
            billing_reason=self.reason,
            created_at=self.created_at,
            due_at=self.due_at,
            period_start=self.period_start,
            period_end=self.period_end,
            number=self.number,
            hosted_invoice_url=f"https://pay.example/{self.id}" if self.number else None,
            attempted=self.attempts > 0,
            next_payment_attempt_at=self.next_attempt,
            metadata=dict(self.metadata),
            covers_from=self.covers[0],
            covers_until=self.covers[1],
            balance_after_minor=self.balance_after,
            made_for=self.subscription.metadata.get(TENANT_KEY) if self.subscription else None,
            seats=self.seats,
            collection_method=(
                "charge_automatically" if self.days_until_due is None else "send_invoice"
            ),
        )


def amounts(total: int, balance: int, currency: str) -> tuple[int, int]:
    """What is due at finalization and the balance after it; too little becomes debt."""
    owed = total + balance
    if total <= 0 or owed <= 0 or owed < minimum_charge_minor(currency):
        return 0, owed
    return owed, 0


class Books:
    """The account. `run_to(now)` lets everything happen that is due by then, in order of time."""

    def __init__(self, now: int) -> None:
        self.now = now
        self.prices: list[Price] = []
        self.customers: dict[str, Customer] = {}
        self.subscriptions: dict[str, Subscription] = {}
        self.invoices: dict[str, Invoice] = {}
        self.events: list[StripeEvent] = []
        self._alive: list[Invoice] = []
        self.incomplete_s = 23 * HOUR_S
        self.after_last_retry: Literal["cancel", "unpaid", "past_due"] = "past_due"
        self._counts: dict[str, int] = {}

    def new_id(self, prefix: str) -> str:
        self._counts[prefix] = self._counts.get(prefix, 0) + 1
        return f"{prefix}_{self._counts[prefix]:04d}"

    def tell(self, kind: str, obj: Customer | Subscription | Invoice) -> None:
        name = type(obj).__name__.lower()
        owner = obj.id if isinstance(obj, Customer) else obj.customer.id
        self.tell_of(kind, {"id": obj.id, "object": name, "customer": owner})

    def tell_of(
        self, kind: str, body: dict[str, str | None], previous: dict[str, str] | None = None
    ) -> None:
        event_id = self.new_id("evt")
        data: dict[str, object] = {"object": body}
        if previous is not None:
            data["previous_attributes"] = previous
        raw = {
            "id": event_id,
            "object": "event",
            "type": kind,
            "created": self.now,
            "livemode": False,
            "data": data,
        }
        self.events.append(StripeEvent(event_id, kind, self.now, False, raw))

    # --- time ------------------------------------------------------------------------------

    def run_to(self, now: int) -> None:
        while (due := self.next_due()) is not None and due <= now:
            self.now = max(self.now, due)
            self._run_due()
        self.now = max(self.now, now)

    def next_due(self) -> int | None:
        times = [time for time, _ in self._agenda()]
        return min(times, default=None)

    def _agenda(self) -> list[tuple[int, Subscription | Invoice]]:
        agenda: list[tuple[int, Subscription | Invoice]] = []
        for sub in self.subscriptions.values():
            if sub.status == "incomplete":
                agenda.append((sub.created_at + self.incomplete_s, sub))
            elif not sub.is_terminal:
                agenda.append((sub.period_end, sub))
        for invoice in self._unfinished():
            if invoice.status == "draft" and invoice.auto_advance and invoice.finalizes_at:
                agenda.append((invoice.finalizes_at, invoice))
            elif invoice.status == "open" and invoice.auto_advance and invoice.next_attempt:
                agenda.append((invoice.next_attempt, invoice))
        return agenda

    def _unfinished(self) -> list[Invoice]:
        """What time can still do something to: accounts of years have thousands that are over."""
        found = [i for i in self._alive if i.id in self.invoices]
        self._alive = [i for i in found if i.status not in ("paid", "void")]
        return self._alive

    def _run_due(self) -> None:
        for time, thing in self._agenda():
            if time > self.now:
                continue
            if isinstance(thing, Invoice):
                self._collect(thing)
            elif thing.status == "incomplete":
                self._expire(thing)
            elif thing.cancel_at_period_end:
                self.invoice_pending(thing)
                self.cancel(thing)
            else:
                self._renew(thing)

    def _expire(self, sub: Subscription) -> None:
        sub.status = "incomplete_expired"
        self.tell("customer.subscription.updated", sub)
        invoice = self.invoices.get(sub.latest_invoice_id or "")
        if invoice and invoice.status in ("open", "uncollectible"):
            self.void(invoice)

    def invoice_pending(self, sub: Subscription) -> None:
        """As Stripe ends one: what was prorated and never invoiced is on a last invoice."""
        if sub.pending:
            last = self.draft(sub.customer, sub, sub.pending, "subscription_update", True)
            last.finalizes_at = self.now + HOUR_S
            sub.pending = []

    def cancel(self, sub: Subscription) -> None:
        sub.status = "canceled"
        self.tell("customer.subscription.deleted", sub)

    def _renew(self, sub: Subscription) -> None:
        step = 12 if sub.items[0].price.interval == "year" else 1
        sub.periods += 1
        before = sub.period_start
        sub.period_start = sub.period_end
        sub.period_end = add_month(sub.created_at, step * sub.periods)
        lines = [item.price.amount_minor * item.quantity for item in sub.items] + sub.pending
        sub.pending = []
        invoice = self.draft(sub.customer, sub, lines, "subscription_cycle", sub.status != "unpaid")
        invoice.period_start, invoice.period_end = before, sub.period_start
        invoice.finalizes_at = self.now + HOUR_S
        invoice.seats = sum(i.quantity for i in sub.items if i.price.amount_minor > 0)
        self.tell("customer.subscription.updated", sub)

    # --- invoices --------------------------------------------------------------------------

    def draft(
        self,
        customer: Customer,
        sub: Subscription | None,
        lines: list[int],
        reason: str,
        auto_advance: bool,
    ) -> Invoice:
        invoice = Invoice(
            id=self.new_id("in"),
            customer=customer,
            subscription=sub,
            currency=customer.currency or "usd",
            lines=list(lines),
            reason=reason,
            created_at=self.now,
            period_start=self.now,
            period_end=self.now,
            auto_advance=auto_advance,
        )
        self.invoices[invoice.id] = invoice
        self._alive.append(invoice)
        if sub is not None:
            sub.latest_invoice_id = invoice.id
            begin = self.now if reason == "manual" else sub.period_start
            invoice.covers = (begin, sub.period_end)
        self.tell("invoice.created", invoice)
        return invoice

    def finalize(self, invoice: Invoice) -> None:
        """Balance and minimum charge come in here, as at Stripe."""
        customer = invoice.customer
        due, customer.balance_minor = amounts(
            invoice.total, customer.balance_minor, invoice.currency
        )
        invoice.status = "open"
        invoice.amount_due = invoice.remaining = due
        invoice.balance_after = customer.balance_minor
        invoice.number = f"F-{len(self.invoices):04d}"
        if invoice.days_until_due is not None:
            invoice.due_at = self.now + invoice.days_until_due * DAY_S
        invoice.finalizes_at = None
        self.tell("invoice.finalized", invoice)
        if due == 0:
            self.mark_paid(invoice)

    def mark_paid(self, invoice: Invoice, *, off_stripe: bool = False) -> None:
        invoice.status = "paid"
        invoice.paid += invoice.remaining
        invoice.off_stripe += invoice.remaining if off_stripe else 0
        invoice.remaining = 0
        invoice.auto_advance = False
        invoice.next_attempt = None
        if off_stripe:
            invoice.card = "none"
        self.tell("invoice.paid", invoice)
        sub = invoice.subscription
        revived = ("incomplete", "past_due", "unpaid")
        if sub and sub.latest_invoice_id == invoice.id and sub.status in revived:
            sub.status = "active"
            self.tell("customer.subscription.updated", sub)

    def void(self, invoice: Invoice) -> None:
        invoice.status = "void"
        invoice.auto_advance = False
        invoice.next_attempt = None
        invoice.card = "none"
        # What was applied goes back, credit and debt alike (`unapplied_from_invoice`).
        invoice.customer.balance_minor += invoice.amount_due - invoice.total
        self.tell("invoice.voided", invoice)
        sub = invoice.subscription
        if sub and sub.latest_invoice_id == invoice.id:
            if sub.status == "incomplete":
                sub.status = "incomplete_expired"
                self.tell("customer.subscription.updated", sub)
            elif sub.status in ("past_due", "unpaid"):
                sub.status = "active"
                self.tell("customer.subscription.updated", sub)

    def charge(self, invoice: Invoice) -> bool:
        """One card attempt; whether the card was good, or is still trying."""
        invoice.attempts += 1
        card = invoice.customer.card
        if card == "ok":
            invoice.card = "paid"
            self.mark_paid(invoice)
            return True
        if card == "processing":
            invoice.card = "in_progress"
            return True
        if card == "requires_action":
            invoice.card = "waiting_for_customer"
        elif card == "decline":
            invoice.card = "failed"
        self.tell("invoice.payment_failed", invoice)
        sub = invoice.subscription
        if sub and sub.latest_invoice_id == invoice.id and sub.status == "active":
            sub.status = "past_due"
            self.tell("customer.subscription.updated", sub)
        return False

    def _collect(self, invoice: Invoice) -> None:
        """What Stripe does by itself while `auto_advance` is true."""
        if invoice.status == "draft":
            self.finalize(invoice)
        invoice.next_attempt = None
        if invoice.status != "open" or invoice.card == "in_progress":
            return
        # A sent one is never charged by itself.
        if invoice.days_until_due is not None or self.charge(invoice):
            return
        if invoice.attempts <= len(RETRY_DAYS):
            invoice.next_attempt = self.now + RETRY_DAYS[invoice.attempts - 1] * DAY_S
        else:
            self._give_up(invoice)

    def _give_up(self, invoice: Invoice) -> None:
        """After the last retry a setting of the Dashboard decides."""
        invoice.auto_advance = False
        sub = invoice.subscription
        if sub is None or sub.latest_invoice_id != invoice.id or sub.is_terminal:
            return
        if self.after_last_retry == "cancel":
            self.cancel(sub)
        elif self.after_last_retry == "unpaid":
            sub.status = "unpaid"
            self.tell("customer.subscription.updated", sub)

    # --- items -----------------------------------------------------------------------------

    def proration(self, sub: Subscription, old: int, new: int, price: Price, at: int) -> list[int]:
        """Credit the whole old quantity, debit the new one, each floored, for what is left."""
        left = max(0, sub.period_end - at) / (sub.period_end - sub.period_start)
        lines = [-math.floor(old * price.amount_minor * left)] if old else []
        return lines + ([math.floor(new * price.amount_minor * left)] if new else [])
