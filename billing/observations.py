"""Applies what was observed of a payment to the stored state machine, effects included."""

from __future__ import annotations

from decimal import Decimal
from typing import assert_never

from billing.model import AttemptState, PaymentAttempt, PaymentRequest, RequestState
from billing.money import msat_to_minor
from billing.payments import (
    AttemptSeen,
    Effect,
    LookupReading,
    RequestSeen,
    after_attempt,
    after_request,
    next_lookup,
    sure_at,
)
from billing.store import invoices, ledger, payments, tenants
from billing.unit import Runtime, Unit
from wallet.outcome import PayOutcome, Refused, Settled, Unknown


async def observe_request(
    rt: Runtime, unit: Unit, request: PaymentRequest, reading: LookupReading
) -> RequestState:
    """One reading about a request: the transition, its effects and the audit line. Returns the
    state that now holds; a lost race returns the reloaded one and does nothing."""
    row = after_request(request.state, reading.seen)
    if row.state is not request.state:
        if not await payments.move_request(unit.tx, request, row.state, now=unit.now):
            fresh = await payments.request(unit.tx, request.id)
            assert fresh is not None
            return fresh.state
        await unit.record(
            f"request.{row.state.value}",
            tenant=request.tenant,
            subject=request.id,
            invoice=request.invoice_id,
            payment_hash=request.payment_hash,
            because=reading.seen.value,
        )
        if row.state is RequestState.DEAD and request.claimed_at is not None:
            await rt.alarm(
                unit,
                f"claimed:{request.id}",
                f"The tenant's wallet proved to have paid request {request.id} of invoice "
                f"{request.invoice_id}, and our own wallet never saw the money. Nothing else is "
                "charged for it; look into both wallets, then: "
                f"purser payments resolve {request.id} --settled|--dead --reason …",
            )
    if reading.seen is RequestSeen.OPERATOR_DEAD and row.state is RequestState.DEAD:
        # The operator's word stands for the look-ups that nobody can make any more, and for a
        # payer's claim that was found wrong: collection may go on.
        await unit.tx.execute(
            "payments.operator_dead",
            id=request.id,
            now=unit.now,
            looked_at=max(unit.now, sure_at(request)),
        )
        await invoices.want_collection(unit.tx, request.invoice_id, due_at=unit.now)
    for effect in row.effects:
        await _request_effect(rt, unit, request, reading, effect)
    return row.state


async def _request_effect(
    rt: Runtime, unit: Unit, request: PaymentRequest, reading: LookupReading, effect: Effect
) -> None:
    match effect:
        case Effect.RECORD_SETTLEMENT:
            await _record_settlement(unit, request, reading)
        case Effect.END_ATTEMPTS_SETTLED:
            await _end_attempts(rt, unit, request, AttemptSeen.MONEY_ARRIVED)
        case Effect.END_ATTEMPTS_DEAD:
            await _end_attempts(rt, unit, request, AttemptSeen.REQUEST_DIED)
        case Effect.COLLECT_AGAIN:
            await invoices.want_collection(unit.tx, request.invoice_id, due_at=unit.now)
            # Its invoice may be over: then what it carried is ordered anew or ends.
            await tenants.want_sync(unit.tx, request.tenant, due_at=unit.now, fresh=False)
        case Effect.REPORT_ANOMALY:
            await rt.alarm(
                unit,
                f"late:{request.id}:{reading.seen.value}",
                f"Money for a payment request that was already over: {request.id} of invoice "
                f"{request.invoice_id} is {reading.seen.value}. It is placed by itself; nothing "
                "to do unless it repeats.",
            )
        case Effect.LOOK_UP_NOW | Effect.KEEP_CLAIM:
            raise AssertionError(f"{effect} is no effect of a request")
        case _:
            assert_never(effect)


async def _record_settlement(unit: Unit, request: PaymentRequest, reading: LookupReading) -> None:
    """M6 evidence becomes money to be placed (M9, M10); what exceeds the request counts too."""
    extra_msat = max(0, reading.settled_msat - request.amount_msat)
    value_minor = request.amount_minor
    if reading.settled_msat < request.amount_msat:
        # Cannot happen on Lightning for a fixed amount; if a wallet says so, credit what came.
        value_minor = msat_to_minor(reading.settled_msat, request.currency, Decimal(request.rate))
    elif extra_msat:
        value_minor += msat_to_minor(extra_msat, request.currency, Decimal(request.rate))
    await unit.tx.execute(
        "payments.insert_settlement",
        payment_hash=request.payment_hash,
        request_id=request.id,
        tenant=request.tenant,
        invoice_id=request.invoice_id,
        amount_msat=reading.settled_msat,
        value_minor=value_minor,
        currency=request.currency,
        seen_at=unit.now,
        settled_at=reading.settled_at,
    )
    await ledger.post_received(unit, request, reading.settled_msat, value_minor)
    await unit.record(
        "money.received",
        tenant=request.tenant,
        subject=request.invoice_id,
        payment_hash=request.payment_hash,
        amount_msat=reading.settled_msat,
    )


async def _end_attempts(
    rt: Runtime, unit: Unit, request: PaymentRequest, seen: AttemptSeen
) -> None:
    for attempt in await payments.attempts_of_request(unit.tx, request.id):
        is_over = attempt.state in (AttemptState.REFUSED, AttemptState.DEAD)
        # A hand may have paid the request after the refusal: that is no anomaly of the attempt.
        # Only a request nobody was shown convicts the wallet that refused.
        if seen is AttemptSeen.MONEY_ARRIVED and is_over and request.shown_at is not None:
            continue
        await observe_attempt(rt, unit, attempt, seen)


async def observe_attempt(
    rt: Runtime,
    unit: Unit,
    attempt: PaymentAttempt,
    seen: AttemptSeen,
    *,
    outcome: str | None = None,
    reason: str | None = None,
) -> AttemptState:
    """One observation about an attempt: the transition, its effects and the audit line."""
    row = after_attempt(attempt.state, seen)
    if row.state is not attempt.state:
        moved = await payments.move_attempt(
            unit.tx, attempt, row.state, now=unit.now, outcome=outcome, reason=reason
        )
        if not moved:
            fresh = await payments.attempt(unit.tx, attempt.id)
            assert fresh is not None
            return fresh.state
        await unit.record(
            f"attempt.{row.state.value}",
            tenant=attempt.tenant,
            subject=attempt.id,
            invoice=attempt.invoice_id,
            rail=attempt.rail.value,
            because=seen.value,
            outcome=outcome,
            reason=reason,
        )
    for effect in row.effects:
        await _attempt_effect(rt, unit, attempt, seen, effect)
    return row.state


async def _attempt_effect(
    rt: Runtime, unit: Unit, attempt: PaymentAttempt, seen: AttemptSeen, effect: Effect
) -> None:
    match effect:
        case Effect.COLLECT_AGAIN:
            await invoices.want_collection(unit.tx, attempt.invoice_id, due_at=unit.now)
        case Effect.LOOK_UP_NOW:
            if attempt.request_id is not None:
                await unit.tx.execute("payments.look_up_now", id=attempt.request_id, now=unit.now)
                await unit.record(
                    "request.look_up_now",
                    tenant=attempt.tenant,
                    subject=attempt.request_id,
                    because=seen.value,
                )
        case Effect.KEEP_CLAIM:
            if attempt.request_id is not None:
                await unit.tx.execute("payments.claim_request", id=attempt.request_id, now=unit.now)
        case Effect.REPORT_ANOMALY:
            await rt.alarm(
                unit,
                f"anomaly:{attempt.id}:{seen.value}",
                f"Payment attempt {attempt.id} of invoice {attempt.invoice_id} was over "
                f"({attempt.state.value}) and now shows {seen.value}: the tenant's wallet said "
                "one thing and did another. Nothing was charged twice by Purser; look at "
                f"`purser show {attempt.invoice_id}`.",
            )
        case Effect.RECORD_SETTLEMENT | Effect.END_ATTEMPTS_SETTLED | Effect.END_ATTEMPTS_DEAD:
            raise AssertionError(f"{effect} is no effect of an attempt")
        case _:
            assert_never(effect)


async def observe_payer_outcome(rt: Runtime, event_id: str, outcome: PayOutcome) -> bool:
    """A payer's answer to a stored pay request, however late. False: not a request of ours."""
    async with rt.unit() as unit:
        attempt = await payments.attempt_by_event(unit.tx, event_id)
        if attempt is None:
            return False
        await apply_outcome(rt, unit, attempt, outcome)
    return True


async def apply_outcome(
    rt: Runtime, unit: Unit, attempt: PaymentAttempt, outcome: PayOutcome
) -> None:
    """What the payer's wallet says became of an attempt, in a reply or when it is asked."""
    match outcome:
        case Settled(preimage=preimage):
            await _keep_outcome(unit, attempt, "SETTLED", None, preimage)
            await observe_attempt(rt, unit, attempt, AttemptSeen.PAYER_SETTLED)
        case Refused(code=code, reason=reason) if attempt.writes <= 1:
            await observe_attempt(
                rt, unit, attempt, AttemptSeen.PAYER_REFUSED, outcome=code, reason=reason
            )
        case Refused(code=code, reason=reason) | Unknown(code=code, reason=reason):
            # A refusal of one copy of the request: the other may be paid this very moment (M5).
            await _keep_outcome(unit, attempt, code, reason, None)
            await observe_attempt(rt, unit, attempt, AttemptSeen.PAYER_UNKNOWN)
        case _:
            assert_never(outcome)


async def _keep_outcome(
    unit: Unit, attempt: PaymentAttempt, code: str, reason: str | None, preimage: str | None
) -> None:
    await unit.tx.execute(
        "payments.store_outcome",
        id=attempt.id,
        outcome=code,
        reason=reason,
        preimage=preimage,
    )
    await unit.record(
        "attempt.answered",
        tenant=attempt.tenant,
        subject=attempt.id,
        invoice=attempt.invoice_id,
        outcome=code,
        reason=reason,
    )


async def resolve_by_operator(
    rt: Runtime, unit: Unit, request: PaymentRequest, *, settled: bool
) -> RequestState:
    """`purser payments resolve`: the operator's word in place of a wallet that is gone (M2). It
    stands for a look-up, so that automatic rails may go on after a death (M4)."""
    reading = operator_reading(request, settled=settled, now=unit.now)
    state = await observe_request(rt, unit, request, reading)
    await payments.store_reading(
        unit.tx,
        request,
        reading,
        asked_at=max(unit.now, sure_at(request)),
        now=unit.now,
        next_lookup_at=next_lookup(request, reading, now=unit.now),
    )
    return state


def operator_reading(request: PaymentRequest, *, settled: bool, now: int) -> LookupReading:
    """What the operator says of a request, as a reading."""
    if settled:
        return LookupReading(
            RequestSeen.OPERATOR_SETTLED, None, 0, 0, request.amount_msat, settled_at=now
        )
    since = request.unpaid_since if request.unpaid_since is not None else now
    return LookupReading(RequestSeen.OPERATOR_DEAD, since, request.unpaid_lookups + 1, 0)
