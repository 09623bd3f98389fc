"""Refunds over Lightning: the tenant's wallet asks, our spending wallet pays once, and is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import structlog

from billing.errors import PurserError
from billing.model import Connection, ConnectionState
from billing.payments import PROBE_FRESH_S, PUBLISH_WINDOW_S
from billing.ports import OutgoingLookup
from billing.refund_end import end_refund
from billing.refund_memory import RefundMemory
from billing.refund_ports import RefundWallets
from billing.refunds import (
    ESCALATE_S,
    GIVE_UP_S,
    REFUND_EXPIRY_S,
    Refund,
    RefundSeen,
    RefundState,
    next_try,
    read_outgoing,
    undecided_until,
)
from billing.store import payments, refunds, tenants
from billing.store.engine import ConstraintViolated, uninterrupted
from billing.unit import Runtime
from wallet.bolt11 import Bolt11
from wallet.ports import LookupAnswer, NotFound, NotSent, Payer, Transaction, WalletInfo

log = structlog.stdlib.get_logger("purser")

EXPIRATION_BEFORE_BOLT11_S: Final = 60
"""The signed request stops being valid a minute before the payment request does."""


@dataclass(slots=True)
class LightningRefunds:
    """Two parts that share no port: paying, and deciding, which can only ask (M8)."""

    rt: Runtime
    wallets: RefundWallets
    lookups: OutgoingLookup
    memory: RefundMemory

    async def advance(self, refund: Refund) -> None:
        """The next step. Raises `PurserError` for "not now"."""
        if refund.state is RefundState.IN_FLIGHT:
            await self._decide(refund)
        else:
            await self._start(refund)

    # --- paying -------------------------------------------------------------------------------

    async def _start(self, refund: Refund) -> None:
        async with self.rt.unit() as unit:
            spender = await refunds.spender(unit.tx)
            payer = await tenants.payer_of(unit.tx, refund.tenant)
            is_late = unit.now - refund.created_at >= GIVE_UP_S
        # First of all: another life may have sent it, and then nothing here may end it.
        if await self._was_sent(refund, spender):
            return
        if is_late:
            await self._give_up(refund)
            return
        if spender is None:
            raise PurserError(refund.id, "no spending connection is configured")
        if payer is None or payer.state is not ConnectionState.ACTIVE:
            raise PurserError(refund.id, "the tenant has no wallet connected")
        made = await self._made(refund, payer)
        # The wallet that pays is asked last, so that the answer is fresh (M3).
        paying = await self.wallets.spender(spender)
        info = await paying.probe()
        probed_at = self.rt.clock.now()
        if not isinstance(info, WalletInfo):
            raise PurserError(refund.id, "our spending wallet does not answer")
        if info.methods and "pay_invoice" not in info.methods:
            raise PurserError(refund.id, "our spending connection may not pay")
        await self.memory.note(refund, made.payment_hash, made.expires_at, spender.wallet_pubkey)
        if self.rt.clock.now() - probed_at > PROBE_FRESH_S:
            raise PurserError(refund.id, "it took too long since our spending wallet answered")
        await self._pay(refund, payer, spender, paying, made)

    async def _give_up(self, refund: Refund) -> None:
        """Nothing was ever sent."""
        why = f"no payment request came within a day ({refund.problem})"
        async with self.rt.unit() as unit:
            await end_refund(self.rt, unit, refund, RefundSeen.GIVEN_UP, problem=why)

    async def _was_sent(self, refund: Refund, spender: Connection | None) -> bool:
        """Whether a later life of which this database knows nothing (a restored backup) may have
        sent it: then it is in flight, and only looked up."""
        noted = await self.memory.noted(refund)
        if noted is None and refund.payment_hash is None:
            return False
        if noted is not None and noted.spender:
            async with self.rt.unit() as unit:
                spender = await refunds.spender_by_wallet(unit.tx, noted.spender)
        if spender is None:
            raise PurserError(
                refund.id, "the spending wallet that may have sent it is not configured here"
            )
        if noted is not None and noted.payment_hash != refund.payment_hash:
            return await self._adopt(refund, spender, noted.payment_hash, noted.expires_at)
        assert refund.payment_hash is not None
        # Prepared and never claimed, as far as we know: the wallet that would have paid is asked.
        answer = await self.lookups.lookup_outgoing(spender, refund.payment_hash)
        if isinstance(answer, Transaction):
            assert refund.expires_at is not None
            return await self._adopt(refund, spender, refund.payment_hash, refund.expires_at)
        if not isinstance(answer, NotFound):
            raise PurserError(refund.id, "our spending wallet cannot say whether it was sent")
        return False

    async def _adopt(
        self, refund: Refund, spender: Connection, payment_hash: str, expires_at: int
    ) -> bool:
        async with self.rt.unit() as unit:
            await unit.tx.execute(
                "refunds.claim",
                id=refund.id,
                now=unit.now,
                payer_connection_id=None,
                spender_id=spender.id,
                payment_hash=payment_hash,
                bolt11=refund.bolt11 or "",
                amount_msat=refund.amount_msat,
                expires_at=expires_at,
                event_id=None,
                event_json="",
                encryption=None,
                expiration=None,
                fence=self.rt.fence.token,
                next_try_at=unit.now,
            )
            await unit.record(
                "refund.adopted",
                tenant=refund.tenant,
                subject=refund.id,
                invoice=refund.invoice_id,
                payment_hash=payment_hash,
            )
        return True

    async def _made(self, refund: Refund, payer: Connection) -> Bolt11:
        """A checked payment request of the tenant's wallet, stored before anybody may pay it."""
        assert refund.amount_msat is not None
        receiver = await self.wallets.receiver(payer)
        made = await receiver.make_invoice(
            refund.amount_msat, f"Refund of {refund.invoice_id}", REFUND_EXPIRY_S
        )
        if not isinstance(made, Bolt11):
            reason = getattr(made, "reason", None) or getattr(made, "message", "no answer")
            raise PurserError(refund.id, f"the tenant's wallet made no payment request: {reason}")
        if made.amount_msat != refund.amount_msat:
            raise PurserError(refund.id, "the tenant's wallet asks for another amount (K10)")
        if refund.payment_hash is not None:
            # Not sent, says `_was_sent`. Not earlier: the note names the wallet that can say so.
            await self.memory.forget(refund)
        try:
            async with self.rt.unit() as unit:
                if await payments.request_by_hash(unit.tx, made.payment_hash) is not None:
                    raise PurserError(refund.id, "the tenant's wallet sent us our own hash")
                await unit.tx.execute(
                    "refunds.prepare",
                    id=refund.id,
                    payment_hash=made.payment_hash,
                    bolt11=made.text,
                    expires_at=made.expires_at,
                )
        except ConstraintViolated:
            raise PurserError(
                refund.id, "the tenant's wallet used a payment hash twice (M3)"
            ) from None
        return made

    async def _pay(
        self, refund: Refund, payer: Connection, spender: Connection, paying: Payer, made: Bolt11
    ) -> None:
        now = self.rt.clock.now()
        expires_at = max(made.expires_at, now + REFUND_EXPIRY_S)
        sealed = paying.prepare_pay(
            made.text, now=now, expiration=made.expires_at - EXPIRATION_BEFORE_BOLT11_S
        )
        async with self.rt.unit() as unit:
            claimed = await unit.tx.execute(
                "refunds.claim",
                id=refund.id,
                now=unit.now,
                payer_connection_id=payer.id,
                spender_id=spender.id,
                payment_hash=made.payment_hash,
                bolt11=made.text,
                amount_msat=made.amount_msat,
                expires_at=expires_at,
                event_id=sealed.event_id,
                event_json=sealed.event_json,
                encryption=sealed.encryption,
                expiration=sealed.expiration,
                fence=self.rt.fence.token,
                next_try_at=next_try(0, now=unit.now),
            )
            if not claimed:
                return
            in_flight_at = unit.now
            await unit.record(
                "refund.in_flight",
                tenant=refund.tenant,
                subject=refund.id,
                invoice=refund.invoice_id,
                payment_hash=made.payment_hash,
                amount_msat=made.amount_msat,
            )

        def permit() -> bool:
            fresh = self.rt.clock.now() <= in_flight_at + PUBLISH_WINDOW_S
            return fresh and self.rt.fence.is_held()

        answer = await paying.publish_pay(sealed, permit=permit)
        await uninterrupted(self._store_publish(refund.id, answer))

    async def _store_publish(self, refund_id: str, answer: object) -> None:
        async with self.rt.unit() as unit:
            current = await refunds.get(unit.tx, refund_id)
            assert current is not None
            if isinstance(answer, NotSent):
                await end_refund(
                    self.rt,
                    unit,
                    current,
                    RefundSeen.NOT_SENT,
                    outcome="NOT_SENT",
                    problem=answer.reason,
                )
                return
            relay_url = getattr(answer, "relay_url", None)
            await unit.tx.execute("refunds.written", id=refund_id, relay_url=relay_url)
            await unit.record(
                "refund.written", tenant=current.tenant, subject=refund_id, relay=relay_url
            )

    # --- deciding -----------------------------------------------------------------------------

    async def _decide(self, refund: Refund) -> None:
        """Ask the wallet that paid; silence, an error and NOT_FOUND move nothing (M5)."""
        assert refund.spender_id is not None
        assert refund.payment_hash is not None
        async with self.rt.unit() as unit:
            spender = await refunds.spender_by_id(unit.tx, refund.spender_id)
            control = await unit.tx.scalar("refunds.control_hash", spender_id=refund.spender_id)
        assert spender is not None
        asked_at = self.rt.clock.now()
        answer = await self.lookups.lookup_outgoing(spender, refund.payment_hash)
        control_found = False
        if isinstance(answer, NotFound) and isinstance(control, str):
            found: LookupAnswer = await self.lookups.lookup_outgoing(spender, control)
            control_found = isinstance(found, Transaction)
        async with self.rt.unit() as unit:
            current = await refunds.get(unit.tx, refund.id)
            assert current is not None
            if current.state is not RefundState.IN_FLIGHT:
                return
            reading = read_outgoing(current, answer, now=asked_at, control_found=control_found)
            if reading.seen is not RefundSeen.UNKNOWN:
                problem = None
                if reading.seen is RefundSeen.PROVEN_UNPAID:
                    problem = "our spending wallet shows after its expiry that it was not paid"
                await end_refund(
                    self.rt, unit, current, reading.seen, problem=problem, preimage=reading.preimage
                )
                return
            at = next_try(current.tries, now=unit.now, unpaid_since=reading.unpaid_since)
            await refunds.store_reading(unit.tx, current, reading, next_try_at=at)
            overdue = unit.now >= undecided_until(current) + ESCALATE_S
            if overdue and current.escalated_at is None:
                await unit.tx.execute("refunds.escalated", id=current.id, now=unit.now)
                await self.rt.alarm(
                    unit,
                    f"refund_undecided:{current.id}",
                    f"Our spending wallet cannot say whether refund {current.id} was paid "
                    f"({type(answer).__name__}). It is not sent again. Look into the wallet for "
                    f"payment hash {current.payment_hash}, then: purser refund {current.id} "
                    "--resolve paid|failed --reason …",
                )
