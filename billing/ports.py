"""What billing asks of the world, as small Protocols owned here and implemented elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from billing.card_ports import CardGateway
from billing.model import Connection
from billing.refund_ports import RefundGateway
from billing.views import (
    AccountView,
    CardProgress,
    CustomerView,
    EventPage,
    InvoiceView,
    ItemChange,
    OpenStatus,
    Page,
    PreviewView,
    Prorations,
    SubscriptionView,
    Trace,
    TraceKind,
)
from wallet.ports import LookupAnswer, Payee, Payer

if TYPE_CHECKING:
    from billing.rates import Rate


class Clock(Protocol):
    """Two clocks (DESIGN): wire time is always real; billing time is what Stripe lives in."""

    def now(self) -> int:
        """Wire time, epoch seconds UTC: signatures, bolt11, expiry, look-ups, back-off."""
        ...

    def billing_now(self) -> int:
        """Billing time, epoch seconds UTC: periods, due dates, dunning."""
        ...


class Ids(Protocol):
    """Injected randomness, so that a seed reproduces a run."""

    def new(self, prefix: str) -> str:
        """A fresh id `<prefix>_<hex>`."""
        ...

    def token_bytes(self, count: int) -> bytes: ...

    def uniform(self) -> float:
        """In [0, 1): for jitter only."""
        ...


class StripeGateway(RefundGateway, CardGateway, Protocol):
    """Stripe as billing sees it: typed views, raw pages, and an operation id on every write (M11).

    `operation_id` is the idempotency key *and* goes into the created object's metadata as
    `purser_operation`; empty is an error. Raises `StripeUnavailable`, `StripeRejected`,
    `StripeMissing`, `CardDeclined` (billing.errors). Amounts are minor units of `currency`.
    """

    async def account(self) -> AccountView: ...

    async def ensure_price(
        self,
        operation_id: str,
        *,
        lookup_key: str,
        product_name: str,
        amount_minor: int,
        currency: str,
        interval: Literal["month", "year"],
    ) -> str:
        """The id of the active price with this lookup key, created when there is none; a price that
        exists with another amount, currency or interval is a `StripeRejected` (M12)."""
        ...

    async def create_customer(
        self, operation_id: str, *, pubkey: str, name: str, email: str | None
    ) -> CustomerView: ...

    async def find_customer(self, pubkey: str) -> CustomerView | None:
        """By metadata `purser_pubkey`, oldest first, not deleted; pages through the list."""
        ...

    async def customer(self, customer_id: str) -> CustomerView: ...

    async def create_subscription(
        self,
        operation_id: str,
        *,
        customer_id: str,
        quantities: Mapping[str, int],
        metadata: Mapping[str, str],
        days_until_due: int | None = None,
    ) -> SubscriptionView:
        """Quantities by price id; `default_incomplete`, `charge_automatically`, flexible.

        With `days_until_due` it is `send_invoice`: active at once, its first invoice a draft, and
        the customer needs an e-mail address."""
        ...

    async def subscription(self, subscription_id: str) -> SubscriptionView: ...

    async def subscriptions_of(self, customer_id: str) -> Sequence[SubscriptionView]:
        """All, terminal ones too, newest first."""
        ...

    async def update_items(
        self,
        operation_id: str,
        subscription_id: str,
        changes: Sequence[ItemChange],
        prorations: Prorations,
        *,
        proration_at: int | None = None,
    ) -> SubscriptionView:
        """One atomic items=[…] update. `proration_at` (epoch seconds within the running period):
        as of when lines are prorated, so that they are what a preview said; else as of now."""
        ...

    async def preview_change(
        self, subscription_id: str, changes: Sequence[ItemChange], *, proration_at: int | None
    ) -> PreviewView:
        """What these changes would cost; nothing is written. With `proration_at`: their proration
        lines as an invoice of their own. Without: the next renewal, nothing prorated. For a
        subscription that makes no more invoices a `StripeRejected`."""
        ...

    async def set_cancel_at_period_end(
        self, operation_id: str, subscription_id: str, cancel: bool
    ) -> SubscriptionView: ...

    async def cancel_subscription(
        self, operation_id: str, subscription_id: str, *, credit: bool = False
    ) -> None:
        """At once; one that has ended already is fine. With `credit` what is left of the period
        goes to the customer's balance, by a last invoice of a negative total."""
        ...

    async def create_pending_invoice(
        self, operation_id: str, *, customer_id: str, subscription_id: str
    ) -> InvoiceView | None:
        """An invoice of the pending proration lines, auto_advance=false; None: nothing pending."""
        ...

    async def find_invoice(self, customer_id: str, operation_id: str) -> InvoiceView | None:
        """The invoice whose metadata carries this operation id."""
        ...

    async def invoices_of(self, customer_id: str) -> Sequence[InvoiceView]:
        """All of one customer, whatever their state, newest first."""
        ...

    async def is_credited(self, customer_id: str, operation_id: str) -> bool:
        """Whether this credit stands on the customer's balance (`credit_customer`)."""
        ...

    async def invoice(self, invoice_id: str) -> InvoiceView: ...

    async def finalize_invoice(self, operation_id: str, invoice_id: str) -> InvoiceView:
        """With auto_advance=false."""
        ...

    async def stop_auto_advance(self, operation_id: str, invoice_id: str) -> InvoiceView: ...

    async def annotate_invoice(
        self, operation_id: str, invoice_id: str, metadata: Mapping[str, str]
    ) -> InvoiceView:
        """Merge these metadata keys (values ≤ 500 characters, keys ≤ 40)."""
        ...

    async def void_invoice(self, operation_id: str, invoice_id: str) -> InvoiceView: ...

    async def pay_out_of_band(self, operation_id: str, invoice_id: str) -> InvoiceView: ...

    async def pay_by_card(
        self, operation_id: str, invoice_id: str, *, permit: Callable[[], bool]
    ) -> InvoiceView:
        """One explicit attempt with the customer's default payment method.

        `permit` is asked when the request is about to be written; while it says no nothing is sent
        and `StripeUnavailable` is raised.
        """
        ...

    async def card_progress(self, invoice_id: str) -> CardProgress:
        """Whether Stripe is collecting this invoice by card right now."""
        ...

    async def credit_customer(
        self,
        operation_id: str,
        *,
        customer_id: str,
        amount_minor: int,
        currency: str,
        description: str,
        key: str | None = None,
    ) -> str:
        """A positive amount of credit on the customer's balance; returns the transaction's id.
        Looks for the operation id among the customer's transactions first when told again; `key`
        is another idempotency key than that id, where it replays an error (M11)."""
        ...

    async def debit_customer(
        self,
        operation_id: str,
        *,
        customer_id: str,
        amount_minor: int,
        currency: str,
        description: str,
        key: str | None = None,
    ) -> int:
        """Takes a positive amount from the customer's balance, once, as `credit_customer` gives it;
        returns the balance after it with Stripe's sign: above zero it was overdrawn."""
        ...

    async def invoice_page(
        self, after: str | None, *, status: OpenStatus | None = None, since: int = 0
    ) -> Page[InvoiceView]:
        """Invoices of the account, newest first: those in one state, or all created since then.
        `after`: what the page before said; None begins."""
        ...

    async def traces_since(self, kind: TraceKind, since: int) -> Sequence[Trace]:
        """What went back of all customers' money since then, whoever ordered it, newest first."""
        ...

    async def all_customers(self) -> Sequence[CustomerView]:
        """Every customer of the account that is not deleted, newest first."""
        ...

    async def subscription_page(self, after: str | None) -> Page[SubscriptionView]:
        """The account's subscriptions that are not terminal, newest first. A page may be empty
        although another follows: terminal ones are taken out of it."""
        ...

    async def events_after(self, cursor: str | None, since: int) -> EventPage:
        """Up to 100 events newer than the cursor (an event id), oldest first; without a cursor,
        those created since then."""
        ...


@dataclass(frozen=True, slots=True)
class DesiredRelay:
    """What a relay host is asked to make true for one hosted relay."""

    relay_id: str
    name: str
    host: str
    owner_pubkey: str
    plan: str
    active: bool
    limited: bool
    settings: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class RelayApplied:
    """Written, and seen from outside as wanted."""


@dataclass(frozen=True, slots=True)
class RelayRefused:
    """The host said no; `permanent` means that trying again will not help."""

    reason: str
    permanent: bool


@dataclass(frozen=True, slots=True)
class RelayUnreachable:
    """No answer, or not yet effective: try again later."""

    reason: str


ApplyAnswer: TypeAlias = RelayApplied | RelayRefused | RelayUnreachable


class HostedRelays(Protocol):
    """A relay host."""

    async def apply(self, relay: DesiredRelay) -> ApplyAnswer: ...

    def url_of(self, relay: DesiredRelay) -> str:
        """The public wss:// (sandbox: ws://) URL told to the tenant."""
        ...

    async def check(self) -> list[str]:
        """Problems an operator must know, for `purser check`; empty is good."""
        ...


@dataclass(frozen=True, slots=True)
class RateQuote:
    """One source's answer. `price` is a decimal string: units of currency for one bitcoin."""

    source: str
    currency: str
    price: str
    observed_at: int


class RateSource(Protocol):
    """One public source of the exchange rate."""

    @property
    def name(self) -> str: ...

    async def fetch(self, currency: str) -> RateQuote:
        """Raises `NoQuote` on time-out, refusal or nonsense."""
        ...


@dataclass(frozen=True, slots=True)
class RelayAnswer:
    """One relay's answer to a published event; `accepted` None: no OK in time."""

    relay_url: str
    accepted: bool | None
    message: str


class Payees(Protocol):
    """The operator's wallets by stored connection; clients are made on demand and kept."""

    async def payee(self, connection: Connection) -> Payee: ...


class Payers(Protocol):
    """The tenants' wallets by stored connection; clients are made on demand and kept."""

    async def payer(self, connection: Connection) -> Payer: ...


class OutgoingLookup(Protocol):
    """All that deciding an old payment may do with the wallet that was to make it: ask (M8)."""

    async def lookup_outgoing(self, connection: Connection, payment_hash: str) -> LookupAnswer: ...


class Quoter(Protocol):
    """The exchange rate that may be used now."""

    async def quote(self, currency: str) -> Rate:
        """Raises `NoQuote`: no quorum, too old, or the breaker is open."""
        ...


class Courier(Protocol):
    """Delivers one outbox message to a person; rendered and sealed by `bot.dm.outbound`."""

    async def deliver(
        self, message_key: str, recipient: str, kind: str, facts: Mapping[str, object]
    ) -> Sequence[RelayAnswer]: ...
