"""The payment state machine: (state, observation) -> (state, effects), as one table.

The same two tables feed the decider here, the guards in the database (a test compares the
migrations with `legal_transitions`), the diagram in docs/payments.md and the property tests.
A pair that is not listed is a bug; a repeat that may happen is a listed self-loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from billing.model import AttemptState, PaymentRequest, RequestState
from wallet.ports import LookupAnswer, NotFound, Transaction, Unreachable, WalletError

AUTOMATIC_EXPIRY_S: Final = 600
"""M7: requests for automatic payment live 10 minutes."""
SHOWN_EXPIRY_S: Final = 3600
"""M7: requests shown to people live 1 h, renewed by `pay`."""
WATCH_S: Final = 30 * 86400
"""M9: every hash is watched for 30 days, because money may come late."""
DEATH_GAP_S: Final = 120
"""M2: the two look-ups that prove death are "some minutes apart"."""
DEATH_LOOKUPS: Final = 2
"""M2: one look-up may be served from a stale cache; two, apart, may not."""
MARGIN_S: Final = {"lnd": 300, "cln": 300, "ldk": 10_800, "unknown": 10_800}
"""M2, facts/runtime: lnd and CLN cancel at expiry (plus a hold for parts), LDK accepts for 2 h of
block time; unknown payees are treated like the slowest."""
NOT_FOUND_MARGIN_S: Final = 10_800
"""M2: NOT_FOUND counts only this long after expiry: some payees purge, some are merely behind."""
PUBLISH_WINDOW_S: Final = 30
"""M3: a pay request goes out within 30 s of its commit, or not at all."""
PROBE_FRESH_S: Final = 60
"""M3: no pay request unless the wallet answered within the last minute."""


class RequestSeen(StrEnum):
    """What was learnt about a payment request from our own wallet, the only witness (M6)."""

    SETTLED = "settled"
    HELD = "held"
    UNPAID = "unpaid"
    PROVEN_UNPAID = "proven_unpaid"
    NO_ANSWER = "no_answer"
    OPERATOR_SETTLED = "operator_settled"
    OPERATOR_DEAD = "operator_dead"


class AttemptSeen(StrEnum):
    """What was learnt about a payment attempt."""

    CLAIMED_FOR_WRITE = "claimed_for_write"
    WRITTEN = "written"
    NOT_WRITTEN = "not_written"
    PAYER_SETTLED = "payer_settled"
    PAYER_REFUSED = "payer_refused"
    PAYER_UNKNOWN = "payer_unknown"
    MONEY_ARRIVED = "money_arrived"
    REQUEST_DIED = "request_died"
    CARD_PAID = "card_paid"
    CARD_FAILED = "card_failed"


class Effect(StrEnum):
    """What must happen in the same transaction as the transition."""

    RECORD_SETTLEMENT = "record_settlement"
    END_ATTEMPTS_SETTLED = "end_attempts_settled"
    END_ATTEMPTS_DEAD = "end_attempts_dead"
    COLLECT_AGAIN = "collect_again"
    LOOK_UP_NOW = "look_up_now"
    KEEP_CLAIM = "keep_claim"
    REPORT_ANOMALY = "report_anomaly"


@dataclass(frozen=True, slots=True)
class RequestRow:
    """The next state of a request, and the effects."""

    state: RequestState
    effects: tuple[Effect, ...] = ()


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """The next state of an attempt, and the effects."""

    state: AttemptState
    effects: tuple[Effect, ...] = ()


_R, _RS, _E = RequestState, RequestSeen, Effect
_PAID = (_E.RECORD_SETTLEMENT, _E.END_ATTEMPTS_SETTLED)
_DIED = (_E.END_ATTEMPTS_DEAD, _E.COLLECT_AGAIN)

REQUEST_TABLE: Final[dict[tuple[RequestState, RequestSeen], RequestRow]] = {
    (_R.OPEN, _RS.SETTLED): RequestRow(_R.SETTLED, _PAID),
    (_R.OPEN, _RS.HELD): RequestRow(_R.OPEN),
    (_R.OPEN, _RS.UNPAID): RequestRow(_R.OPEN),
    (_R.OPEN, _RS.NO_ANSWER): RequestRow(_R.OPEN),
    (_R.OPEN, _RS.PROVEN_UNPAID): RequestRow(_R.DEAD, _DIED),
    (_R.OPEN, _RS.OPERATOR_SETTLED): RequestRow(_R.SETTLED, _PAID),
    (_R.OPEN, _RS.OPERATOR_DEAD): RequestRow(_R.DEAD, _DIED),
    # Late money: settled wins over every earlier verdict (M9).
    (_R.DEAD, _RS.SETTLED): RequestRow(_R.SETTLED, (*_PAID, _E.REPORT_ANOMALY)),
    (_R.DEAD, _RS.OPERATOR_SETTLED): RequestRow(_R.SETTLED, (*_PAID, _E.REPORT_ANOMALY)),
    (_R.DEAD, _RS.HELD): RequestRow(_R.DEAD, (_E.REPORT_ANOMALY,)),
    (_R.DEAD, _RS.UNPAID): RequestRow(_R.DEAD),
    (_R.DEAD, _RS.PROVEN_UNPAID): RequestRow(_R.DEAD),
    (_R.DEAD, _RS.NO_ANSWER): RequestRow(_R.DEAD),
    (_R.DEAD, _RS.OPERATOR_DEAD): RequestRow(_R.DEAD),
    # Settled is final: whatever is said afterwards changes nothing.
    **{(_R.SETTLED, seen): RequestRow(_R.SETTLED) for seen in _RS},
}

_A, _AS = AttemptState, AttemptSeen
_ENDED = (_A.REFUSED, _A.DEAD)

ATTEMPT_TABLE: Final[dict[tuple[AttemptState, AttemptSeen], AttemptRow]] = {
    (_A.PREPARED, _AS.CLAIMED_FOR_WRITE): AttemptRow(_A.IN_FLIGHT),
    (_A.PREPARED, _AS.REQUEST_DIED): AttemptRow(_A.DEAD),
    # A hand or a restored copy may have paid the same hash before we wrote anything.
    (_A.PREPARED, _AS.MONEY_ARRIVED): AttemptRow(_A.DEAD, (_E.REPORT_ANOMALY,)),
    # An answer to what this life never wrote: a later life did, of which the backup knows nothing.
    **{
        (_A.PREPARED, seen): AttemptRow(_A.IN_FLIGHT, (_E.LOOK_UP_NOW, _E.REPORT_ANOMALY))
        for seen in (_AS.PAYER_REFUSED, _AS.PAYER_UNKNOWN)
    },
    (_A.PREPARED, _AS.PAYER_SETTLED): AttemptRow(
        _A.IN_FLIGHT, (_E.KEEP_CLAIM, _E.LOOK_UP_NOW, _E.REPORT_ANOMALY)
    ),
    (_A.IN_FLIGHT, _AS.WRITTEN): AttemptRow(_A.IN_FLIGHT),
    # The port's own word that no byte left: proof, unlike silence.
    (_A.IN_FLIGHT, _AS.NOT_WRITTEN): AttemptRow(_A.REFUSED, (_E.COLLECT_AGAIN,)),
    (_A.IN_FLIGHT, _AS.PAYER_SETTLED): AttemptRow(_A.IN_FLIGHT, (_E.KEEP_CLAIM, _E.LOOK_UP_NOW)),
    (_A.IN_FLIGHT, _AS.PAYER_UNKNOWN): AttemptRow(_A.IN_FLIGHT, (_E.LOOK_UP_NOW,)),
    (_A.IN_FLIGHT, _AS.PAYER_REFUSED): AttemptRow(_A.REFUSED, (_E.COLLECT_AGAIN,)),
    (_A.IN_FLIGHT, _AS.MONEY_ARRIVED): AttemptRow(_A.SETTLED),
    (_A.IN_FLIGHT, _AS.REQUEST_DIED): AttemptRow(_A.DEAD),
    (_A.IN_FLIGHT, _AS.CARD_PAID): AttemptRow(_A.SETTLED),
    (_A.IN_FLIGHT, _AS.CARD_FAILED): AttemptRow(_A.REFUSED, (_E.COLLECT_AGAIN,)),
    (_A.SETTLED, _AS.MONEY_ARRIVED): AttemptRow(_A.SETTLED),
    (_A.SETTLED, _AS.PAYER_SETTLED): AttemptRow(_A.SETTLED),
    (_A.SETTLED, _AS.PAYER_REFUSED): AttemptRow(_A.SETTLED),
    (_A.SETTLED, _AS.PAYER_UNKNOWN): AttemptRow(_A.SETTLED),
    (_A.SETTLED, _AS.WRITTEN): AttemptRow(_A.SETTLED),
    (_A.SETTLED, _AS.NOT_WRITTEN): AttemptRow(_A.SETTLED),
    (_A.SETTLED, _AS.CARD_PAID): AttemptRow(_A.SETTLED),
    (_A.SETTLED, _AS.CARD_FAILED): AttemptRow(_A.SETTLED),
    (_A.SETTLED, _AS.REQUEST_DIED): AttemptRow(_A.SETTLED),
    **{
        (state, seen): AttemptRow(_A.SETTLED, (_E.REPORT_ANOMALY,))
        for state in _ENDED
        for seen in (_AS.MONEY_ARRIVED, _AS.CARD_PAID)
    },
    **{
        (state, seen): AttemptRow(state, (_E.KEEP_CLAIM, _E.LOOK_UP_NOW, _E.REPORT_ANOMALY))
        for state in _ENDED
        for seen in (_AS.PAYER_SETTLED,)
    },
    **{
        (state, seen): AttemptRow(state)
        for state in _ENDED
        for seen in (
            _AS.PAYER_REFUSED,
            _AS.PAYER_UNKNOWN,
            _AS.REQUEST_DIED,
            _AS.CARD_FAILED,
            _AS.WRITTEN,
            _AS.NOT_WRITTEN,
        )
    },
}


class UnlistedTransition(AssertionError):
    """A pair that the table does not list: a bug, never caught."""


def after_request(state: RequestState, seen: RequestSeen) -> RequestRow:
    """The row for a request in `state` about which `seen` was learnt."""
    row = REQUEST_TABLE.get((state, seen))
    if row is None:
        raise UnlistedTransition(f"payment request: {state} + {seen}")
    return row


def after_attempt(state: AttemptState, seen: AttemptSeen) -> AttemptRow:
    """The row for an attempt in `state` about which `seen` was learnt."""
    row = ATTEMPT_TABLE.get((state, seen))
    if row is None:
        raise UnlistedTransition(f"payment attempt: {state} + {seen}")
    return row


def legal_transitions() -> tuple[frozenset[tuple[str, str]], frozenset[tuple[str, str]]]:
    """(request pairs, attempt pairs) old -> new without self-loops; the migrations' guards say
    the same literally."""
    requests = {(s.value, row.state.value) for (s, _), row in REQUEST_TABLE.items()}
    attempts = {(s.value, row.state.value) for (s, _), row in ATTEMPT_TABLE.items()}
    return (
        frozenset(pair for pair in requests if pair[0] != pair[1]),
        frozenset(pair for pair in attempts if pair[0] != pair[1]),
    )


# --- look-ups of our own wallet -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LookupReading:
    """A look-up answer read against M2 and M6, with the counters to store beside it."""

    seen: RequestSeen
    unpaid_since: int | None
    unpaid_lookups: int
    not_found_lookups: int
    settled_msat: int = 0
    settled_at: int = 0


def read_lookup(
    request: PaymentRequest,
    answer: LookupAnswer,
    *,
    now: int,
    people_only: bool,
    control_found: bool,
) -> LookupReading:
    """What one look-up of our wallet says about a request.

    `now` is when the question was put, which is all that the answer can speak of. `people_only`:
    no attempt was ever in flight on it, or every one was refused: then expiry and one look-up
    suffice to show a person a new one (M2); an automatic rail waits for the margin all the same
    (`is_beyond_margin`). `control_found`: another hash of the same payee was found just now, so
    that NOT_FOUND means this hash and not a broken wallet.
    """
    keep = LookupReading(
        RequestSeen.NO_ANSWER,
        request.unpaid_since,
        request.unpaid_lookups,
        request.not_found_lookups,
    )
    if isinstance(answer, Unreachable | WalletError):
        return keep
    if isinstance(answer, NotFound):
        return _read_not_found(request, keep, now=now, control_found=control_found)
    if answer.payment_hash != request.payment_hash:
        return keep
    if answer.is_incoming_settled:
        amount_msat = request.amount_msat if answer.amount_msat is None else answer.amount_msat
        return LookupReading(
            RequestSeen.SETTLED,
            keep.unpaid_since,
            keep.unpaid_lookups,
            keep.not_found_lookups,
            settled_msat=amount_msat,
            settled_at=answer.settled_at or now,
        )
    if answer.is_accepted:
        return LookupReading(RequestSeen.HELD, None, 0, 0)
    if not _says_unpaid(answer):
        return keep
    return _read_unpaid(request, now=now, people_only=people_only)


_UNPAID_STATES: Final = frozenset({"pending", "expired", "failed", "canceled", "cancelled"})


def _says_unpaid(answer: Transaction) -> bool:
    """Whether an answer that proves no money speaks of our unpaid invoice at all. A payment that
    went out of the same wallet, or "settled" of no direction, is no proof that none came in."""
    if answer.direction == "outgoing":
        return False
    if answer.state is None:
        return not answer.settled_at
    return answer.state.lower() in _UNPAID_STATES


def _read_unpaid(request: PaymentRequest, *, now: int, people_only: bool) -> LookupReading:
    margin_s = 0 if people_only else request.margin_s
    if now < request.expires_at + margin_s:
        return LookupReading(RequestSeen.UNPAID, None, 0, 0)
    since = request.unpaid_since if request.unpaid_since is not None else now
    count = request.unpaid_lookups + 1
    proven = people_only or (count >= DEATH_LOOKUPS and now - since >= DEATH_GAP_S)
    seen = RequestSeen.PROVEN_UNPAID if proven else RequestSeen.UNPAID
    return LookupReading(seen, since, count, 0)


def _read_not_found(
    request: PaymentRequest, keep: LookupReading, *, now: int, control_found: bool
) -> LookupReading:
    if not control_found or now < request.expires_at + NOT_FOUND_MARGIN_S:
        return keep
    since = request.unpaid_since if request.unpaid_since is not None else now
    count = request.not_found_lookups + 1
    proven = count >= DEATH_LOOKUPS and now - since >= DEATH_GAP_S
    seen = RequestSeen.PROVEN_UNPAID if proven else RequestSeen.UNPAID
    return LookupReading(seen, since, keep.unpaid_lookups, count)


def is_beyond_margin(request: PaymentRequest, *, now: int) -> bool:
    """Ended, and no honest payee takes money for it any more: an automatic rail may start (M4).

    A settled one has had its money, and no payee takes it twice. A dead request whose last look-up
    was before `sure_at` has been judged for people only; one whose last look-up found it held by
    our wallet (that takes `unpaid_since` away) may have its money any moment.
    """
    if request.state is RequestState.OPEN:
        return False
    if request.state is RequestState.SETTLED:
        return True
    is_sure = (request.last_lookup_at or 0) >= sure_at(request)
    return is_sure and now >= sure_at(request) and request.unpaid_since is not None


def sure_at(request: PaymentRequest) -> int:
    """When a look-up that says unpaid speaks of all that could come: the margin is over by the gap
    that M2 puts between two look-ups, as a single one may be stale."""
    return request.expires_at + request.margin_s + DEATH_GAP_S


# --- when to look ------------------------------------------------------------------------------

_EARLY_S: Final = (2, 3, 5, 10, 15, 20, 30, 30)
"""Seconds between the first look-ups while money is likely to arrive any moment."""
_STEADY_S: Final = 30
"""Then every half minute until expiry: a hand payment is noticed without anyone polling a page."""
_LATE_S: Final = (3600, 6 * 3600, 86400)
"""After death: an hour, six hours, then daily until the watch ends (M9)."""
HELD_RETRY_S: Final = 300
"""Money that our wallet holds for a dead request: it settles or goes back within hours."""
OUTAGE_RETRY_S: Final = 60
"""Our own wallet did not answer: ask again soon, it blocks money."""


def next_lookup(request: PaymentRequest, reading: LookupReading, *, now: int) -> int | None:
    """When to ask our wallet again about this request; None: never (settled, or watched enough)."""
    state = after_request(request.state, reading.seen).state
    if state is RequestState.SETTLED:
        return None
    if state is RequestState.DEAD:
        return _next_late_lookup(request, reading, now=now)
    if reading.seen is RequestSeen.NO_ANSWER:
        return now + OUTAGE_RETRY_S
    if reading.unpaid_since is not None:
        return max(now + 1, reading.unpaid_since + DEATH_GAP_S)
    step = _EARLY_S[request.lookups] if request.lookups < len(_EARLY_S) else _STEADY_S
    dies_at = request.expires_at + request.margin_s
    if now >= request.expires_at + _STEADY_S:
        # Between expiry and margin little can change: a look every five minutes and one at the
        # end. Held beyond that it may take hours.
        return min(now + 300, dies_at) if now < dies_at else now + 300
    return now + step


def _next_late_lookup(request: PaymentRequest, reading: LookupReading, *, now: int) -> int | None:
    if now >= request.watch_until:
        return None
    if now < sure_at(request):
        return sure_at(request)
    is_silent = reading.seen is RequestSeen.NO_ANSWER
    if reading.unpaid_since is None or (is_silent and not is_beyond_margin(request, now=now)):
        # Held, or not answered yet: until it says unpaid no automatic rail may start.
        return min(now + HELD_RETRY_S, request.watch_until)
    age_s = now - request.expires_at
    step_s = next((gap for gap in _LATE_S if age_s < gap), _LATE_S[-1])
    return min(now + step_s, request.watch_until)
