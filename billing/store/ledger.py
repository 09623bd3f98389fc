"""The stored ledger: appended to in the transaction of what it records, never changed (C20)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from billing import ledger
from billing.ledger import Account, Balances, Entry, LedgerRow, RefundWay, SpendPart
from billing.model import Invoice, PaymentRequest, Settlement
from billing.store.engine import Tx
from billing.store.spends import CreditSpend
from billing.unit import Unit
from billing.views import InvoiceView

Grouping: TypeAlias = Literal[
    "ledger.sums", "ledger.by_invoice", "ledger.by_payment_hash", "ledger.out_of_band"
]


@dataclass(frozen=True, slots=True)
class Sum:
    """One side of one account, of a tenant, an invoice or a payment hash."""

    subject: str
    account: Account
    unit: str
    side: str
    amount: int


async def post(unit: Unit, entry: Entry) -> bool:
    """Append it with this transaction's times; False when its key is booked already."""
    if await unit.tx.scalar("ledger.has", entry=entry.key):
        return False
    rows = [
        {
            "entry": entry.key,
            "line": line,
            "at": unit.now,
            "billing_at": unit.billing_now,
            "kind": entry.kind,
            "tenant": entry.tenant,
            "invoice_id": entry.invoice_id,
            "payment_hash": entry.payment_hash,
            "debit": moved.debit.value,
            "credit": moved.credit.value,
            "unit": moved.unit,
            "amount": moved.amount,
            "rate": entry.rate,
        }
        for line, moved in enumerate(ledger.transfers(entry.postings))
    ]
    for row in rows:
        await unit.tx.execute("ledger.insert", **row)
    return bool(rows)


async def post_invoice(
    unit: Unit, tenant: str, view: InvoiceView, before: Invoice | None = None
) -> None:
    """Bring the books to what Stripe shows of an invoice; `before`: how it was last stored."""
    seen = (view.status, view.total_minor, view.amount_due_minor, view.amount_remaining_minor)
    if before is not None and seen == (
        before.status,
        before.total_minor,
        before.amount_due_minor,
        before.amount_remaining_minor,
    ):
        return
    rows = await unit.tx.fetch_all(LedgerRow, "ledger.of_invoice_itself", invoice_id=view.id)
    entries = len({row.entry for row in rows})
    entry = ledger.invoice_changed(tenant, view, ledger.balances(rows), entries)
    if entry is not None:
        await post(unit, entry)


async def post_received(
    unit: Unit, request: PaymentRequest, amount_msat: int, value_minor: int
) -> None:
    """Money proven by our wallet."""
    await post(unit, ledger.money_received(request, amount_msat, value_minor))


async def post_placed(
    unit: Unit, money: Settlement, invoice_id: str, taken_minor: int, credit_minor: int
) -> None:
    """It paid an invoice."""
    await post(unit, ledger.money_placed(money, invoice_id, taken_minor, credit_minor))


async def post_credited(unit: Unit, money: Settlement) -> None:
    """Its rest is credit at Stripe."""
    await post(unit, ledger.money_credited(money))


async def post_owed(unit: Unit, money: Settlement, amount_minor: int) -> None:
    """It, or what an invoice left of it, is owed to somebody without a customer."""
    await post(unit, ledger.money_owed(money, amount_minor))


async def post_customer_gone(unit: Unit, tenant: str, customer_id: str) -> dict[str, int]:
    """Its customer was deleted; returns the credit that is now a liability, by currency."""
    owed: dict[str, int] = {}
    for row in await unit.tx.fetch_all(Sum, "ledger.credit_of", tenant=tenant):
        await post(unit, ledger.customer_gone(customer_id, tenant, row.unit, row.amount))
        if row.amount < 0:
            owed[row.unit] = -row.amount
    return owed


async def post_spend(unit: Unit, spend: CreditSpend, part: SpendPart, amount_minor: int) -> None:
    """A step of credit on its way to an invoice."""
    entry = ledger.credit_spent(
        spend.id, part, spend.tenant, spend.invoice_id, amount_minor, spend.currency
    )
    await post(unit, entry)


async def post_credit(
    unit: Unit, operation_id: str, tenant: str, amount_minor: int, currency: str
) -> bool:
    """An operator's credit, in the transaction that marks it given."""
    return await post(unit, ledger.credit_granted(operation_id, tenant, amount_minor, currency))


async def post_adopted(
    unit: Unit, operation_id: str, tenant: str, credit_minor: int, currency: str
) -> bool:
    """A balance changed by hand at Stripe, in the transaction that names who had it booked."""
    entry = ledger.balance_adopted(operation_id, tenant, credit_minor, currency)
    return await post(unit, entry)


async def post_refund(
    unit: Unit,
    refund_id: str,
    tenant: str,
    invoice_id: str | None,
    way: RefundWay,
    amount_minor: int,
    currency: str,
    *,
    amount_msat: int = 0,
    rate: str | None = None,
    payment_hash: str | None = None,
    from_liability: bool = False,
) -> bool:
    """A refund, in the transaction that makes it final."""
    return await post(
        unit,
        ledger.refunded(
            refund_id,
            tenant,
            invoice_id,
            way,
            amount_minor,
            currency,
            amount_msat=amount_msat,
            rate=rate,
            payment_hash=payment_hash,
            from_liability=from_liability,
        ),
    )


async def post_bounced(
    unit: Unit, refund_id: str, invoice_id: str | None, amount_minor: int, currency: str
) -> str | None:
    """A card refund that came back. Returns the tenant it was booked for, whatever became of their
    customer; None when it was never booked, or is turned round already."""
    tenant = await unit.tx.scalar("ledger.tenant_of", entry=f"refund:{refund_id}")
    if not isinstance(tenant, str):
        return None
    entry = ledger.refund_bounced(refund_id, tenant, invoice_id, amount_minor, currency)
    return tenant if await post(unit, entry) else None


async def rows(tx: Tx, *, since: int = 0, until: int = 1 << 62) -> list[LedgerRow]:
    """Transfers booked in [since, until) by billing time, in the order of booking."""
    return await tx.fetch_all(LedgerRow, "ledger.between", since=since, until=until)


async def sums(tx: Tx, statement: Grouping) -> dict[str, Balances]:
    """The ledger summed by the database: by tenant, invoice or payment hash."""
    made: dict[str, Balances] = {}
    for row in await tx.fetch_all(Sum, statement):
        amount = row.amount if row.side == "debit" else -row.amount
        made.setdefault(row.subject, Balances()).add((row.account, row.unit), amount)
    return made
