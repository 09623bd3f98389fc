"""Credit spends: typed reads, one compare-and-set transition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from billing.credit_note import noted_spend
from billing.store import operations
from billing.store.engine import Tx
from billing.unit import Unit
from billing.views import InvoiceView

SpendState: TypeAlias = Literal["prepared", "debited", "returning", "placed", "returned"]


@dataclass(frozen=True, slots=True)
class CreditSpend:
    """Credit on its way to one invoice. prepared → debited → placed, or → returning → returned;
    `return_minor` is what goes back to the balance. The id is the operation of the debit."""

    id: str
    invoice_id: str
    tenant: str
    customer_id: str
    amount_minor: int
    currency: str
    return_minor: int
    state: SpendState
    created_at: int
    ended_at: int | None


async def get(tx: Tx, spend_id: str) -> CreditSpend | None:
    """By its id."""
    return await tx.fetch_one(CreditSpend, "spends.get", id=spend_id)


async def live(tx: Tx, invoice_id: str) -> CreditSpend | None:
    """The one under way for this invoice."""
    return await tx.fetch_one(CreditSpend, "spends.live", invoice_id=invoice_id)


async def intend(unit: Unit, spend: CreditSpend) -> None:
    """The intent, before anything is taken (M1). Raises `ConstraintViolated` when another spend is
    under way for its invoice (M4)."""
    await unit.tx.execute(
        "spends.insert",
        id=spend.id,
        invoice_id=spend.invoice_id,
        tenant=spend.tenant,
        customer_id=spend.customer_id,
        amount_minor=spend.amount_minor,
        currency=spend.currency,
        created_at=spend.created_at,
    )
    await operations.begin_named(unit.tx, spend.id, "spend_credit", spend.invoice_id, now=unit.now)
    await unit.record(
        "credit.spending",
        tenant=spend.tenant,
        subject=spend.invoice_id,
        spend=spend.id,
        amount_minor=spend.amount_minor,
        currency=spend.currency,
    )


async def adopt(unit: Unit, tenant: str, view: InvoiceView) -> bool:
    """A spend of another life that stands in the invoice's metadata is carried to its end: its
    credit may have been taken already (M1). False where there is none to adopt."""
    noted = noted_spend(view.metadata)
    if noted is None or await get(unit.tx, noted[0]) is not None:
        return False
    if await live(unit.tx, view.id) is not None:
        return False
    spend = CreditSpend(
        noted[0],
        view.id,
        tenant,
        view.customer_id,
        noted[1],
        view.currency,
        0,
        "prepared",
        unit.now,
        None,
    )
    await intend(unit, spend)
    return True


async def new_id(tx: Tx, invoice_id: str) -> str:
    """Named after its invoice, so that another life of this database, or a second bot, names the
    same spend the same: it is taken from the balance once (M11)."""
    count = await tx.scalar("spends.count", invoice_id=invoice_id)
    assert isinstance(count, int)
    return f"spend_{invoice_id}_{count + 1}"


async def move(
    tx: Tx,
    spend: CreditSpend,
    to_state: SpendState,
    *,
    return_minor: int = 0,
    ended_at: int | None = None,
) -> bool:
    """False: somebody else was first."""
    moved = await tx.execute(
        "spends.move",
        id=spend.id,
        from_state=spend.state,
        to_state=to_state,
        return_minor=return_minor,
        ended_at=ended_at,
    )
    return moved > 0
