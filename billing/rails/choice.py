"""The pure choice of the next step for one invoice: which rail, or why to wait.

One payer at a time (M4), one live payment request (M2), automatic rails only when nothing issued
before can still be paid. Everything it needs is passed in; nothing is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from billing.model import (
    Connection,
    ConnectionState,
    Invoice,
    PaymentAttempt,
    PaymentRequest,
    Purpose,
    Rail,
    RequestState,
)
from billing.payments import AUTOMATIC_EXPIRY_S, SHOWN_EXPIRY_S, is_beyond_margin, sure_at
from billing.rails.card_note import NOT_SENT, NOTHING_MADE, NotedCard
from billing.rails.issue import NotedRequest
from billing.rails.steps import (
    Adopt,
    AdoptCard,
    Finalize,
    Finished,
    Show,
    SpendCredit,
    Step,
    TakeOver,
    TryCard,
    TryNwc,
    Void,
    Wait,
)
from billing.store.spends import CreditSpend
from billing.views import CardProgress, InvoiceView

FIRST_INVOICE_LIFE_S: Final = 22 * 3600
"""Stripe voids an unpaid first invoice at 23 h: no request may outlive 22 h of its age."""
NWC_RETRY_AFTER_S: Final = (86400, 3 * 86400)
"""Unless it is configured otherwise, NWC is tried again at T+1 and T+3 (billing time since the
invoice was created)."""
REUSE_LEFT_S: Final = 300
"""An unused automatic request is tried only with this much life left for the wallet."""
PROBE_PATIENCE_S: Final = 30
"""A wallet connected in the same breath as the order is worth this long a wait."""
CARD_LOOK_S: Final = 60
"""Between two looks at a card payment: Stripe's own event usually comes first."""
MAX_LOST_CARD_TRIES: Final = 2
"""A `pay` that never reached Stripe is made again: a crash does not repeat, a refusal does."""
MARGIN_LOOK_S: Final = 30
"""After a margin has ended the resolver looks first, then collection."""
IDLE_S: Final = 6 * 3600
"""Nothing open is left unvisited for longer, whatever was to wake it."""
PAUSED_LOOK_S: Final = 300
"""Whether wallets are asked again after a mass failure; its end wakes those that failed."""
SHOW_LEFT_S: Final = 120
"""A person needs at least this long to pay what is shown."""


@dataclass(frozen=True, slots=True)
class CardSince:
    """Since when the present card is the default, by both clocks."""

    at: int
    billing_at: int


@dataclass(frozen=True, slots=True)
class UnseenCard:
    """Another one than was last seen: a look at it is on its way."""


@dataclass(frozen=True, slots=True)
class Situation:
    """All that the choice depends on."""

    view: InvoiceView
    invoice: Invoice
    requests: Sequence[PaymentRequest]
    attempts: Sequence[PaymentAttempt]
    payer: Connection | None
    has_card: bool
    card: CardProgress
    unknown: tuple[NotedRequest, ...]
    unknown_cards: tuple[NotedCard, ...]
    money_in_hand: bool
    orphaned: bool
    rails: tuple[Rail, ...]
    payee_margin_s: int
    of_this_life: frozenset[str]
    now: int
    billing_now: int
    nwc_retry_after_s: tuple[int, ...] = NWC_RETRY_AFTER_S
    nwc_paused: bool = False
    spend: CreditSpend | None = None
    credit_minor: int = 0
    customer_gone: bool = False
    card_seen: CardSince | UnseenCard | None = None


def choose(s: Situation) -> Step:
    """The next step for an invoice that was just re-fetched."""
    if s.spend is not None:
        # Whatever became of the invoice: what was taken from the balance finds its end.
        return SpendCredit(s.spend)
    if _is_asked_for_though_written_off(s):
        return _adoption(s) or _manual(s, _open_request(s)) or Wait("nothing can be shown now")
    return _over(s) or _adoption(s) or _ending(s) or _credit(s) or _preparation(s)


def _adoption(s: Situation) -> Step | None:
    """What is noted at Stripe and unknown here, and what is under way."""
    if s.unknown:
        if any(request.state is RequestState.OPEN for request in s.requests):
            return Wait("a payment request of another life waits until this one is dead")
        return Adopt(s.unknown)
    blocked = _money_under_way(s)
    if blocked is not None:
        return blocked
    # Nothing of ours is under way, so it can take the one live place there is.
    return AdoptCard(s.unknown_cards[0]) if s.unknown_cards else None


def _ending(s: Situation) -> Step | None:
    """Nothing more is asked of whom the operator has let go (billing.customer_events)."""
    if not s.customer_gone:
        return None
    return Finished("its customer was deleted") if s.view.status == "draft" else _void(s)


def _preparation(s: Situation) -> Step:
    """Everything of it in our hands, then a rail."""
    # What is given up is taken from Stripe too, whose retries would still charge for it.
    if _is_cards_alone(s) and not s.orphaned:
        return Finished("stays with Stripe: the tenant pays by card only")
    if s.view.status == "draft":
        return Finalize()
    if s.view.auto_advance:
        return TakeOver()
    if s.orphaned:
        return _void(s)
    if s.view.amount_remaining_minor <= 0:
        return Finished("nothing to pay")
    return _choose_rail(s)


def next_nwc_retry_at(s: Situation) -> int | None:
    """Billing time of the next automatic try over NWC, None when there is none."""
    if s.payer is None or Rail.NWC not in s.rails or s.invoice.nwc_tries == 0:
        return None
    if s.invoice.nwc_tries > len(s.nwc_retry_after_s):
        return None
    return s.view.created_at + s.nwc_retry_after_s[s.invoice.nwc_tries - 1]


def wake_at(s: Situation, step: Wait) -> int:
    """When a waiting invoice is visited again although nothing happened (wire time)."""
    if step.until is not None:
        return step.until
    if any(a.rail is Rail.CARD and a.is_live for a in s.attempts):
        return s.now + CARD_LOOK_S
    ends = [sure_at(r) for r in _not_beyond(s) if r.state is RequestState.DEAD]
    return max(*ends, s.now) + MARGIN_LOOK_S if ends else s.now + IDLE_S


def _over(s: Situation) -> Step | None:
    # Paid while this view was on its way: a newer answer of Stripe's is stored already.
    for status in (s.view.status, s.invoice.status):
        if status not in ("draft", "open"):
            if any(a.rail is Rail.CARD and a.is_live for a in s.attempts):
                return Wait("its card attempt has no end yet")
            return Finished(status)
    return None


def _is_asked_for_though_written_off(s: Situation) -> bool:
    """Uncollectible: nothing is charged by itself any more, and who wants to pay still can."""
    is_written_off = s.view.status == s.invoice.status == "uncollectible"
    return is_written_off and s.invoice.show_wanted > 0 and s.view.amount_remaining_minor > 0


def _money_under_way(s: Situation) -> Wait | None:
    for attempt in s.attempts:
        if attempt.is_live:
            return Wait(f"a payment over {attempt.rail.value} is under way")
    if s.money_in_hand:
        return Wait("money for it has arrived and is being placed")
    if any(_is_claimed(request) for request in s.requests) and not s.invoice.show_wanted:
        return Wait("the tenant's wallet says that it paid")
    if s.card == "in_progress":
        return Wait("Stripe is collecting it by card right now", s.now + CARD_LOOK_S)
    return None


def _is_claimed(request: PaymentRequest) -> bool:
    """The payer showed the preimage (M6): beyond its death too, nothing else is charged by itself;
    operators were told, and the tenant may ask to pay by hand."""
    return request.claimed_at is not None and request.state is not RequestState.SETTLED


def _credit(s: Situation) -> Step | None:
    """Credit that came after Stripe had applied the balance pays the invoice before anybody is
    asked, once nothing that was issued for it can still be paid (M4)."""
    is_owed = s.view.status == "open" and 0 < s.view.amount_remaining_minor <= s.credit_minor
    if not is_owed or s.orphaned or any(_is_claimed(request) for request in s.requests):
        return None
    pending = [sure_at(r) for r in _not_beyond(s)]
    if pending:
        # Who asks for a request is shown one; nothing is offered meanwhile.
        until = max(*pending, s.now + MARGIN_LOOK_S)
        is_shown = any(r.state is RequestState.OPEN for r in s.requests)
        why = "credit pays it once its payment requests are dead"
        return None if s.invoice.show_wanted or is_shown else Wait(why, until)
    return TakeOver() if s.view.auto_advance else SpendCredit()


def _is_cards_alone(s: Situation) -> bool:
    """Stripe collects it and tries again by itself. Where it does not, as for additions and first
    invoices, or where a payment request lives, it is ours to collect."""
    if any(request.state is RequestState.OPEN for request in s.requests):
        return False
    has_only_card = s.has_card and s.payer is None and Rail.CARD in s.rails
    is_stripes = s.view.auto_advance and s.view.collection_method == "charge_automatically"
    return has_only_card and is_stripes and not s.invoice.show_wanted and not _card_came_since(s)


def _card_came_since(s: Situation) -> bool:
    """Stripe has tried in vain, with a card that was there before: a new one need not wait for
    Stripe's next try, days away. It is one explicit `pay` (M4)."""
    seen = s.card_seen
    is_newer = isinstance(seen, CardSince) and seen.billing_at > s.view.created_at
    return s.view.status == "open" and s.view.attempted and is_newer and not _card_was_tried(s)


def _card_was_tried(s: Situation) -> bool:
    """By us, this one and not another before it; a try that a crash kept from Stripe is none."""
    since = s.card_seen.at if isinstance(s.card_seen, CardSince) else 0
    tries = [a for a in s.attempts if a.rail is Rail.CARD and a.prepared_at >= since]
    is_tried = any(a.outcome not in (NOT_SENT, NOTHING_MADE) for a in tries)
    return is_tried or len(tries) >= MAX_LOST_CARD_TRIES


def _void(s: Situation) -> Step:
    pending = _not_beyond(s)
    if not pending:
        return Void()
    until = max(sure_at(r) for r in pending)
    return Wait("it is voided once its payment requests are dead", max(until, s.now + 60))


def _not_beyond(s: Situation) -> list[PaymentRequest]:
    return [r for r in s.requests if not is_beyond_margin(r, now=s.now)]


def _open_request(s: Situation) -> PaymentRequest | None:
    return next((r for r in s.requests if r.state is RequestState.OPEN), None)


def _choose_rail(s: Situation) -> Step:
    open_request = _open_request(s)
    is_claimed = any(_is_claimed(request) for request in s.requests)
    for rail in s.rails:
        if is_claimed and rail is not Rail.MANUAL:
            continue
        step: Step | None
        match rail:
            case Rail.NWC:
                step = _nwc(s, open_request)
            case Rail.CARD:
                step = _card(s, open_request)
            case Rail.MANUAL:
                step = _manual(s, open_request)
        if step is not None:
            return step
    return Wait("no rail can collect it now")


def _nwc(s: Situation, open_request: PaymentRequest | None) -> Step | None:
    payer = s.payer
    if payer is None or not _nwc_is_due(s):
        return None
    if s.nwc_paused:
        return _while_paused(s)
    if open_request is not None and not _is_unused(s, open_request):
        return None
    if open_request is not None and open_request.id not in s.of_this_life:
        why = "a payment request of an earlier life must die first"
        return None if s.invoice.show_wanted else Wait(why, open_request.expires_at)
    if open_request is None and (_not_beyond(s) or not _fits_first_invoice(s, AUTOMATIC_EXPIRY_S)):
        return None
    if payer.state is not ConnectionState.ACTIVE:
        until = payer.created_at + PROBE_PATIENCE_S
        return Wait("the tenant's wallet is being asked", until) if s.now < until else None
    return TryNwc(payer, open_request)


def _while_paused(s: Situation) -> Step | None:
    """Many tenants' wallets fail at once (billing.mass_failure): a renewal has time; who orders, or
    asks to pay by hand, has the next rail."""
    if s.invoice.show_wanted or s.view.billing_reason == "subscription_create":
        return None
    return Wait("automatic payments are paused, since many fail", s.now + PAUSED_LOOK_S)


def _nwc_is_due(s: Situation) -> bool:
    tries = s.invoice.nwc_tries
    if tries == 0:
        return True
    retry_at = next_nwc_retry_at(s)
    return retry_at is not None and s.billing_now >= retry_at


def _is_unused(s: Situation, request: PaymentRequest) -> bool:
    """Issued for a wallet, then nothing: what a failure between two steps leaves behind."""
    return (
        request.purpose is Purpose.AUTOMATIC
        and request.shown_at is None
        and not any(attempt.request_id == request.id for attempt in s.attempts)
        and request.expires_at - s.now >= REUSE_LEFT_S
        and request.amount_minor == s.view.amount_remaining_minor
    )


def _card(s: Situation, open_request: PaymentRequest | None) -> Step | None:
    if not s.has_card or s.invoice.show_wanted:
        # Who asks to pay by hand is not charged by card meanwhile.
        return None
    if isinstance(s.card_seen, UnseenCard):
        return Wait("a new card is being looked at", s.now + CARD_LOOK_S)
    if _card_was_tried(s):
        return None
    if open_request is not None or _not_beyond(s):
        return Wait("the card waits until the payment request is dead")
    return TryCard()


def _manual(s: Situation, open_request: PaymentRequest | None) -> Step | None:
    if open_request is not None:
        if open_request.shown_at is not None:
            return Wait("the tenant has been shown a payment request")
        if open_request.purpose is Purpose.ADOPTED:
            return Wait("a payment request of another life must die first")
        enough_left = open_request.expires_at - s.now >= SHOW_LEFT_S
        if enough_left and open_request.amount_minor == s.view.amount_remaining_minor:
            return Show(open_request)
        return Wait("the payment request must die before a new one")
    if any(r.shown_at is not None for r in s.requests) and not s.invoice.show_wanted:
        return Wait("the tenant was shown a payment request and can ask for another")
    if not _fits_first_invoice(s, SHOWN_EXPIRY_S):
        return Wait("the first invoice is too old for another payment request")
    return Show()


def _fits_first_invoice(s: Situation, expiry_s: int) -> bool:
    if s.view.billing_reason != "subscription_create":
        return True
    age_s = s.billing_now - s.view.created_at
    return age_s + expiry_s + s.payee_margin_s <= FIRST_INVOICE_LIFE_S
