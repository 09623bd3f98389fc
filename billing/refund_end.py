"""Applies what was observed of a refund: the transition, the audit line, who is told."""

from __future__ import annotations

from billing.money import format_fiat
from billing.refunds import Refund, RefundSeen, RefundState, RefundWay, after_refund, proves
from billing.store import ledger, refunds
from billing.unit import Runtime, Unit
from wallet.outcome import PayOutcome, Refused, Settled


async def end_refund(
    rt: Runtime,
    unit: Unit,
    refund: Refund,
    seen: RefundSeen,
    *,
    outcome: str | None = None,
    problem: str | None = None,
    preimage: str | None = None,
) -> RefundState:
    """One observation. Returns the state that now holds; a lost race does nothing else."""
    to = after_refund(refund.state, seen)
    if to is refund.state:
        return to
    due = unit.now if _has_more(refund, to) else None
    moved = await refunds.move(
        unit.tx,
        refund,
        to,
        now=unit.now,
        next_try_at=due,
        outcome=outcome,
        problem=problem,
        preimage=preimage,
    )
    if not moved:
        fresh = await refunds.get(unit.tx, refund.id)
        assert fresh is not None
        return fresh.state
    await unit.record(
        f"refund.{to.value}",
        tenant=refund.tenant,
        subject=refund.id,
        invoice=refund.invoice_id,
        way=refund.way.value,
        because=seen.value,
        amount_minor=refund.amount_minor,
        currency=refund.currency,
        payment_hash=refund.payment_hash,
        problem=problem,
    )
    if to is RefundState.DONE:
        await _book(unit, refund)
        await _tell_done(rt, unit, refund)
    elif to is RefundState.FAILED:
        if seen is RefundSeen.BOUNCED:
            await _turn_round(rt, unit, refund, problem or seen.value)
            return to
        await rt.alarm(
            unit,
            f"refund_failed:{refund.id}",
            f"Refund {refund.id} to tenant {refund.tenant[:16]}… by {refund.way.value} did not "
            f"happen: {problem or seen.value}. Nothing was sent. Order it again, or by another way "
            "(--to).",
        )
    return to


async def _turn_round(rt: Runtime, unit: Unit, refund: Refund, problem: str) -> None:
    """The books have it back in the transaction that says so; who was told of it hears the rest."""
    await ledger.post_bounced(
        unit, refund.id, refund.invoice_id, refund.amount_minor, refund.currency
    )
    await say_bounced(unit, refund.id, refund.tenant, refund.amount_minor, refund.currency)
    note = (
        ""
        if refund.note_id is None
        else f" Its credit note {refund.note_id} stays at Stripe, which voids none of a paid "
        "invoice, and counts for what you give instead."
    )
    await rt.alarm(
        unit,
        f"refund_bounced:{refund.stripe_id}",
        f"Refund {refund.id} to tenant {refund.tenant[:16]}… was paid out to a card and came back: "
        f"{problem}. {format_fiat(refund.amount_minor, refund.currency)} are in your Stripe "
        "balance again, the books have them back, and the tenant was told. Give them back another "
        f"way: purser refund {refund.invoice_id} --to lightning, or purser credit.{note}",
    )


async def say_bounced(unit: Unit, name: str, tenant: str, amount_minor: int, currency: str) -> None:
    """To somebody who was told that it goes to their card."""
    await unit.say(
        f"refund_bounced:{name}",
        tenant,
        "refund_bounced",
        amount_minor=amount_minor,
        currency=currency,
    )


def _has_more(refund: Refund, to: RefundState) -> bool:
    """In flight it is looked after; done, its credit note is still to be written."""
    if to is RefundState.IN_FLIGHT:
        return True
    return to is RefundState.DONE and refund.note_operation_id is not None


async def _book(unit: Unit, refund: Refund) -> None:
    if refund.invoice_id is None:
        await ledger.post_credit(
            unit, refund.operation_id, refund.tenant, refund.amount_minor, refund.currency
        )
        return
    await ledger.post_refund(
        unit,
        refund.id,
        refund.tenant,
        refund.invoice_id,
        refund.way.value,
        refund.amount_minor,
        refund.currency,
        amount_msat=refund.amount_msat or 0,
        rate=refund.rate,
        payment_hash=refund.payment_hash,
    )


async def _tell_done(rt: Runtime, unit: Unit, refund: Refund) -> None:
    kind = "credit_given" if refund.invoice_id is None else "refunded"
    await unit.say(
        f"refund:{refund.id}",
        refund.tenant,
        kind,
        way=refund.way.value,
        amount_minor=refund.amount_minor,
        currency=refund.currency,
        amount_msat=refund.amount_msat if refund.way is RefundWay.LIGHTNING else None,
        invoice=refund.invoice_id,
        payment_hash=refund.payment_hash,
    )
    if refund.state is RefundState.FAILED:
        await rt.alarm(
            unit,
            f"refund_late:{refund.id}",
            f"Refund {refund.id} was taken for failed and arrived after all. If you ordered it "
            "again, the tenant has it twice.",
        )


async def observe_refund_outcome(rt: Runtime, event_id: str, outcome: PayOutcome) -> bool:
    """Our spending wallet's answer to a stored pay request, however late. False: not ours."""
    async with rt.unit() as unit:
        refund = await refunds.by_event(unit.tx, event_id)
        if refund is None:
            return False
        if isinstance(outcome, Settled) and proves(outcome.preimage, refund.payment_hash or ""):
            await end_refund(
                rt, unit, refund, RefundSeen.PAID, outcome="SETTLED", preimage=outcome.preimage
            )
        elif isinstance(outcome, Refused):
            await end_refund(
                rt,
                unit,
                refund,
                RefundSeen.REFUSED,
                outcome=outcome.code,
                problem=f"our spending wallet refused: {outcome.reason}",
            )
        elif not isinstance(outcome, Settled):
            # Unknown is an observation, not a verdict (M5).
            await unit.tx.execute(
                "refunds.store_outcome",
                id=refund.id,
                outcome=outcome.code,
                problem=outcome.reason,
            )
            await unit.tx.execute("refunds.look_now", id=refund.id, now=unit.now)
    return True
