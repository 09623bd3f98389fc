"""The credit rail: takes what is owed from the customer's balance, then says that it is paid (M10).

Stripe applies a balance only when it finalizes an invoice; credit that comes later would lie beside
an open invoice for ever. Intent row and note at Stripe first (M1), then the debit, then the payment
out of band; whatever the invoice did not take goes back to the balance.

| state | next call | then |
|---|---|---|
| prepared | note, debit | debited; returning, where the balance did not cover it after all |
| debited | mark the invoice paid | placed; returning, where it was paid or closed some other way |
| returning | credit the rest | placed or returned |
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from billing import invoices as effects
from billing.credit_note import mark_of, note_of
from billing.errors import PurserError, StripeMissing, StripeRejected
from billing.ledger import SpendPart
from billing.model import Invoice, RequestState
from billing.money import format_fiat
from billing.other_life import OtherLife, payer_note
from billing.out_of_band import OutOfBand
from billing.ports import StripeGateway
from billing.store import invoices, ledger, operations, payments, spends
from billing.store.spends import CreditSpend
from billing.unit import Runtime, Unit
from billing.views import InvoiceView


@dataclass(slots=True)
class CreditRail:
    """Committed as an intent first, then one step at a time."""

    rt: Runtime
    stripe: StripeGateway

    @property
    def out_of_band(self) -> OutOfBand:
        """Its payments at Stripe, by spend."""
        return OutOfBand(self.rt, self.stripe)

    async def start(self, invoice: Invoice, view: InvoiceView) -> bool:
        """The intent; nothing is taken yet. False where another payer was faster (M4)."""
        async with self.rt.unit() as unit:
            if await self._is_busy(unit, invoice.id):
                return False
            spend = CreditSpend(
                id=await spends.new_id(unit.tx, invoice.id),
                invoice_id=invoice.id,
                tenant=invoice.tenant,
                customer_id=view.customer_id,
                amount_minor=view.amount_remaining_minor,
                currency=view.currency,
                return_minor=0,
                state="prepared",
                created_at=unit.now,
                ended_at=None,
            )
            await spends.intend(unit, spend)
        return True

    async def _is_busy(self, unit: Unit, invoice_id: str) -> bool:
        attempts = await payments.attempts_of(unit.tx, invoice_id)
        requests = await payments.requests_of(unit.tx, invoice_id)
        return (
            any(attempt.is_live for attempt in attempts)
            or any(request.state is RequestState.OPEN for request in requests)
            or await spends.live(unit.tx, invoice_id) is not None
            or bool(await unit.tx.scalar("spends.money_aimed_at", invoice_id=invoice_id))
        )

    async def go_on(self, invoice: Invoice, view: InvoiceView, spend: CreditSpend | None) -> None:
        """The next step: of what is under way, else of a new one."""
        if spend is None:
            await self.start(invoice, view)
        else:
            await self.advance(spend)

    async def advance(self, spend: CreditSpend) -> None:
        """One step. Raises the gateway's errors: it is told again later, with the same keys."""
        match spend.state:
            case "prepared":
                await self._debit(spend)
            case "debited":
                await self._pay(spend)
            case "returning":
                await self._give_back(spend)
            case _:
                raise AssertionError(spend.state)

    # --- prepared ---------------------------------------------------------------------------------

    async def _debit(self, spend: CreditSpend) -> None:
        await self._note(spend)
        try:
            balance_minor = await self.stripe.debit_customer(
                spend.id,
                customer_id=spend.customer_id,
                amount_minor=spend.amount_minor,
                currency=spend.currency,
                description=f"Credit spent on {spend.invoice_id}",
                key=await operations.key_of_named(self.rt, spend.id),
            )
        except (StripeRejected, StripeMissing) as error:
            # Refused is not taken: the customer is gone, or lives in another currency.
            await self._give_up(spend, error)
            return
        # Stripe's sign: above zero the balance did not cover it, a renewal was faster.
        is_overdrawn = balance_minor > 0
        async with self.rt.unit() as unit:
            await operations.finish(unit.tx, spend.id, "debited", now=unit.now)
            moved = await spends.move(
                unit.tx,
                spend,
                "returning" if is_overdrawn else "debited",
                return_minor=spend.amount_minor if is_overdrawn else 0,
            )
            if moved:
                await ledger.post_spend(unit, spend, "debited", spend.amount_minor)
                await unit.record(
                    "credit.debited",
                    tenant=spend.tenant,
                    subject=spend.invoice_id,
                    amount_minor=spend.amount_minor,
                    overdrawn=is_overdrawn,
                )

    async def _give_up(self, spend: CreditSpend, error: PurserError) -> None:
        async with self.rt.unit() as unit:
            await operations.finish(unit.tx, spend.id, f"refused: {error.what}", now=unit.now)
            if await spends.move(unit.tx, spend, "returned", ended_at=unit.now):
                await unit.record(
                    "credit.refused",
                    tenant=spend.tenant,
                    subject=spend.invoice_id,
                    why=error.what[:240],
                )

    async def _note(self, spend: CreditSpend) -> None:
        # An invoice that takes no note any more: what it shows decides, not the note.
        with suppress(StripeRejected):
            async with operations.absolute(self.rt, "note_credit", spend.id, result="over") as op:
                await self.stripe.annotate_invoice(
                    op.id, spend.invoice_id, note_of(spend.id, spend.amount_minor)
                )

    # --- debited ----------------------------------------------------------------------------------

    async def _pay(self, spend: CreditSpend) -> None:
        async with self.rt.unit() as unit:
            known = await invoices.get(unit.tx, spend.invoice_id)
        assert known is not None
        before = await effects.look_again(self.rt, self.stripe, known)
        after = before
        is_covered = 0 < before.amount_remaining_minor <= spend.amount_minor
        is_owed = before.status in ("open", "uncollectible") and is_covered
        is_paid = is_paid_by(before, spend.id)
        if is_owed or (is_paid and await self.out_of_band.is_unanswered(spend.id)):
            await self.out_of_band.pay(
                spend.id, before, lambda note_id: payer_note(note_id, mark_of(spend.id))
            )
            after = await effects.look_again(self.rt, self.stripe, known)
        if after.status in ("open", "uncollectible") and (
            is_covered or await self.out_of_band.may_land(spend.id)
        ):
            raise PurserError(after.id, "Stripe does not show it paid yet")
        taken_minor = 0
        if is_paid_by(after, spend.id) and await self._may_be_ours(spend, after):
            taken_minor = after.amount_paid_off_stripe_minor
        rest_minor = max(0, spend.amount_minor - taken_minor)
        async with self.rt.unit() as unit:
            moved = await spends.move(
                unit.tx,
                spend,
                "returning" if rest_minor else "placed",
                return_minor=rest_minor,
                ended_at=None if rest_minor else unit.now,
            )
            if moved and taken_minor:
                await ledger.post_spend(unit, spend, "placed", taken_minor)
                await unit.record(
                    "credit.placed",
                    tenant=spend.tenant,
                    subject=spend.invoice_id,
                    amount_minor=taken_minor,
                )

    async def _may_be_ours(self, spend: CreditSpend, view: InvoiceView) -> bool:
        """Without a call of this life the mark is another life's, which paid it from this debit; so
        is one that a second bot, at the same spend, wrote beside ours."""
        if not await self.out_of_band.calls(spend.id) or await self.out_of_band.was_taken(spend.id):
            return True
        other_life = OtherLife(self.rt, self.stripe)
        return await other_life.is_at_work(spend.id, mark_of(spend.id), view)

    # --- returning --------------------------------------------------------------------------------

    async def _give_back(self, spend: CreditSpend) -> None:
        name = f"return_{spend.id}"
        async with self.rt.unit() as unit:
            await operations.begin_named(unit.tx, name, "return_credit", spend.id, now=unit.now)
        to_balance = True
        try:
            await self.stripe.credit_customer(
                name,
                customer_id=spend.customer_id,
                amount_minor=spend.return_minor,
                currency=spend.currency,
                description=f"Credit not needed for {spend.invoice_id}",
                key=await operations.key_of_named(self.rt, name),
            )
        except (StripeRejected, StripeMissing):
            to_balance = False  # the customer is gone: it is owed to somebody without one (M9)
        is_whole = spend.return_minor == spend.amount_minor
        async with self.rt.unit() as unit:
            await operations.finish(unit.tx, name, "credited", now=unit.now)
            moved = await spends.move(
                unit.tx,
                spend,
                "returned" if is_whole else "placed",
                return_minor=spend.return_minor,
                ended_at=unit.now,
            )
            if moved:
                what: SpendPart = "returned" if to_balance else "owed"
                await ledger.post_spend(unit, spend, what, spend.return_minor)
                await self._alarm_owed(unit, spend, to_balance=to_balance)
                await unit.record(
                    "credit.returned",
                    tenant=spend.tenant,
                    subject=spend.invoice_id,
                    amount_minor=spend.return_minor,
                )

    async def _alarm_owed(self, unit: Unit, spend: CreditSpend, *, to_balance: bool) -> None:
        if not to_balance:
            await self.rt.alarm(
                unit,
                f"liability:{spend.id}",
                f"{format_fiat(spend.return_minor, spend.currency)} of credit was taken for "
                f"invoice {spend.invoice_id}, which did not need it, and the customer is gone: "
                "refund it by hand.",
            )


def is_paid_by(view: InvoiceView, spend_id: str) -> bool:
    """Marked by this spend, and paid off Stripe."""
    return (
        view.status == "paid"
        and view.metadata.get(effects.PAID_BY_KEY) == mark_of(spend_id)
        and view.amount_paid_off_stripe_minor > 0
    )
