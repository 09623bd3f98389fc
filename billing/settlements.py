"""Gives proven money its home: its invoice, else the oldest open one it covers, else credit.

Each settlement walks received -> placed or credited by stored operations (M9, M10): the target is
committed before Stripe is told, and what Stripe shows afterwards decides, not the call's answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import structlog

from billing import invoices as effects
from billing.errors import PurserError
from billing.model import Invoice, RelayState, Settlement, SettlementState
from billing.other_life import (
    OtherLife,
    credit_name,
    is_paid_by,
    payer_note,
    without_note,
)
from billing.out_of_band import PAY, OutOfBand
from billing.owing import owe
from billing.parallel import by_group
from billing.ports import StripeGateway
from billing.store import invoices, ledger, operations, payments, spends, tenants
from billing.unit import Runtime, Unit
from billing.views import InvoiceView

log = structlog.stdlib.get_logger("purser")

BATCH: Final = 20
RETRY_S: Final = (2, 5, 15, 60, 300)
"""Money in hand is placed soon; Stripe being away is the only reason to wait."""
ALARM_AFTER: Final = 6
"""Tries, some ten minutes, before operators hear that money in hand has no home (M9)."""
PENDING_EXPIRY_S: Final = 23 * 3600
"""An order taken up again has as long as Stripe gives a first invoice."""


@dataclass(slots=True)
class Placer:
    """Turns M6 evidence into paid invoices and credit."""

    rt: Runtime
    stripe: StripeGateway

    @property
    def other_life(self) -> OtherLife:
        """What was done before a backup was put back, or by a second bot."""
        return OtherLife(self.rt, self.stripe)

    @property
    def out_of_band(self) -> OutOfBand:
        """Its payments at Stripe, by payment hash."""
        return OutOfBand(self.rt, self.stripe)

    async def run_once(self, now: int) -> int:
        """Place what is due; one's error is its own."""
        async with self.rt.unit() as unit:
            due = await unit.tx.fetch_all(
                Settlement, "payments.settlements_due", now=now, count=BATCH
            )
        # Two moneys of one tenant must not aim at one invoice at the same time.
        await by_group(due, lambda money: money.tenant, self._try)
        return len(due)

    async def _try(self, money: Settlement) -> None:
        try:
            await self._advance(money)
        except PurserError as error:
            log.warning("settlement.failed", subject=money.payment_hash, error=error.what)
            wait_s = RETRY_S[min(money.attempts, len(RETRY_S) - 1)]
            async with self.rt.unit() as unit:
                await unit.tx.execute(
                    "payments.settlement_failed",
                    payment_hash=money.payment_hash,
                    next_at=unit.now + wait_s,
                )
                if money.attempts + 1 == ALARM_AFTER:
                    await self.rt.alarm(
                        unit,
                        f"unplaced:{money.payment_hash}",
                        f"{money.amount_msat // 1000} sats arrived for invoice "
                        f"{money.invoice_id} and cannot be booked at Stripe: {error.what}. "
                        "Purser keeps trying.",
                    )

    async def _advance(self, money: Settlement) -> None:
        if money.state is SettlementState.RECEIVED:
            if money.target_invoice_id is None:
                money = await self._aim(money)
            await self._pay_target(money)
        elif money.credit_minor > 0:
            await self._write_credit(money)

    async def _aim(self, money: Settlement) -> Settlement:
        """Choose the target on re-fetched invoices and commit the choice before the call."""
        target = await self._target_of(money)
        was_placed = False
        if target is None or target.id != money.invoice_id:
            was_placed = await self._was_placed_in_another_life(money)
            if not was_placed and await self.other_life.credited(money):
                target = None
        async with self.rt.unit() as unit:
            if was_placed:
                pass
            elif target is not None:
                if await spends.live(unit.tx, target.id) is not None:
                    raise PurserError(target.id, "credit is paying it; the money waits for its end")
                operation = await operations.begin(unit.tx, self.rt, PAY, money.payment_hash)
                await unit.tx.execute(
                    "payments.aim_settlement",
                    payment_hash=money.payment_hash,
                    target_invoice_id=target.id,
                    pay_operation_id=operation.id,
                )
            else:
                await self._to_credit(unit, money, money.value_minor)
            aimed = await payments.settlement(unit.tx, money.payment_hash)
            assert aimed is not None
            return aimed

    async def _was_placed_in_another_life(self, money: Settlement) -> bool:
        """It must neither become credit as well nor pay a second invoice."""
        view = await self.other_life.placed_on(money)
        if view is None:
            return False
        async with self.rt.unit() as unit:
            await effects.refresh(unit, money.tenant, view)
        await self._placed(money, view, money.value_minor - view.amount_paid_off_stripe_minor)
        return True

    async def _target_of(self, money: Settlement) -> InvoiceView | None:
        async with self.rt.unit() as unit:
            owed = await invoices.open_of_tenant(unit.tx, money.tenant)
            own = await invoices.get(unit.tx, money.invoice_id)
            free = [invoice for invoice in owed if await _is_free(unit, invoice)]
        candidates = ([own] if own is not None else []) + [
            invoice for invoice in free if own is None or invoice.id != own.id
        ]
        for invoice in candidates:
            view = await effects.look_again(self.rt, self.stripe, invoice)
            if _takes(view, money):
                return view
        return None

    async def _pay_target(self, money: Settlement) -> None:
        """Mark the target paid, then believe only what it shows; a target that was paid some other
        way meanwhile is given up and the money aims anew."""
        if money.state is not SettlementState.RECEIVED or money.target_invoice_id is None:
            return
        async with self.rt.unit() as unit:
            target = await invoices.get(unit.tx, money.target_invoice_id)
        assert target is not None
        before = await effects.look_again(self.rt, self.stripe, target)
        after = before
        paid_unheard = is_paid_by(before, money) and await self.out_of_band.is_unanswered(
            money.payment_hash
        )
        if _takes(before, money) or paid_unheard:
            await self.out_of_band.pay(
                money.payment_hash, before, lambda note_id: payer_note(note_id, money.payment_hash)
            )
            after = await effects.look_again(self.rt, self.stripe, target)
        if is_paid_by(after, money) and (
            await self.out_of_band.was_taken(money.payment_hash)
            or await self.other_life.is_at_work(money.payment_hash, money.payment_hash, after)
        ):
            # What it took is Stripe's word: it may have been reduced between look and payment.
            rest_minor = money.value_minor - after.amount_paid_off_stripe_minor
            await self._placed(money, after, rest_minor)
        elif after.status == "open":
            raise PurserError(after.id, "Stripe does not show it paid yet")
        else:
            if is_paid_by(after, money):
                await self._unmark(money, after)
            await self._aim_anew(money, after)

    async def _unmark(self, money: Settlement, view: InvoiceView) -> None:
        """Our note on an invoice that somebody else paid: it must not say that this money did."""
        subject = money.payment_hash
        async with operations.absolute(self.rt, "unnote_payer", subject, result="called") as op:
            await self.stripe.annotate_invoice(op.id, view.id, without_note(money, view))

    async def _aim_anew(self, money: Settlement, target: InvoiceView) -> None:
        async with self.rt.unit() as unit:
            await self.out_of_band.refuse(unit, money.payment_hash)
            await unit.tx.execute(
                "payments.aim_settlement",
                payment_hash=money.payment_hash,
                target_invoice_id=None,
                pay_operation_id=None,
            )
            await unit.record(
                "money.target_lost", tenant=money.tenant, subject=target.id, status=target.status
            )
        raise PurserError(money.payment_hash, f"its invoice {target.id} is {target.status}")

    async def _placed(self, money: Settlement, view: InvoiceView, rest_minor: int) -> None:
        async with self.rt.unit() as unit:
            credit_minor = max(0, rest_minor)
            operation_id = None
            if credit_minor:
                operation_id = await _credit_operation(unit, money)
            placed = await payments.place_settlement(
                unit.tx,
                money,
                SettlementState.PLACED,
                target_invoice_id=view.id,
                credit_minor=credit_minor,
                credit_operation_id=operation_id,
                next_try_at=unit.now if credit_minor else None,
            )
            if not placed:
                return
            taken_minor = view.amount_paid_off_stripe_minor
            await ledger.post_placed(unit, money, view.id, taken_minor, credit_minor)
            await unit.record(
                "money.placed",
                tenant=money.tenant,
                subject=view.id,
                payment_hash=money.payment_hash,
                amount_msat=money.amount_msat,
                credit_minor=credit_minor,
            )
            if view.id != money.invoice_id:
                await self._tell_moved(unit, money, view)

    async def _tell_moved(self, unit: Unit, money: Settlement, view: InvoiceView) -> None:
        await unit.say(
            f"money:{money.payment_hash}:moved",
            money.tenant,
            "money_moved",
            amount_msat=money.amount_msat,
            invoice=money.invoice_id,
            paid_invoice=view.id,
            currency=money.currency,
            value_minor=money.value_minor,
        )

    async def _to_credit(self, unit: Unit, money: Settlement, amount_minor: int) -> None:
        """All of it becomes credit; without a customer it is a liability, and an alarm (M9)."""
        tenant = await tenants.get(unit.tx, money.tenant)
        if tenant is None or tenant.customer_id is None:
            await owe(self.rt, unit, money)
            return
        operation_id = await _credit_operation(unit, money)
        await payments.place_settlement(
            unit.tx,
            money,
            SettlementState.CREDITED,
            target_invoice_id=None,
            credit_minor=amount_minor,
            credit_operation_id=operation_id,
            next_try_at=unit.now if amount_minor > 0 else None,
        )
        await unit.record(
            "money.to_credit",
            tenant=money.tenant,
            subject=money.invoice_id,
            payment_hash=money.payment_hash,
            credit_minor=amount_minor,
        )

    async def _write_credit(self, money: Settlement) -> None:
        """Put the credit on the Stripe balance; the gateway looks for the operation first."""
        assert money.credit_operation_id is not None
        async with self.rt.unit() as unit:
            tenant = await tenants.get(unit.tx, money.tenant)
            assert tenant is not None
            if tenant.customer_id is None:
                # Deleted since it was decided.
                await owe(self.rt, unit, money)
                return
        await self.stripe.credit_customer(
            money.credit_operation_id,
            customer_id=tenant.customer_id,
            amount_minor=money.credit_minor,
            currency=money.currency,
            description=f"Lightning payment {money.payment_hash[:16]} beyond {money.invoice_id}",
            key=await operations.key_of_named(self.rt, money.credit_operation_id),
        )
        async with self.rt.unit() as unit:
            await operations.finish(unit.tx, money.credit_operation_id, "credited", now=unit.now)
            await payments.place_settlement(
                unit.tx,
                money,
                money.state,
                target_invoice_id=money.target_invoice_id,
                credit_minor=money.credit_minor,
                credit_operation_id=money.credit_operation_id,
                next_try_at=None,
            )
            await ledger.post_credited(unit, money)
            await unit.say(
                f"money:{money.payment_hash}:credit",
                money.tenant,
                "credit_added",
                invoice=money.invoice_id,
                amount_msat=money.amount_msat,
                credit_minor=money.credit_minor,
                currency=money.currency,
            )
            await unit.record(
                "money.credited",
                tenant=money.tenant,
                subject=money.invoice_id,
                payment_hash=money.payment_hash,
                credit_minor=money.credit_minor,
            )
            await invoices.collect_all_of(unit.tx, money.tenant, due_at=unit.now)
            if money.state is SettlementState.CREDITED:
                await self._order_again(unit, money)

    async def _order_again(self, unit: Unit, money: Settlement) -> None:
        """A first invoice that died while its money came is ordered again, from credit (M9)."""
        for relay in await invoices.relays_of(unit.tx, money.invoice_id):
            waits = relay.state is RelayState.PENDING_PAYMENT
            is_lost = relay.state is RelayState.ENDED and relay.activated_at is None
            if relay.stop_requested_at is not None or not (waits or is_lost):
                continue
            if is_lost and await tenants.living_relay_named(unit.tx, relay.name) is not None:
                continue
            await tenants.move_relay(
                unit.tx,
                relay,
                RelayState.PENDING_PAYMENT,
                now=unit.now,
                expires_at=unit.billing_now + PENDING_EXPIRY_S,
            )
            await unit.record("relay.ordered_again", tenant=relay.tenant, subject=relay.id)
        await tenants.want_sync(unit.tx, money.tenant, due_at=unit.now)


async def _credit_operation(unit: Unit, money: Settlement) -> str:
    name = credit_name(money)
    await operations.begin_named(unit.tx, name, "credit", money.payment_hash, now=unit.now)
    return name


async def _is_free(unit: Unit, invoice: Invoice) -> bool:
    """No payer is at work on it (M4): other money may pay it."""
    attempts = await payments.attempts_of(unit.tx, invoice.id)
    return not any(attempt.is_live for attempt in attempts)


def _takes(view: InvoiceView, money: Settlement) -> bool:
    """Open, owed, in the same currency, and covered: out of band pays the whole remainder only."""
    return (
        view.status in ("open", "uncollectible")
        and view.currency == money.currency
        and 0 < view.amount_remaining_minor <= money.value_minor
    )
