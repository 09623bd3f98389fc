"""Stripe's objects as billing reads them: typed, frozen, only the fields that decisions need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar

T = TypeVar("T")

InvoiceStatus: TypeAlias = Literal["draft", "open", "paid", "uncollectible", "void", "deleted"]
OpenStatus: TypeAlias = Literal["draft", "open", "uncollectible"]
"""What is not final: paying, voiding or deleting it is still possible."""
Prorations: TypeAlias = Literal["create_prorations", "none"]

PUBKEY_KEY: Final = "purser_pubkey"
"""Customer metadata: whose it is, on all that Purser made."""
TENANT_KEY: Final = "purser_tenant"
"""Subscription metadata: whose it is, on all that Purser made."""
TERMINAL_SUBSCRIPTION_STATES = frozenset({"canceled", "incomplete_expired"})
"""`unpaid` and `past_due` are not terminal: paying brings them back (facts/stripe.md)."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Up to 100 objects of a list, newest first; `after` asks for the next page, None: the end."""

    rows: tuple[T, ...]
    after: str | None


@dataclass(frozen=True, slots=True)
class AccountView:
    """`livemode` as the key has it."""

    id: str
    livemode: bool


@dataclass(frozen=True, slots=True)
class CustomerView:
    """`balance_minor` is Stripe's sign: negative is credit the customer has."""

    id: str
    deleted: bool
    balance_minor: int
    currency: str | None
    default_payment_method: str | None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SubscriptionItemView:
    """One price of a subscription; the period stands here at this API version. The price's
    `lookup_key` tells which plan it is of, today's price or an earlier one (billing.plans)."""

    id: str
    price_id: str
    quantity: int
    period_start: int
    period_end: int
    lookup_key: str | None = None


@dataclass(frozen=True, slots=True)
class SubscriptionView:
    """A subscription; `items` never share a price."""

    id: str
    customer_id: str
    status: str
    items: tuple[SubscriptionItemView, ...]
    cancel_at_period_end: bool
    latest_invoice_id: str | None
    collection_method: str
    created_at: int
    metadata: Mapping[str, str] = field(default_factory=dict)
    cancel_at: int | None = None
    """Set too where it ends with its period."""
    pause_behavior: str | None = None
    """What `pause_collection` makes of its invoices: void, keep_as_draft, mark_uncollectible."""

    @property
    def is_terminal(self) -> bool:
        """Nothing can bring it back."""
        return self.status in TERMINAL_SUBSCRIPTION_STATES

    @property
    def period_start(self) -> int | None:
        """Begin of the running period, the latest of its items."""
        return max((item.period_start for item in self.items), default=None)

    @property
    def period_end(self) -> int | None:
        """End of the running period, the latest of its items."""
        return max((item.period_end for item in self.items), default=None)


@dataclass(frozen=True, slots=True)
class InvoiceView:
    """An invoice, re-fetched; amounts in minor units of `currency`. `period_*` is Stripe's, for a
    renewal the time before it; `covers_*` is what its charged lines pay for."""

    id: str
    customer_id: str
    subscription_id: str | None
    status: InvoiceStatus
    currency: str
    total_minor: int
    amount_due_minor: int
    amount_remaining_minor: int
    amount_paid_minor: int
    amount_paid_off_stripe_minor: int
    auto_advance: bool
    billing_reason: str | None
    created_at: int
    due_at: int | None
    period_start: int
    period_end: int
    number: str | None
    hosted_invoice_url: str | None
    attempted: bool = False
    next_payment_attempt_at: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    covers_from: int | None = None
    covers_until: int | None = None
    collection_method: str = "charge_automatically"
    balance_after_minor: int | None = None
    """The customer's balance that finalizing left, with Stripe's sign: above zero it is owed, as
    what was too little to charge is."""
    made_for: str | None = None
    """The tenant that its subscription's metadata named when it was made (`TENANT_KEY`)."""
    seats: int | None = None
    """Relays that its charged lines are for, prorations left out; None: not all lines are known."""

    def is_beside(self, subscription_id: str | None) -> bool:
        """Of a subscription that somebody made at Stripe beside the tenant's own, whose id that
        is: one that Purser made says for whom, also when it is over."""
        ids = (None, subscription_id)
        return subscription_id is not None and self.subscription_id not in ids and not self.made_for


@dataclass(frozen=True, slots=True)
class ItemChange:
    """One row of an atomic items update: quantity 0 deletes; item_id None adds the price."""

    price_id: str
    quantity: int
    item_id: str | None = None


@dataclass(frozen=True, slots=True)
class PreviewView:
    """An invoice that Stripe would make, of which nothing was written; minor units of `currency`.
    `amount_due_minor` is what is left of `total_minor` after the customer's credit."""

    total_minor: int
    amount_due_minor: int
    currency: str


CardProgress: TypeAlias = Literal["none", "in_progress", "waiting_for_customer", "failed", "paid"]


@dataclass(frozen=True, slots=True)
class StripeEvent:
    """One row of `/v1/events`, kept as the raw object; `id` is the one the webhook carries."""

    id: str
    type: str
    created_at: int
    livemode: bool
    raw: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class EventPage:
    """Oldest first; `more`: ask again with the last id as the cursor."""

    events: tuple[StripeEvent, ...]
    more: bool


TraceKind: TypeAlias = Literal["refund", "dispute", "credit_note"]


@dataclass(frozen=True, slots=True)
class Trace:
    """That money went back, as a list shows it: enough to have it read again by its id."""

    kind: TraceKind
    id: str
    status: str


@dataclass(frozen=True, slots=True)
class RefundView:
    """Money that went back to a card. `status`: pending, requires_action, succeeded, failed,
    canceled. `customer_id` is that of its payment, where it has one."""

    id: str
    amount_minor: int
    currency: str
    status: str
    payment_intent_id: str | None
    customer_id: str | None
    operation_id: str | None


@dataclass(frozen=True, slots=True)
class CreditNoteView:
    """A credit note of a finalized invoice; `amount_minor` is the sum of its parts."""

    id: str
    invoice_id: str
    customer_id: str
    amount_minor: int
    currency: str
    is_issued: bool
    operation_id: str | None
    refund_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DisputeView:
    """A payment that the cardholder's bank takes back. `status`: needs_response, under_review,
    won, lost, warning_…; `evidence_due_at`: until when an answer counts."""

    id: str
    amount_minor: int
    currency: str
    status: str
    reason: str
    payment_intent_id: str | None
    customer_id: str | None
    evidence_due_at: int | None


@dataclass(frozen=True, slots=True)
class PaymentMethodView:
    """What Stripe can charge a customer with; `customer_id` None: it is attached to nobody.
    `exp_month` and `exp_year` are a card's last month."""

    id: str
    customer_id: str | None
    kind: str
    brand: str | None
    last4: str | None
    exp_month: int | None
    exp_year: int | None


@dataclass(frozen=True, slots=True)
class CardPage:
    """A page at Stripe where a customer leaves a card. `url` lets in whoever has it; `expires_at`
    None: within minutes, Stripe does not say when."""

    url: str = field(repr=False)
    session_id: str
    expires_at: int | None


@dataclass(frozen=True, slots=True)
class CheckoutView:
    """A Checkout session, once somebody was there; `payment_method_id` is what they left."""

    id: str
    mode: str
    is_complete: bool
    customer_id: str | None
    payment_method_id: str | None
