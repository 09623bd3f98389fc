"""Money that was proven and cannot become credit, because its tenant has no customer (M9)."""

from __future__ import annotations

from billing.model import Settlement, SettlementState
from billing.money import format_fiat
from billing.store import ledger, payments
from billing.unit import Runtime, Unit


async def owe(rt: Runtime, unit: Unit, money: Settlement) -> None:
    """A liability in the books, and an alarm: all of it, or what its invoice left of it."""
    is_rest = money.state is SettlementState.PLACED
    amount_minor = money.credit_minor if is_rest else money.value_minor
    await payments.place_settlement(
        unit.tx,
        money,
        SettlementState.PLACED if is_rest else SettlementState.LIABILITY,
        target_invoice_id=money.target_invoice_id if is_rest else None,
        credit_minor=money.credit_minor if is_rest else 0,
        credit_operation_id=money.credit_operation_id,
        next_try_at=None,
    )
    await ledger.post_owed(unit, money, amount_minor)
    what = f"{money.amount_msat // 1000} sats"
    if is_rest:
        what = f"{format_fiat(amount_minor, money.currency)} of {what}"
    await rt.alarm(
        unit,
        f"liability:{money.payment_hash}",
        f"{what} arrived that belong to a tenant without a Stripe customer (invoice "
        f"{money.invoice_id}): refund them by hand.",
    )
