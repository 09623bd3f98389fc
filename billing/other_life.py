"""Finds at Stripe what another life of this bot did with money that this database has not placed.

A backup that was put back, or a second bot: the money came, and found its home, before. It must not
find another one (M9).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from billing import invoices as effects
from billing.model import Settlement
from billing.out_of_band import REJECTED, OutOfBand
from billing.ports import StripeGateway
from billing.store import operations, tenants
from billing.unit import Runtime
from billing.views import InvoiceView

PAYER_PREFIX: Final = "purser_payer_"
"""Metadata keys are at most 40 characters: this and the end of an operation id name who pays."""


@dataclass(slots=True)
class OtherLife:
    """Asked when money does not simply pay the invoice that it was meant for: two lists."""

    rt: Runtime
    stripe: StripeGateway

    async def placed_on(self, money: Settlement) -> InvoiceView | None:
        """The invoice that shows that this money paid it, where no call of this life may have:
        those about a target that it lost did not (simulation seed 4163). Once there were such, a
        note of ours may have come late to what somebody else had paid: another's must stand there.
        """
        calls = await OutOfBand(self.rt, self.stripe).calls(money.payment_hash)
        if any(call.result != REJECTED for call in calls):
            return None
        async with self.rt.unit() as unit:
            tenant = await tenants.get(unit.tx, money.tenant)
        if tenant is None or tenant.customer_id is None:
            return None
        mark = money.payment_hash
        for view in await self.stripe.invoices_of(tenant.customer_id):
            if is_paid_by(view, money) and (not calls or await self.is_at_work(mark, mark, view)):
                return view
        return None

    async def is_at_work(self, subject: str, mark: str, view: InvoiceView) -> bool:
        """Whether a second bot noted on this invoice, as we did, that it pays it with this money,
        or from this credit: `subject` names our operations, `mark` is what is noted.

        Then it is not a stranger who was faster than us: what it paid with is this very money.
        """
        async with self.rt.unit() as unit:
            known = await operations.of_subject(unit.tx, subject)
        ours = {_payer_key(operation.id) for operation in known}
        noted = {key for key, value in view.metadata.items() if value == mark}
        return any(key.startswith(PAYER_PREFIX) for key in noted - ours)

    async def credited(self, money: Settlement) -> bool:
        """Whether it stands on the customer's balance."""
        async with self.rt.unit() as unit:
            tenant = await tenants.get(unit.tx, money.tenant)
        if tenant is None or tenant.customer_id is None:
            return False
        return await self.stripe.is_credited(tenant.customer_id, credit_name(money))


def payer_note(operation_id: str, mark: str) -> dict[str, str]:
    """What stands on an invoice before it is marked paid: by which money (a payment hash, or a
    spend of credit), and by whom of us."""
    return {effects.PAID_BY_KEY: mark, _payer_key(operation_id): mark}


def without_note(money: Settlement, view: InvoiceView) -> dict[str, str]:
    """Empty values, which unset every key that says that this money paid."""
    prefixes = (effects.PAID_BY_KEY, PAYER_PREFIX)
    noted = [key for key, value in view.metadata.items() if value == money.payment_hash]
    return {key: "" for key in noted if key.startswith(prefixes)}


def _payer_key(operation_id: str) -> str:
    return f"{PAYER_PREFIX}{operation_id[-24:]}"


def credit_name(money: Settlement) -> str:
    """The operation is named after the money: the same credit given before a backup was restored is
    found at Stripe by this name, and not given twice (M11)."""
    return f"credit_{money.payment_hash}"


def is_paid_by(view: InvoiceView, money: Settlement) -> bool:
    """Marked by us with this hash, and paid off Stripe: not by a card that was faster."""
    return (
        view.status == "paid"
        and view.metadata.get(effects.PAID_BY_KEY) == money.payment_hash
        and view.amount_paid_off_stripe_minor > 0
    )
