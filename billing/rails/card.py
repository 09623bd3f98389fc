"""The card rail: one explicit `pay` after its intent row, observed until Stripe shows its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, assert_never

from billing.errors import CardDeclined, StripeRejected, StripeUnavailable
from billing.model import AttemptState, Invoice, PaymentAttempt, Rail
from billing.observations import observe_attempt
from billing.payments import PUBLISH_WINDOW_S, AttemptSeen
from billing.ports import StripeGateway
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
        """One try: started, lost_race, too_late."""
        try:
            async with self.rt.unit() as unit:
                if await unit.tx.scalar("leases.fence", name="purser") != self.rt.fence.token:
                    return "lost_race"
                operation = await operations.begin(unit.tx, self.rt, "pay_card", invoice.id)
                attempt = self._intent(invoice, operation.id)
                await payments.insert_attempt(unit.tx, attempt)
                await observe_attempt(self.rt, unit, attempt, AttemptSeen.CLAIMED_FOR_WRITE)
        except ConstraintViolated:
            return "lost_race"
        if not self._may_call(attempt.prepared_at):
            # Frozen between the commit and the call: nothing was sent, and nothing is.
            await self._end(attempt.id, AttemptSeen.CARD_FAILED, "NOT_SENT")
            return "too_late"
        try:
            view = await self.stripe.pay_by_card(operation.id, invoice.id)
        except CardDeclined as error:
            await uninterrupted(self._end(attempt.id, AttemptSeen.CARD_FAILED, error.code))
        except (StripeRejected, StripeUnavailable):
            # Not a verdict: `observe` asks Stripe what became of it.
            return "started"
        else:
            if view.status == "paid":
                await uninterrupted(self._end(attempt.id, AttemptSeen.CARD_PAID, None))
        return "started"

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
                what = "no payment at Stripe" if progress == "none" else progress
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

    def _intent(self, invoice: Invoice, operation_id: str) -> PaymentAttempt:
        return PaymentAttempt(
            id=self.rt.ids.new("att"),
            invoice_id=invoice.id,
            request_id=None,
            tenant=invoice.tenant,
            rail=Rail.CARD,
            connection_id=None,
            operation_id=operation_id,
            payment_hash=None,
            event_id=None,
            event_json=None,
            encryption=None,
            expiration=None,
            state=AttemptState.PREPARED,
            fence=self.rt.fence.token,
            prepared_at=self.rt.clock.now(),
            in_flight_at=None,
            writes=0,
            relay_url=None,
            outcome=None,
            reason=None,
            preimage=None,
            ended_at=None,
        )
