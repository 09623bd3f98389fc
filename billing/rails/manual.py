"""The manual rail: show the tenant a payment request, once, and never send it to a wallet (M4)."""

from __future__ import annotations

from dataclasses import dataclass

from billing.model import Invoice, PaymentRequest, Purpose, RequestState
from billing.rails.issue import Issued, Issuer
from billing.store import invoices, payments
from billing.unit import Runtime


@dataclass(slots=True)
class ManualRail:
    """Shows an existing request that no wallet took, or a new one."""

    rt: Runtime
    issuer: Issuer

    async def show(self, invoice: Invoice, existing: PaymentRequest | None, why: str) -> bool:
        """True once the message is queued; False when nothing could be issued (operators know)."""
        request = existing
        if request is None:
            issued = await self.issuer.issue(invoice, Purpose.SHOWN)
            if not isinstance(issued, Issued):
                async with self.rt.unit() as unit:
                    await self.rt.alarm(
                        unit,
                        f"not_issued:{unit.now // 21600}",
                        f"No payment request for {invoice.id}: {issued.why}",
                    )
                return False
            request = issued.request
        elif request.noted_at is None:
            await self.issuer.note(request)
        return await self._queue(invoice, request, why)

    async def _queue(self, invoice: Invoice, request: PaymentRequest, why: str) -> bool:
        async with self.rt.unit() as unit:
            live = [
                a for a in await payments.attempts_of(unit.tx, invoice.id) if a.state == "in_flight"
            ]
            current = await payments.request(unit.tx, request.id)
            assert current is not None
            if live or current.state is not RequestState.OPEN:
                return False
            carried = await invoices.named_relays(unit.tx, invoice.id)
            await unit.tx.execute("payments.show_request", id=request.id, now=unit.now)
            await unit.tx.execute("invoices.shown", id=invoice.id)
            await unit.say(
                f"invoice:{invoice.id}:request:{request.id}",
                invoice.tenant,
                "pay_by_hand",
                request_id=request.id,
                invoice=invoice.id,
                amount_minor=request.amount_minor,
                currency=request.currency,
                amount_msat=request.amount_msat,
                bolt11=request.bolt11,
                expires_at=request.expires_at,
                rate=request.rate,
                relays=[relay.name for relay in carried],
                why=why,
            )
            await unit.record(
                "request.shown",
                tenant=invoice.tenant,
                subject=request.id,
                invoice=invoice.id,
                why=why,
            )
        return True
