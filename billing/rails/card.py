"""The card rail: a note at Stripe, the intent row, one explicit `pay`, observed until its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, assert_never

from billing.errors import CardDeclined, PurserError, StripeRejected, StripeUnavailable
from billing.model import Invoice, PaymentAttempt
from billing.observations import observe_attempt
from billing.payments import PUBLISH_WINDOW_S, AttemptSeen
from billing.ports import StripeGateway
from billing.rails.card_note import (
    NOT_SENT,
    NOTHING_MADE,
    PAY_CARD,
    foreign_cards,
    metadata_of_card,
)
from billing.rails.issue import noted_in
from billing.store import operations, payments
from billing.store.engine import ConstraintViolated, uninterrupted
from billing.unit import Runtime
from billing.views import CardProgress

LOST_REQUEST_S: Final = 600
"""Stripe ends every API request well within this; only then does "no payment" mean none."""


@dataclass(slots=True)
class CardRail:
    """Drives one card attempt (M4); its key is its operation id (M11)."""

    rt: Runtime
    stripe: StripeGateway

    async def start(self, invoice: Invoice) -> str:
        """One try: started, lost_race, too_late.

        Raises `PurserError` when it could not be noted at Stripe, or when somebody else's note is
        there: nothing was tried.
        """
        await self._note(invoice)
        try:
            async with self.rt.unit() as unit:
                if await unit.tx.scalar("leases.fence", name="purser") != self.rt.fence.token:
                    return "lost_race"
                operation = await operations.begin(unit.tx, self.rt, PAY_CARD, invoice.id)
                attempt = payments.new_card_attempt(self.rt, invoice, operation.id)
                await payments.insert_attempt(unit.tx, attempt)
                await observe_attempt(self.rt, unit, attempt, AttemptSeen.CLAIMED_FOR_WRITE)
        except ConstraintViolated:
            return "lost_race"
        if not self._may_call(attempt.prepared_at):
            # Frozen between the commit and the call: nothing was sent, and nothing is.
            await self._end(attempt.id, AttemptSeen.CARD_FAILED, NOT_SENT)
            return "too_late"
        try:
            # Asked again at the write: a process that stood still inside the call sends nothing,
            # so that "no payment" means none once LOST_REQUEST_S have passed.
            view = await self.stripe.pay_by_card(
                operation.id, invoice.id, permit=lambda: self._may_call(attempt.prepared_at)
            )
        except CardDeclined as error:
            await uninterrupted(self._end(attempt.id, AttemptSeen.CARD_FAILED, error.code))
        except (StripeRejected, StripeUnavailable):
            # Not a verdict: `observe` asks Stripe what became of it.
            return "started"
        else:
            if view.status == "paid":
                await uninterrupted(self._end(attempt.id, AttemptSeen.CARD_PAID, None))
        return "started"

    async def _note(self, invoice: Invoice) -> None:
        """What is about to be done stands at Stripe before it is done: of two bots at least one
        sees the other's note, as with payment requests, and does nothing (M1, M4)."""
        async with self.rt.unit() as unit:
            pay = await operations.begin(unit.tx, self.rt, PAY_CARD, invoice.id)
        async with operations.absolute(self.rt, "note_card", invoice.id, result="over") as note:
            view = await self.stripe.annotate_invoice(
                note.id, invoice.id, metadata_of_card(pay.id, at=note.created_at)
            )
        async with self.rt.unit() as unit:
            requests = await payments.requests_of(unit.tx, invoice.id)
            others = await foreign_cards(unit.tx, invoice.id, view.metadata)
        ours = {request.payment_hash for request in requests}
        if others or any(noted.payment_hash not in ours for noted in noted_in(view.metadata)):
            raise PurserError(invoice.id, "another bot noted a payment beside our card payment")

    def _may_call(self, committed_at: int) -> bool:
        """Soon after its commit, and by the holder of the lease, or not at all (as M3)."""
        is_soon = self.rt.clock.now() - committed_at <= PUBLISH_WINDOW_S
        return is_soon and self.rt.fence.is_held()

    async def observe(self, attempt: PaymentAttempt, progress: CardProgress) -> None:
        """What Stripe shows of a card attempt in flight."""
        match progress:
            case "paid":
                await self._end(attempt.id, AttemptSeen.CARD_PAID, None)
            case "in_progress":
                return
            case "failed" | "waiting_for_customer" | "none":
                # A request whose reply was lost may still be on its way to Stripe, and what has
                # failed there may be an earlier try, Stripe's own for one.
                if self.rt.clock.now() - (attempt.in_flight_at or 0) < LOST_REQUEST_S:
                    return
                what = NOTHING_MADE if progress == "none" else progress
                await self._end(attempt.id, AttemptSeen.CARD_FAILED, what)
            case _:
                assert_never(progress)

    async def _end(self, attempt_id: str, seen: AttemptSeen, outcome: str | None) -> None:
        async with self.rt.unit() as unit:
            current = await payments.attempt(unit.tx, attempt_id)
            assert current is not None
            assert current.operation_id is not None
            await operations.finish(unit.tx, current.operation_id, seen.value, now=unit.now)
            await observe_attempt(self.rt, unit, current, seen, outcome=outcome)
