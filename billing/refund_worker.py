"""Drives refunds to their proven end: one transaction or one call to a port at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, assert_never

import structlog

from billing.errors import PurserError, StripeMissing, StripeRejected
from billing.parallel import by_group
from billing.ports import StripeGateway
from billing.refund_end import end_refund
from billing.refund_lightning import LightningRefunds
from billing.refund_ports import NotePart
from billing.refunds import (
    ESCALATE_S,
    Refund,
    RefundSeen,
    RefundState,
    RefundWay,
    next_try,
    read_card,
)
from billing.store import refunds, tenants
from billing.unit import Runtime

log = structlog.stdlib.get_logger("purser")

BATCH: Final = 20
NEW_KEY_TRIES: Final = 8
"""M11: some ten minutes. A key replays its first answer for a day, a 500 included; what it may have
made is looked for by the operation id before another key is used."""
NOTE_OF: Final[dict[RefundWay, NotePart]] = {
    RefundWay.LIGHTNING: "outside",
    RefundWay.CARD: "card",
    RefundWay.BALANCE: "credit",
}


@dataclass(slots=True)
class RefundWorker:
    """`run_once` works on what is due; each refund's error is its own."""

    rt: Runtime
    stripe: StripeGateway
    lightning: LightningRefunds

    async def run_once(self, now: int) -> int:
        """Returns how many were looked at."""
        async with self.rt.unit() as unit:
            due = await unit.tx.fetch_all(Refund, "refunds.due", now=now, count=BATCH)
        await by_group(due, lambda refund: refund.tenant, self._try)
        return len(due)

    async def _try(self, refund: Refund) -> None:
        try:
            await self._advance(refund)
        except PurserError as error:
            log.warning("refund.postponed", subject=refund.id, error=error.what)
            await self._again(refund, error.what)

    async def _advance(self, refund: Refund) -> None:
        if refund.state is RefundState.DONE:
            await self._note(refund)
            return
        if refund.state is RefundState.FAILED:
            return
        match refund.way:
            case RefundWay.LIGHTNING:
                await self.lightning.advance(refund)
            case RefundWay.CARD:
                await self._card(refund)
            case RefundWay.BALANCE:
                await self._balance(refund)
            case _:
                assert_never(refund.way)

    async def _again(self, refund: Refund, problem: str) -> None:
        async with self.rt.unit() as unit:
            await refunds.again(
                unit.tx,
                refund.id,
                problem[:240],
                next_try_at=next_try(refund.tries, now=unit.now),
            )
            if unit.now - refund.created_at >= ESCALATE_S and refund.escalated_at is None:
                await unit.tx.execute("refunds.escalated", id=refund.id, now=unit.now)
                await self.rt.alarm(
                    unit,
                    f"refund_stuck:{refund.id}",
                    f"Refund {refund.id} ({refund.state.value}, {refund.way.value}) does not come "
                    f"to its end: {problem[:160]}. Purser keeps trying; nothing is paid twice.",
                )

    async def _claim(self, refund: Refund) -> bool:
        """In flight is committed before Stripe is told (M1)."""
        if refund.state is RefundState.IN_FLIGHT:
            return True
        async with self.rt.unit() as unit:
            state = await end_refund(self.rt, unit, refund, RefundSeen.CLAIMED)
        return state is RefundState.IN_FLIGHT

    # --- the card -----------------------------------------------------------------------------

    async def _card(self, refund: Refund) -> None:
        """The gateway looks for our operation before it creates (V1): an answer that was lost is
        found, never failed and never made again."""
        assert refund.invoice_id is not None
        if not await self._claim(refund):
            return
        try:
            if refund.stripe_id is None:
                view = await self.stripe.create_refund(
                    refund.operation_id,
                    invoice_id=refund.invoice_id,
                    amount_minor=refund.amount_minor,
                    key=_key(refund, refund.operation_id),
                )
            else:
                view = await self.stripe.refund(refund.stripe_id)
        except StripeRejected as error:
            if refund.stripe_id is not None or await self._is_at_stripe(refund):
                raise
            await self._end(refund.id, RefundSeen.REFUSED, error.what)
            return
        async with self.rt.unit() as unit:
            await unit.tx.execute("refunds.set_stripe", id=refund.id, stripe_id=view.id)
        seen = read_card(view)
        if seen is RefundSeen.UNKNOWN:
            raise PurserError(refund.id, f"Stripe's refund {view.id} is {view.status}")
        await self._end(refund.id, seen, None if seen is RefundSeen.PAID else view.status)

    async def _is_at_stripe(self, refund: Refund) -> bool:
        """A refusal may be of the second call while the first got through."""
        assert refund.invoice_id is not None
        found = await self.stripe.refunds_of(refund.invoice_id)
        return any(view.operation_id == refund.operation_id for view in found)

    # --- the balance --------------------------------------------------------------------------

    async def _balance(self, refund: Refund) -> None:
        """For an invoice the credit note is the refund; otherwise a balance transaction. Both are
        looked for by the operation first."""
        if not await self._claim(refund):
            return
        try:
            made = await (
                self._credit(refund) if refund.invoice_id is None else self._write(refund)
            )
        except StripeRejected as error:
            if refund.invoice_id is not None and await self._note_at_stripe(refund):
                raise
            await self._end(refund.id, RefundSeen.REFUSED, error.what)
            return
        async with self.rt.unit() as unit:
            await unit.tx.execute("refunds.set_stripe", id=refund.id, stripe_id=made)
            fresh = await refunds.get(unit.tx, refund.id)
            assert fresh is not None
            await end_refund(self.rt, unit, fresh, RefundSeen.PAID)

    async def _credit(self, refund: Refund) -> str:
        async with self.rt.unit() as unit:
            tenant = await tenants.get(unit.tx, refund.tenant)
        assert tenant is not None
        if tenant.customer_id is None:
            raise StripeMissing(
                refund.id,
                "the tenant's customer was deleted at Stripe",
                status=404,
                code=None,
                request_id=None,
            )
        return await self.stripe.credit_customer(
            refund.operation_id,
            customer_id=tenant.customer_id,
            amount_minor=refund.amount_minor,
            currency=refund.currency,
            description=refund.reason or "Credit",
            key=_key(refund, refund.operation_id),
        )

    async def _write(self, refund: Refund) -> str:
        assert refund.invoice_id is not None
        operation_id = refund.note_operation_id or refund.operation_id
        note = await self.stripe.create_credit_note(
            operation_id,
            invoice_id=refund.invoice_id,
            amount_minor=refund.amount_minor,
            part=NOTE_OF[refund.way],
            refund_id=refund.stripe_id if refund.way is RefundWay.CARD else None,
            memo=refund.reason,
            key=_key(refund, operation_id),
        )
        return note.id

    async def _note_at_stripe(self, refund: Refund) -> bool:
        assert refund.invoice_id is not None
        found = await self.stripe.credit_notes_of(refund.invoice_id)
        mine = (refund.operation_id, refund.note_operation_id)
        return any(note.operation_id in mine for note in found)

    # --- the credit note ----------------------------------------------------------------------

    async def _note(self, refund: Refund) -> None:
        """The money has gone; Stripe's books are told. What Stripe refuses for good is an
        operator's to look at, the refund itself stands."""
        if refund.noted_at is not None or refund.note_operation_id is None:
            return
        note_id, refusal = None, None
        try:
            note_id = await self._write(refund)
        except StripeRejected as error:
            if await self._note_at_stripe(refund):
                raise
            refusal = error.what
        async with self.rt.unit() as unit:
            await unit.tx.execute("refunds.noted", id=refund.id, now=unit.now, note_id=note_id)
            await unit.record(
                "refund.noted",
                tenant=refund.tenant,
                subject=refund.id,
                invoice=refund.invoice_id,
                credit_note=note_id,
                problem=refusal,
            )
            if refusal is not None:
                await self.rt.alarm(
                    unit,
                    f"refund_note:{refund.id}",
                    f"Refund {refund.id} of invoice {refund.invoice_id} was paid, and Stripe "
                    f"refuses the credit note for it: {refusal[:160]}. Write one by hand.",
                )

    async def _end(self, refund_id: str, seen: RefundSeen, problem: str | None) -> None:
        async with self.rt.unit() as unit:
            fresh = await refunds.get(unit.tx, refund_id)
            assert fresh is not None
            await end_refund(self.rt, unit, fresh, seen, problem=problem)


def _key(refund: Refund, operation_id: str) -> str | None:
    """None: the operation id itself; another one after each so many tries, by what is stored."""
    given_up = refund.tries // NEW_KEY_TRIES
    return f"{operation_id}_{given_up}" if given_up else None
