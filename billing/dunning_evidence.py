"""Asks Stripe, and our wallet about every payment request, whether an invoice is unpaid (M13)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from billing import invoices as effects
from billing.credit import spendable
from billing.dunning import Evidence, Window
from billing.errors import StripeMissing
from billing.model import (
    Connection,
    ConnectionState,
    PaymentRequest,
    RequestState,
)
from billing.payments import is_beyond_margin
from billing.ports import StripeGateway
from billing.resolver import PayeeLookup
from billing.store import invoices, payments, tenants
from billing.unit import Runtime, Unit
from billing.views import CardProgress, InvoiceView
from wallet.ports import NotFound, Transaction


@dataclass(slots=True)
class Investigator:
    """`ask` takes one call at a time; what Stripe says is stored as any re-fetched invoice is."""

    rt: Runtime
    stripe: StripeGateway
    lookups: PayeeLookup
    currency: str

    def currency_of(self, window: Window) -> str:
        """All paid plans share one."""
        return self.currency

    async def ask(self, window: Window) -> Evidence:
        """Raises the gateway's errors: Stripe cannot be asked."""
        progress: CardProgress = "none"
        async with self.rt.unit() as unit:
            known = await invoices.get(unit.tx, window.invoice_id)
            requests = await payments.requests_of(unit.tx, window.invoice_id)
        assert known is not None
        if known.status in ("open", "uncollectible"):
            with suppress(StripeMissing):
                # Before the invoice itself: what is read later is at least as new (M4).
                progress = await self.stripe.card_progress(known.id)
        view = await effects.look_again(self.rt, self.stripe, known)
        credit_minor = await self._credit(view)
        arriving, unanswered = False, None
        for request in requests:
            if request.state is RequestState.SETTLED:
                continue
            said = await self._look_up(request)
            arriving |= said == "arriving"
            if said == "unanswered":
                unanswered = f"our wallet about {request.id}"
        return Evidence(
            remaining_minor=view.amount_remaining_minor,
            card_in_progress=progress == "in_progress",
            credit_minor=credit_minor,
            arriving=arriving,
            due_at=view.due_at,
            is_payable=await self._is_payable(known.id),
            unanswered=unanswered,
        )

    async def _is_payable(self, invoice_id: str) -> bool:
        async with self.rt.unit() as unit:
            requests = await payments.requests_of(unit.tx, invoice_id)
            return any(not is_beyond_margin(request, now=unit.now) for request in requests)

    async def _credit(self, view: InvoiceView) -> int:
        try:
            customer = await self.stripe.customer(view.customer_id)
        except StripeMissing:
            return 0
        async with self.rt.unit() as unit:
            return await spendable(unit, view, customer)

    async def _look_up(self, request: PaymentRequest) -> str:
        """unpaid, arriving or unanswered."""
        async with self.rt.unit() as unit:
            connection = await tenants.connection(unit.tx, request.payee_connection_id)
        assert connection is not None
        answer = await self.lookups.lookup(connection, request.payment_hash)
        if isinstance(answer, Transaction) and answer.payment_hash == request.payment_hash:
            if not answer.is_incoming_settled and not answer.is_accepted:
                return "unpaid"
            async with self.rt.unit() as unit:
                # The resolver books it.
                await unit.tx.execute("payments.look_up_now", id=request.id, now=unit.now)
            return "arriving"
        is_decided = is_beyond_margin(request, now=self.rt.clock.now())
        if is_decided and (isinstance(answer, NotFound) or _is_gone(connection)):
            # Proven dead before: a wallet that forgets, or one that was replaced, proves no less.
            return "unpaid"
        return "unanswered"


def _is_gone(connection: Connection) -> bool:
    return connection.state in (ConnectionState.REPLACED, ConnectionState.OFF)


def is_claimed(requests: Sequence[PaymentRequest]) -> bool:
    """A payer showed the preimage of one that is not settled (M6)."""
    return any(r.claimed_at is not None and r.state is not RequestState.SETTLED for r in requests)


async def money_in_hand(unit: Unit, requests: Sequence[PaymentRequest]) -> bool:
    """Proven money that has no home yet (M9)."""
    for request in requests:
        if request.state is RequestState.SETTLED:
            money = await payments.settlement(unit.tx, request.payment_hash)
            if money is not None and (money.state == "received" or money.next_try_at is not None):
                return True
    return False
