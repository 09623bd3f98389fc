"""The refund state machine: (state, observation) -> state, and what each witness proves.

A refund is money that leaves us, so the roles of the payment machine are swapped: our *spending*
wallet and Stripe are the witnesses, silence moves nothing, and no refund is tried a second time
while the first could still arrive.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from billing.payments import DEATH_GAP_S, DEATH_LOOKUPS, MARGIN_S
from billing.views import CreditNoteView, DisputeView, InvoiceView, RefundView
from wallet.ports import LookupAnswer, Transaction, Unreachable, WalletError

REFUND_EXPIRY_S: Final = 3600
"""Asked of the tenant's wallet: long enough for a slow one, short enough to be decided soon."""
REFUND_MARGIN_S: Final = MARGIN_S["unknown"]
"""The payee of a refund is a wallet of which nothing is known: the slowest margin of M2."""
GIVE_UP_S: Final = 86_400
"""A tenant's wallet that has made no payment request for a day will not: nothing was sent."""
ESCALATE_S: Final = 900
"""An undecided refund is told to operators this long after it should have been decided (M7)."""
DOUBLE_S: Final = 600
"""The same refund asked for twice within ten minutes is one refund and a finger too many."""


class RefundWay(StrEnum):
    """Where the money goes: the tenant's wallet, the card it came from, or the Stripe balance."""

    LIGHTNING = "lightning"
    CARD = "card"
    BALANCE = "balance"


class RefundState(StrEnum):
    """`pending`: nothing was sent. `in_flight`: it may be under way. The others are final."""

    PENDING = "pending"
    IN_FLIGHT = "in_flight"
    DONE = "done"
    FAILED = "failed"


class RefundSeen(StrEnum):
    """What was learnt about a refund."""

    CLAIMED = "claimed"
    PAID = "paid"
    UNKNOWN = "unknown"
    REFUSED = "refused"
    NOT_SENT = "not_sent"
    PROVEN_UNPAID = "proven_unpaid"
    GIVEN_UP = "given_up"
    BOUNCED = "bounced"
    """It had arrived, and the bank sent it back: Stripe says so weeks later, of cards only."""


_S, _W = RefundState, RefundSeen
REFUND_TABLE: Final[dict[tuple[RefundState, RefundSeen], RefundState]] = {
    (_S.PENDING, _W.CLAIMED): _S.IN_FLIGHT,
    (_S.PENDING, _W.GIVEN_UP): _S.FAILED,
    (_S.IN_FLIGHT, _W.PAID): _S.DONE,
    (_S.IN_FLIGHT, _W.UNKNOWN): _S.IN_FLIGHT,
    (_S.IN_FLIGHT, _W.REFUSED): _S.FAILED,
    (_S.IN_FLIGHT, _W.NOT_SENT): _S.FAILED,
    (_S.IN_FLIGHT, _W.PROVEN_UNPAID): _S.FAILED,
    # Paid wins over every earlier verdict, as late money does (M9); operators are told.
    (_S.FAILED, _W.PAID): _S.DONE,
    **{(_S.DONE, seen): _S.DONE for seen in RefundSeen if seen is not RefundSeen.BOUNCED},
    (_S.DONE, _W.BOUNCED): _S.FAILED,
    **{(_S.FAILED, seen): _S.FAILED for seen in RefundSeen if seen is not RefundSeen.PAID},
    # A restored backup knows less than the wallet: an answer says that a later life sent it.
    (_S.PENDING, _W.PAID): _S.IN_FLIGHT,
    (_S.PENDING, _W.UNKNOWN): _S.IN_FLIGHT,
    (_S.PENDING, _W.REFUSED): _S.IN_FLIGHT,
}
FINAL: Final = frozenset({RefundState.DONE, RefundState.FAILED})


class UnlistedRefund(AssertionError):
    """A pair that the table does not list: a bug, never caught."""


def after_refund(state: RefundState, seen: RefundSeen) -> RefundState:
    """The state that follows."""
    found = REFUND_TABLE.get((state, seen))
    if found is None:
        raise UnlistedRefund(f"refund: {state} + {seen}")
    return found


def legal_refund_transitions() -> frozenset[tuple[str, str]]:
    """Old -> new without self-loops; the migrations' guards say the same literally."""
    pairs = {(s.value, to.value) for (s, _), to in REFUND_TABLE.items()}
    return frozenset(pair for pair in pairs if pair[0] != pair[1])


@dataclass(frozen=True, slots=True)
class Refund:
    """One refund or credit: committed before anything is asked of anybody (M1).

    `amount_minor` of `currency` is what the tenant gets; `amount_msat` the same over Lightning.
    `invoice_id` None: a credit that belongs to no invoice. `noted_at`: Stripe's credit note stands.
    """

    id: str
    tenant: str
    invoice_id: str | None
    way: RefundWay
    amount_minor: int
    currency: str
    reason: str
    state: RefundState
    created_at: int
    operation_id: str
    stripe_id: str | None
    note_operation_id: str | None
    note_id: str | None
    noted_at: int | None
    payer_connection_id: str | None
    spender_id: str | None
    payment_hash: str | None
    bolt11: str | None
    amount_msat: int | None
    rate: str | None
    expires_at: int | None
    event_id: str | None
    event_json: str | None
    encryption: str | None
    expiration: int | None
    fence: int | None
    in_flight_at: int | None
    writes: int
    relay_url: str | None
    outcome: str | None
    problem: str | None
    preimage: str | None = field(repr=False)
    unpaid_since: int | None
    unpaid_lookups: int
    tries: int
    next_try_at: int | None
    escalated_at: int | None
    ended_at: int | None


CAME_BACK: Final = frozenset({"failed", "canceled"})
"""Statuses of a refund whose money is in the operator's Stripe balance again, or never left it."""
TAKEN_BACK: Final = frozenset({"needs_response", "under_review", "lost"})
"""Statuses of a dispute while Stripe does not have the money (docs.stripe.com/disputes); those of
an inquiry (`warning_…`), `won` and `prevented` leave it where it was."""


# --- how much may go back -----------------------------------------------------------------------


def returned_minor(note: CreditNoteView, refunds: Sequence[RefundView]) -> int:
    """What of a credit note stands for card refunds that failed. Stripe keeps such a note: of a
    paid invoice none can be voided (https://docs.stripe.com/api/credit_notes/void)."""
    returned = sum(
        refund.amount_minor
        for refund in refunds
        if refund.id in note.refund_ids and refund.status in CAME_BACK
    )
    return returned if returned <= note.amount_minor else 0


def stands_in(
    amount_minor: int,
    notes: Sequence[CreditNoteView],
    refunds: Sequence[RefundView],
    ours: Sequence[Refund],
) -> bool:
    """Whether the credit note of a refund that bounced stands already for a refund of this amount:
    Stripe would refuse a second one over the same money."""
    free = sum(returned_minor(note, refunds) for note in notes if note.is_issued)
    free -= sum(
        refund.amount_minor
        for refund in ours
        if refund.state is not RefundState.FAILED
        and refund.way is not RefundWay.BALANCE
        and refund.note_operation_id is None
    )
    return amount_minor <= free


def refundable_minor(
    view: InvoiceView,
    notes: Sequence[CreditNoteView],
    refunds: Sequence[RefundView],
    disputes: Sequence[DisputeView],
    ours: Sequence[Refund],
) -> int:
    """What of a paid invoice's money has not gone back by any way: our own refunds that are done
    or may still be, credit notes, card refunds that stand in no credit note, and what the bank has
    taken back or holds while a dispute is open."""
    noted = {note.operation_id for note in notes if note.operation_id}
    in_notes = {refund_id for note in notes for refund_id in note.refund_ids}
    gone = sum(
        note.amount_minor - returned_minor(note, refunds) for note in notes if note.is_issued
    )
    known_cards = {refund.stripe_id for refund in ours if refund.stripe_id}
    known_operations = {refund.operation_id for refund in ours}
    gone += sum(
        refund.amount_minor
        for refund in refunds
        if refund.status not in CAME_BACK
        and refund.id not in in_notes
        and refund.id not in known_cards
        and refund.operation_id not in known_operations
    )
    # A bank may count in the cardholder's currency: then all of it is taken for gone.
    gone += sum(
        dispute.amount_minor if dispute.currency == view.currency else view.amount_paid_minor
        for dispute in disputes
        if dispute.status in TAKEN_BACK
    )
    gone += sum(
        refund.amount_minor
        for refund in ours
        if refund.state is not RefundState.FAILED
        and refund.operation_id not in noted
        and refund.note_operation_id not in noted
    )
    return max(0, view.amount_paid_minor - gone)


def share_msat(amount_minor: int, value_minor: int, amount_msat: int) -> int:
    """The same sats back that came, for a part its share, in whole sats and never too much."""
    assert 0 < amount_minor <= value_minor
    return amount_msat * amount_minor // value_minor // 1000 * 1000


# --- look-ups of our spending wallet ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OutgoingReading:
    """One look-up at the spending wallet, with the counters to store beside it."""

    seen: RefundSeen
    unpaid_since: int | None
    unpaid_lookups: int
    preimage: str | None = field(default=None, repr=False)


_FAILED_STATES: Final = frozenset({"failed", "expired", "canceled", "cancelled"})


def proves(preimage: str | None, payment_hash: str) -> bool:
    """Whether it is the preimage of this hash; hex, lower or upper case."""
    try:
        return hashlib.sha256(bytes.fromhex(preimage or "")).hexdigest() == payment_hash
    except ValueError:
        return False


def read_outgoing(
    refund: Refund, answer: LookupAnswer, *, now: int, control_found: bool
) -> OutgoingReading:
    """What our spending wallet's answer says of a refund that may be under way.

    Paid: an *outgoing* transaction of this hash that is settled or shows the valid preimage.
    Unpaid: only after the payment request's expiry and the slowest margin, two look-ups apart, and
    NOT_FOUND only while another paid hash of the same wallet is found (`control_found`).
    """
    keep = OutgoingReading(RefundSeen.UNKNOWN, refund.unpaid_since, refund.unpaid_lookups)
    if isinstance(answer, Unreachable | WalletError):
        return keep
    assert refund.payment_hash is not None
    if isinstance(answer, Transaction):
        if answer.payment_hash != refund.payment_hash or answer.direction == "incoming":
            return keep
        if proves(answer.preimage, refund.payment_hash):
            return OutgoingReading(RefundSeen.PAID, None, 0, answer.preimage)
        state = (answer.state or "").lower()
        if state == "settled" and answer.direction == "outgoing":
            return OutgoingReading(RefundSeen.PAID, None, 0)
        if state not in _FAILED_STATES:
            # Pending, accepted, or a word we do not know: HTLCs may be held for long.
            return OutgoingReading(RefundSeen.UNKNOWN, None, 0)
    elif not control_found:
        return keep
    return _read_unpaid(refund, now=now)


def _read_unpaid(refund: Refund, *, now: int) -> OutgoingReading:
    if now < undecided_until(refund):
        return OutgoingReading(RefundSeen.UNKNOWN, None, 0)
    since = now if refund.unpaid_since is None else refund.unpaid_since
    count = refund.unpaid_lookups + 1
    proven = count >= DEATH_LOOKUPS and now - since >= DEATH_GAP_S
    seen = RefundSeen.PROVEN_UNPAID if proven else RefundSeen.UNKNOWN
    return OutgoingReading(seen, since, count)


def undecided_until(refund: Refund, noted: Sequence[int] = ()) -> int:
    """Until then a payment that was sent may still arrive, whatever anybody says. `noted`: expiries
    of what other lives may have sent for it."""
    expiries = list(noted)
    if refund.expires_at is not None:
        expiries.append(refund.expires_at)
    return max(expiries) + REFUND_MARGIN_S


_EARLY_S: Final = (2, 5, 10, 30, 60, 60, 120)
_STEADY_S: Final = 300


def next_try(tries: int, *, now: int, unpaid_since: int | None = None) -> int:
    """When to look or try again."""
    if unpaid_since is not None:
        return max(now + 1, unpaid_since + DEATH_GAP_S)
    return now + (_EARLY_S[tries] if tries < len(_EARLY_S) else _STEADY_S)


# --- Stripe's refund of a card ------------------------------------------------------------------


def read_card(refund: RefundView) -> RefundSeen:
    """https://docs.stripe.com/refunds#refund-statuses; an unknown status proves nothing."""
    match refund.status:
        case "succeeded":
            return RefundSeen.PAID
        case status if status in CAME_BACK:
            return RefundSeen.REFUSED
        case _:
            return RefundSeen.UNKNOWN
