"""Opens refunds and credits for an operator: checked against Stripe, stored as an intent (M1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, TypeAlias

from billing.errors import NoQuote, PurserError, StripeMissing
from billing.model import ConnectionState, Invoice, Settlement, SettlementState
from billing.money import fiat_to_msat, format_fiat
from billing.ports import Quoter, StripeGateway
from billing.refund_end import end_refund
from billing.refund_memory import refunds_in, take_up_refunds
from billing.refunds import (
    DOUBLE_S,
    FINAL,
    Refund,
    RefundSeen,
    RefundState,
    RefundWay,
    refundable_minor,
    returned_minor,
    share_msat,
    stands_in,
    undecided_until,
)
from billing.store import invoices, payments, refunds, tenants
from billing.store.engine import ConstraintViolated
from billing.unit import Runtime, Unit
from billing.views import CreditNoteView, InvoiceView, RefundView

MAX_CREDIT_MINOR: Final = 1_000_000
"""A credit needs no money that came first, so a slip of the finger has a ceiling: 10 000.00."""


class RefundRefused(PurserError):
    """It must not be done, or not now; nothing was sent and nothing is stored."""


Refunds: TypeAlias = frozenset[tuple[str, RefundState]]
"""Ids and states."""


@dataclass(frozen=True, slots=True)
class _Wish:
    """What was asked for, checked, not yet stored."""

    tenant: str
    invoice_id: str | None
    way: RefundWay
    amount_minor: int
    currency: str
    reason: str
    amount_msat: int | None = None
    rate: str | None = None
    again: bool = False
    seen: Refunds = frozenset()
    """The invoice's refunds when what is left of it was counted."""
    has_note: bool = True
    """False: the credit note of one that bounced stands for it already."""


@dataclass(frozen=True, slots=True)
class _Left:
    """What is left of an invoice to give back, and what it was counted from."""

    minor: int
    view: InvoiceView
    notes: Sequence[CreditNoteView]
    cards: Sequence[RefundView]
    ours: Sequence[Refund]

    def require_room(self, way: RefundWay, amount_minor: int) -> None:
        """A refund to the balance is a credit note, and Stripe takes none over money that the note
        of a card refund that came back stands for. Raises `RefundRefused`."""
        issued = [note for note in self.notes if note.is_issued]
        room_minor = self.view.total_minor - sum(note.amount_minor for note in issued)
        has_bounced = any(returned_minor(note, self.cards) for note in issued)
        if way is RefundWay.BALANCE and has_bounced and amount_minor > room_minor:
            raise RefundRefused(
                self.view.id,
                "the credit note of a card refund that came back stands at Stripe, which takes no "
                "second one over the same money: purser credit gives it without one",
            )


@dataclass(slots=True)
class RefundDesk:
    """What `purser refund` and `purser credit` call; workers of the bot do the rest."""

    rt: Runtime
    stripe: StripeGateway
    quoter: Quoter

    async def credit(
        self, tenant: str, amount_minor: int, currency: str, reason: str, *, again: bool = False
    ) -> Refund:
        """Credit on a Stripe balance that belongs to no invoice. Raises `RefundRefused`."""
        if not 0 < amount_minor <= MAX_CREDIT_MINOR:
            raise RefundRefused("", f"a credit is 1 to {MAX_CREDIT_MINOR} minor units")
        async with self.rt.unit() as unit:
            known = await tenants.get(unit.tx, tenant)
        if known is None or known.customer_id is None:
            raise RefundRefused(tenant, "there is no tenant with that key and a Stripe customer")
        customer = await self.stripe.customer(known.customer_id)
        if customer.deleted:
            raise RefundRefused(tenant, f"customer {customer.id} is deleted at Stripe")
        if customer.currency not in (None, currency):
            raise RefundRefused(tenant, f"its currency at Stripe is {customer.currency}")
        wish = _Wish(tenant, None, RefundWay.BALANCE, amount_minor, currency, reason, again=again)
        return await self._open(wish)

    async def refund(
        self,
        invoice_id: str,
        amount_minor: int | None,
        way: RefundWay | None,
        reason: str,
        *,
        again: bool = False,
    ) -> Refund:
        """Give back all that is left of a paid invoice, or a part. Raises `RefundRefused`.

        `way` None: as it was paid. Over Lightning the same sats go back that came.
        """
        async with self.rt.unit() as unit:
            invoice = await invoices.get(unit.tx, invoice_id)
        if invoice is None:
            raise RefundRefused(invoice_id, "there is no such invoice")
        left = await self._left(invoice)
        left_minor, currency = left.minor, left.view.currency
        amount_minor = left_minor if amount_minor is None else amount_minor
        if left_minor == 0:
            raise RefundRefused(invoice_id, "nothing of it is left to give back")
        if not 0 < amount_minor <= left_minor:
            raise RefundRefused(
                invoice_id,
                f"{format_fiat(amount_minor, currency)} is not between nothing and the "
                f"{format_fiat(left_minor, currency)} that can go back",
            )
        chosen = way or _as_paid(invoice)
        left.require_room(chosen, amount_minor)
        msat, rate = None, None
        if chosen is RefundWay.LIGHTNING:
            msat, rate = await self._sats(invoice, amount_minor)
        return await self._open(
            _Wish(
                invoice.tenant,
                invoice_id,
                chosen,
                amount_minor,
                currency,
                reason,
                msat,
                rate,
                again,
                _states(left.ours),
                not stands_in(amount_minor, left.notes, left.cards, left.ours),
            )
        )

    async def decide(self, refund_id: str, *, paid: bool, reason: str) -> Refund:
        """The operator's word in place of a spending wallet that is gone. Raises `RefundRefused`
        while it may still be under way. One that is pending counts, once it has a payment hash or a
        note at Stripe: another life may have sent it, and only that wallet could say. What is noted
        there may be younger than what we know, and is waited for as well."""
        noted = await self._noted_expiries(refund_id)
        async with self.rt.unit() as unit:
            refund = await refunds.get(unit.tx, refund_id)
            if refund is None:
                raise RefundRefused(refund_id, "there is no such refund")
            if refund.state in FINAL or (refund.payment_hash is None and not noted):
                raise RefundRefused(refund_id, f"it is {refund.state.value}, nothing to decide")
            if paid and refund.state is RefundState.PENDING:
                raise RefundRefused(
                    refund_id, "it was never seen to be sent; configure the wallet that sent it"
                )
            wait_s = undecided_until(refund, noted) - unit.now
            if wait_s > 0 and not paid:
                raise RefundRefused(
                    refund_id, f"it may still arrive; ask again in {-(-wait_s // 60)} min"
                )
            await unit.record(
                "operator.refund_decided",
                tenant=refund.tenant,
                subject=refund.id,
                verdict="paid" if paid else "failed",
                reason=reason,
            )
            is_pending = refund.state is RefundState.PENDING
            unpaid = RefundSeen.GIVEN_UP if is_pending else RefundSeen.PROVEN_UNPAID
            seen = RefundSeen.PAID if paid else unpaid
            await end_refund(self.rt, unit, refund, seen, outcome="OPERATOR", problem=reason)
            decided = await refunds.get(unit.tx, refund_id)
            assert decided is not None
            return decided

    # --- checks -----------------------------------------------------------------------------------

    async def _noted_expiries(self, refund_id: str) -> list[int]:
        """When each payment request expires that is noted at Stripe of it, whoever did so."""
        async with self.rt.unit() as unit:
            refund = await refunds.get(unit.tx, refund_id)
        if refund is None or refund.invoice_id is None or refund.way is not RefundWay.LIGHTNING:
            return []
        try:
            view = await self.stripe.invoice(refund.invoice_id)
        except StripeMissing:
            # Then no note will ever be read again, and what we know ourselves has to do.
            return []
        found = refunds_in(view.metadata)
        return [noted.expires_at for noted in found if noted.refund_id == refund_id]

    async def _left(self, invoice: Invoice) -> _Left:
        try:
            view = await self.stripe.invoice(invoice.id)
        except StripeMissing:
            raise RefundRefused(invoice.id, "Stripe has no such invoice") from None
        if view.status != "paid":
            raise RefundRefused(invoice.id, f"it is {view.status}; only what was paid can go back")
        notes = await self.stripe.credit_notes_of(invoice.id)
        cards = await self.stripe.refunds_of(invoice.id)
        disputes = await self.stripe.disputes_of(invoice.id)
        async with self.rt.unit() as unit:
            taken_up = await take_up_refunds(self.rt, unit, invoice, view.metadata)
            ours = await refunds.of_invoice(unit.tx, invoice.id)
        if taken_up:
            raise RefundRefused(
                invoice.id,
                "a refund of it that this database did not know was found at Stripe: wait for "
                "its end (purser refunds)",
            )
        minor = refundable_minor(view, notes, cards, disputes, ours)
        return _Left(minor, view, notes, cards, ours)

    async def _sats(self, invoice: Invoice, amount_minor: int) -> tuple[int, str]:
        """What goes back, in whole sats, and at which rate."""
        async with self.rt.unit() as unit:
            if await refunds.spender(unit.tx) is None:
                raise RefundRefused(
                    invoice.id,
                    "no spending connection is configured ([refunds] nwc_file); --to balance or "
                    "card go without",
                )
            payer = await tenants.payer_of(unit.tx, invoice.tenant)
            if payer is None or payer.state is not ConnectionState.ACTIVE:
                raise RefundRefused(invoice.id, "the tenant has no wallet connected")
            money = _of_invoice(await payments_of(unit, invoice.tenant), invoice.id)
            request = None if money is None else await payments.request(unit.tx, money.request_id)
        if money is not None and request is not None and amount_minor <= money.value_minor:
            sats = share_msat(amount_minor, money.value_minor, money.amount_msat)
            rate = request.rate
        else:
            try:
                quote = await self.quoter.quote(invoice.currency)
            except NoQuote as error:
                raise RefundRefused(invoice.id, f"no exchange rate now: {error.what}") from error
            sats = fiat_to_msat(amount_minor, invoice.currency, Decimal(quote.price))
            rate = str(quote.price)
        if sats <= 0:
            raise RefundRefused(invoice.id, "that is less than a sat")
        return sats, rate

    async def _open(self, wish: _Wish) -> Refund:
        refund_id = self.rt.ids.new("ref")
        try:
            async with self.rt.unit() as unit:
                await self._require_new(unit, wish)
                await self._store(unit, refund_id, wish)
                opened = await refunds.get(unit.tx, refund_id)
                assert opened is not None
                return opened
        except ConstraintViolated:
            raise RefundRefused(
                wish.invoice_id or wish.tenant,
                "another refund of it is under way: wait for its end",
            ) from None

    async def _store(self, unit: Unit, refund_id: str, wish: _Wish) -> None:
        # A balance refund of an invoice is its credit note: one operation is both.
        is_noted = wish.invoice_id is not None and wish.way is not RefundWay.BALANCE
        await refunds.insert(
            unit.tx,
            refund_id=refund_id,
            tenant=wish.tenant,
            invoice_id=wish.invoice_id,
            way=wish.way,
            amount_minor=wish.amount_minor,
            currency=wish.currency,
            reason=wish.reason,
            operation_id=self.rt.ids.new("op"),
            note_operation_id=self.rt.ids.new("op") if is_noted and wish.has_note else None,
            amount_msat=wish.amount_msat,
            rate=wish.rate,
            now=unit.now,
        )
        await unit.record(
            "refund.pending",
            tenant=wish.tenant,
            subject=refund_id,
            invoice=wish.invoice_id,
            way=wish.way.value,
            amount_minor=wish.amount_minor,
            currency=wish.currency,
            amount_msat=wish.amount_msat,
            reason=wish.reason,
        )

    async def _require_new(self, unit: Unit, wish: _Wish) -> None:
        twin = await unit.tx.fetch_one(
            Refund,
            "refunds.twin",
            tenant=wish.tenant,
            amount_minor=wish.amount_minor,
            invoice_id=wish.invoice_id or "",
            since=unit.now - DOUBLE_S,
        )
        if twin is not None and not wish.again:
            raise RefundRefused(
                twin.id, "the same was asked for a moment ago; --again if it is meant"
            )
        if wish.invoice_id is None:
            return
        # Between the look at Stripe and this transaction another refund may have begun, or ended.
        ours = await refunds.of_invoice(unit.tx, wish.invoice_id)
        if any(refund.state not in FINAL for refund in ours):
            raise RefundRefused(
                wish.invoice_id, "another refund of it is under way: wait for its end"
            )
        if _states(ours) != wish.seen:
            raise RefundRefused(wish.invoice_id, "another refund of it ended meanwhile: look again")


def _states(ours: Sequence[Refund]) -> Refunds:
    return frozenset((refund.id, refund.state) for refund in ours)


async def payments_of(unit: Unit, tenant: str) -> Sequence[Settlement]:
    """All money of a tenant, oldest first."""
    return await unit.tx.fetch_all(Settlement, "payments.settlements_of_tenant", tenant=tenant)


def _of_invoice(money: Sequence[Settlement], invoice_id: str) -> Settlement | None:
    """The one settlement that paid it."""
    return next(
        (
            row
            for row in money
            if row.target_invoice_id == invoice_id and row.state is SettlementState.PLACED
        ),
        None,
    )


def _as_paid(invoice: Invoice) -> RefundWay:
    """Where it came from; credit goes back to where credit lives."""
    if invoice.paid_by == "card":
        return RefundWay.CARD
    return RefundWay.LIGHTNING if invoice.paid_by in ("nwc", "manual") else RefundWay.BALANCE
