"""What a tenant owes and has paid: `invoices`, `pay`, `status`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from billing.desk import Command, Desk, answer
from billing.dunning import Policy
from billing.model import (
    HostedRelay,
    Invoice,
    PaymentRequest,
    RelayState,
    RequestState,
)
from billing.outlook import next_for
from billing.rails.choice import SHOW_LEFT_S
from billing.store import cards, invoices, payments, tenants
from billing.unit import Unit

LISTED: Final = 12
"""A message stays well under 8 kB."""


@dataclass(slots=True)
class Accounts:
    """Reads for the tenant, and the wish to pay by hand."""

    desk: Desk
    policy: Policy = field(default_factory=Policy)

    async def invoices(self, command: Command) -> None:
        """The newest invoices, with what is still owed."""
        async with self.desk.serve(command) as unit:
            if unit is None:
                return
            found = await invoices.of_tenant(unit.tx, command.sender)
            rows = [_row(invoice) for invoice in reversed(found[-LISTED:])]
            await answer(unit, command, "invoices", invoices=rows)

    async def pay(self, command: Command) -> None:
        """A payment request for the oldest open invoice, unless a payment is under way (M4)."""
        async with self.desk.serve(command) as unit:
            if unit is None:
                return
            owed = await invoices.payable_by(unit.tx, command.sender)
            if not owed:
                await answer(unit, command, "nothing_to_pay")
                return
            invoice = owed[0]
            attempts = await payments.attempts_of(unit.tx, invoice.id)
            if any(attempt.is_live for attempt in attempts):
                await answer(
                    unit,
                    command,
                    "payment_under_way",
                    amount_minor=invoice.amount_remaining_minor,
                    currency=invoice.currency,
                )
                return
            requests = await payments.requests_of(unit.tx, invoice.id)
            shown = next((r for r in requests if _can_be_shown_again(r, unit.now)), None)
            if shown is not None:
                await self._show_again(unit, command, invoice, shown)
                return
            await unit.tx.execute("invoices.want_show", id=invoice.id, wanted=1, now=unit.now)
            for request in requests:
                if request.state is RequestState.OPEN:
                    await unit.tx.execute("payments.look_up_now", id=request.id, now=unit.now)
            await unit.record("pay.wanted", tenant=command.sender, subject=invoice.id)
            await answer(
                unit,
                command,
                "preparing",
                amount_minor=invoice.amount_remaining_minor,
                currency=invoice.currency,
            )

    async def _show_again(
        self, unit: Unit, command: Command, invoice: Invoice, request: PaymentRequest
    ) -> None:
        carried = await invoices.named_relays(unit.tx, invoice.id)
        await answer(
            unit,
            command,
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
            why="asked",
        )

    async def status(self, command: Command) -> None:
        """Everything in one message: relays, what is owed, what happens next."""
        async with self.desk.serve(command) as unit:
            if unit is None:
                return
            tenant = await tenants.get(unit.tx, command.sender)
            if tenant is None:
                await answer(unit, command, "no_tenant")
                return
            relays = await tenants.relays_of(unit.tx, command.sender)
            owed = await invoices.payable_by(unit.tx, command.sender)
            payer = await tenants.payer_of(unit.tx, command.sender)
            comes = await next_for(unit, command.sender, self.policy)
            renewed = [r.is_renewed and await invoices.of_relay(unit.tx, r.id) for r in relays]
            counts: dict[str, int] = {}
            for relay in relays:
                if relay.state is not RelayState.ENDED:
                    state = "lapsed" if relay.is_lapsed else relay.state.value
                    counts[state] = counts.get(state, 0) + 1
            await answer(
                unit,
                command,
                "status",
                relays=counts,
                subscription=tenant.subscription_status,
                period_end=tenant.period_end,
                renews=any(renewed),
                stops=[{"name": r.name, "at": r.stops_at} for r in relays if _is_stopping(r)],
                owed=[_row(invoice) for invoice in owed[:LISTED]],
                overdue=bool(comes),
                coming=comes.get("coming"),
                coming_for=comes.get("relays"),
                wallet=payer.masked if payer is not None else None,
                wallet_state=payer.state.value if payer is not None else None,
                wallet_problem=payer.problem if payer is not None else None,
                card=await _card_name(unit, command.sender),
            )


async def _card_name(unit: Unit, tenant: str) -> str | None:
    """`Visa …4242`, where there is one that pays."""
    card = await cards.of_tenant(unit.tx, tenant)
    if card is None or card.method_id is None:
        return None
    return f"{(card.brand or 'card').capitalize()} …{card.last4 or '????'}"


def _is_stopping(relay: HostedRelay) -> bool:
    is_over = relay.state is RelayState.ENDED
    return not is_over and relay.stop_requested_at is not None and relay.stops_at is not None


def _can_be_shown_again(request: PaymentRequest, now: int) -> bool:
    return (
        request.state is RequestState.OPEN
        and request.shown_at is not None
        and request.claimed_at is None
        and request.expires_at - now >= SHOW_LEFT_S
    )


def _row(invoice: Invoice) -> dict[str, str | int | None]:
    return {
        "id": invoice.id,
        "number": invoice.number,
        "status": invoice.status,
        "total_minor": invoice.total_minor,
        "remaining_minor": invoice.amount_remaining_minor,
        "currency": invoice.currency,
        "created_at": invoice.created_at,
        "paid_by": invoice.paid_by,
    }
