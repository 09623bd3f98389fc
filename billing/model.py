"""The records of billing as plain values: states are closed sets, amounts and times carry units."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class RelayState(StrEnum):
    """A hosted relay's life. Only `active` and `limited` answer; `ended` is terminal."""

    PENDING_PAYMENT = "pending_payment"
    ACTIVE = "active"
    LIMITED = "limited"
    STOPPED = "stopped"
    ENDED = "ended"


class RequestState(StrEnum):
    """A payment request's life (M2): at most one open for each invoice."""

    OPEN = "open"
    SETTLED = "settled"
    DEAD = "dead"


class AttemptState(StrEnum):
    """A payment attempt's life. There is no stored "unknown" (M5)."""

    PREPARED = "prepared"
    IN_FLIGHT = "in_flight"
    SETTLED = "settled"
    REFUSED = "refused"
    DEAD = "dead"


class Purpose(StrEnum):
    """Why a payment request exists: it decides how long it lives (M7) and who may see it (M4)."""

    AUTOMATIC = "automatic"
    SHOWN = "shown"
    ADOPTED = "adopted"


class Rail(StrEnum):
    """How money moves. `manual` is a payment request that the tenant pays by hand."""

    NWC = "nwc"
    CARD = "card"
    MANUAL = "manual"


class ConnectionRole(StrEnum):
    """Payee: the operator's wallet. Payer: a tenant's. Spender: the operator's second connection,
    with a budget, for refunds."""

    PAYEE = "payee"
    PAYER = "payer"
    SPENDER = "spender"


class ConnectionState(StrEnum):
    """`replaced` and `off` connections stay resolvable until their requests are dead."""

    PROBING = "probing"
    ACTIVE = "active"
    REPLACED = "replaced"
    OFF = "off"


class SettlementState(StrEnum):
    """Where proven money is: still to be placed, or in its final home (M9, M10)."""

    RECEIVED = "received"
    PLACED = "placed"
    CREDITED = "credited"
    LIABILITY = "liability"


@dataclass(frozen=True, slots=True)
class Tenant:
    """A Nostr pubkey that owns hosted relays."""

    pubkey: str
    name: str
    customer_id: str | None
    subscription_id: str | None
    subscription_status: str | None
    period_end: int | None
    legacy_dm: bool
    created_at: int
    sync_due_at: int | None
    sync_attempts: int
    sync_wishes: int
    ending_subscription_id: str | None
    seats: str | None


@dataclass(frozen=True, slots=True)
class HostedRelay:
    """The product. `wanted_rev`/`applied_rev` tell whether the relay host has caught up."""

    id: str
    tenant: str
    name: str
    plan: str
    state: RelayState
    stops_at: int | None
    stop_requested_at: int | None
    wanted_rev: int
    applied_rev: int
    sync_due_at: int | None
    sync_attempts: int
    sync_error: str | None
    created_at: int
    expires_at: int | None
    activated_at: int | None
    lapses_at: int | None
    resumes: int

    @property
    def is_renewed(self) -> bool:
        """It belongs into the subscription. Delinquency does not change that (C10): only a stop
        does, or that its subscription ended and nobody said `resume` yet (C9)."""
        return (
            self.state is not RelayState.ENDED
            and self.stop_requested_at is None
            and self.lapses_at is None
        )

    @property
    def was_brought_up(self) -> bool:
        """It was paid for and up, and has neither ended nor lapsed since."""
        return self.activated_at is not None and self.state in (
            RelayState.ACTIVE,
            RelayState.LIMITED,
            RelayState.STOPPED,
        )

    @property
    def is_lapsed(self) -> bool:
        """Nothing pays for it and nothing is ordered: it waits for its tenant's `resume`."""
        return self.state is RelayState.PENDING_PAYMENT and self.lapses_at is not None


@dataclass(frozen=True, slots=True)
class Connection:
    """One NWC connection, the URI sealed by the vault."""

    id: str
    role: ConnectionRole
    tenant: str | None
    sealed_uri: str = field(repr=False)
    wallet_pubkey: str
    masked: str
    encryption: str | None
    state: ConnectionState
    methods: str | None
    probed_at: int | None
    probe_due_at: int | None
    problem: str | None
    created_at: int
    ended_at: int | None


def may_pay(payer: Connection) -> bool:
    """Whether it has not said that it may not; one that was never asked has said nothing."""
    return not payer.methods or "pay_invoice" in payer.methods.split()


@dataclass(frozen=True, slots=True)
class Invoice:
    """Our mirror of a Stripe invoice, as last re-fetched, and what collection does with it."""

    id: str
    tenant: str
    customer_id: str
    subscription_id: str | None
    status: str
    currency: str
    total_minor: int
    amount_due_minor: int
    amount_remaining_minor: int
    billing_reason: str | None
    number: str | None
    created_at: int
    period_start: int
    period_end: int
    fetched_at: int
    collect_due_at: int | None
    collect_attempts: int
    collect_wishes: int
    nwc_tries: int
    nwc_retry_at: int | None
    show_wanted: int
    paid_at: int | None
    paid_by: str | None

    @property
    def is_unpaid(self) -> bool:
        """A draft, open or written off: paying it is still possible."""
        return self.status in ("draft", "open", "uncollectible")


@dataclass(frozen=True, slots=True)
class PaymentRequest:
    """The Lightning invoice our wallet issued for one invoice, with the rate it was made at."""

    id: str
    invoice_id: str
    tenant: str
    payee_connection_id: str
    purpose: Purpose
    payment_hash: str
    bolt11: str
    amount_msat: int
    amount_minor: int
    currency: str
    rate: str
    rate_sources: str
    rate_at: int
    state: RequestState
    created_at: int
    expires_at: int
    margin_s: int
    noted_at: int | None
    shown_at: int | None
    lookups: int
    unpaid_since: int | None
    unpaid_lookups: int
    not_found_lookups: int
    next_lookup_at: int | None
    hints: int
    last_lookup_at: int | None
    failed_lookups_since: int | None
    escalated_at: int | None
    claimed_at: int | None
    ended_at: int | None
    watch_until: int


@dataclass(frozen=True, slots=True)
class PaymentAttempt:
    """One try on one automatic rail; the signed request is stored before anything is sent (M1)."""

    id: str
    invoice_id: str
    request_id: str | None
    tenant: str
    rail: Rail
    connection_id: str | None
    operation_id: str | None
    payment_hash: str | None
    event_id: str | None
    event_json: str | None
    encryption: str | None
    expiration: int | None
    state: AttemptState
    fence: int
    prepared_at: int
    in_flight_at: int | None = None
    writes: int = 0
    relay_url: str | None = None
    outcome: str | None = None
    reason: str | None = None
    preimage: str | None = field(default=None, repr=False)
    ended_at: int | None = None
    payer_asked_at: int | None = None

    @property
    def is_live(self) -> bool:
        """It may still move money (M4)."""
        return self.state in (AttemptState.PREPARED, AttemptState.IN_FLIGHT)


@dataclass(frozen=True, slots=True)
class Settlement:
    """Money proven by our own wallet (M6) on its way to its home (M9, M10)."""

    payment_hash: str
    request_id: str
    tenant: str
    invoice_id: str
    amount_msat: int
    value_minor: int
    currency: str
    state: SettlementState
    target_invoice_id: str | None
    pay_operation_id: str | None
    credit_operation_id: str | None
    credit_minor: int
    seen_at: int
    settled_at: int
    next_try_at: int | None
    attempts: int


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """Something we have to say to somebody: its kind and facts, rendered at the first send."""

    key: str
    seq: int
    recipient: str
    kind: str
    facts: str
    request_id: str | None
    sealed_rumor: str | None = field(repr=False)
    state: str
    attempts: int
    next_try_at: int | None
    created_at: int
    delivered_at: int | None
    answers: str | None


@dataclass(frozen=True, slots=True)
class InboxEvent:
    """One Stripe event as received; `payload` is only read for its ids (M14)."""

    event_id: str
    type: str
    object_id: str | None
    api_created: int
    livemode: bool
    account: str | None
    payload: str
    received_at: int
    handled_at: int | None
    state: str
    attempts: int
    next_try_at: int | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Activity:
    """One line of the audit log."""

    seq: int
    at: int
    billing_at: int
    kind: str
    tenant: str | None
    subject: str | None
    facts: str


@dataclass(frozen=True, slots=True)
class Change:
    """A step-by-step change of a subscription that survives a crash between any two steps."""

    id: str
    tenant: str
    kind: str
    step: str
    quantities: str
    relays: str
    items_operation_id: str
    invoice_operation_id: str
    invoice_id: str | None
    attempts: int
    created_at: int
    done_at: int | None
    outcome: str | None
    proration_at: int | None
    begun_at: int | None
