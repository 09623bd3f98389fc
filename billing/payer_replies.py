"""Takes what wallets say by themselves, replies however late and notifications, as observations."""

from __future__ import annotations

from dataclasses import dataclass

from billing.observations import observe_payer_outcome
from billing.refund_end import observe_refund_outcome
from billing.store import payments, refunds
from billing.unit import Runtime
from wallet.ports import PayReply, Transaction


@dataclass(slots=True)
class Witness:
    """What a wallet says hastens a look-up or ends an attempt; it marks nothing paid (M6)."""

    rt: Runtime

    async def payment_hash_of(self, event_id: str) -> str | None:
        """The payment hash of a stored pay request, for the check of a preimage."""
        async with self.rt.unit() as unit:
            attempt = await payments.attempt_by_event(unit.tx, event_id)
            if attempt is not None:
                return attempt.payment_hash
            refund = await refunds.by_event(unit.tx, event_id)
        return None if refund is None else refund.payment_hash

    async def pay_reply(self, reply: PayReply) -> None:
        """An answer to a stored pay request, early or late."""
        if not await observe_payer_outcome(self.rt, reply.request_id, reply.outcome):
            await observe_refund_outcome(self.rt, reply.request_id, reply.outcome)

    async def notification(self, transaction: Transaction) -> None:
        """`payment_received` of our wallet, or `payment_sent` of a payer: ask our wallet now."""
        async with self.rt.unit() as unit:
            request = await payments.request_by_hash(unit.tx, transaction.payment_hash)
            if request is None:
                refund = await refunds.by_hash(unit.tx, transaction.payment_hash)
                if refund is not None:
                    await unit.tx.execute("refunds.look_now", id=refund.id, now=unit.now)
                return
            is_due = request.next_lookup_at is not None and request.next_lookup_at <= unit.now
            hinted = await unit.tx.execute("payments.look_up_now", id=request.id, now=unit.now)
            if is_due or not hinted:
                return
            await unit.record(
                "request.look_up_now",
                tenant=request.tenant,
                subject=request.id,
                because="notification",
            )
