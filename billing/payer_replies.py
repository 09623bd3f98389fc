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

    def over(self, connection_id: str) -> ConnectionWitness:
        """For the session of this connection."""
        return ConnectionWitness(self, connection_id)

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


@dataclass(frozen=True, slots=True)
class ConnectionWitness:
    """One wallet's words. The ids of pay requests are public on their relays: what another wallet
    "answers" to one is forged, and a refusal that is believed frees the next payer (M4, M5)."""

    witness: Witness
    connection_id: str

    async def payment_hash_of(self, event_id: str) -> str | None:
        """The payment hash of a pay request that went out over this connection, for the check of
        a preimage."""
        rt = self.witness.rt
        async with rt.unit() as unit:
            attempt = await payments.attempt_by_event(unit.tx, event_id)
            if attempt is not None:
                return attempt.payment_hash if attempt.connection_id == self.connection_id else None
            refund = await refunds.by_event(unit.tx, event_id)
        if refund is None or refund.spender_id != self.connection_id:
            return None
        return refund.payment_hash

    async def pay_reply(self, reply: PayReply) -> None:
        """An answer to a pay request that went out over this connection; others are dropped."""
        if await self.payment_hash_of(reply.request_id) is not None:
            await self.witness.pay_reply(reply)
