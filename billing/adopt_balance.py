"""Books a customer balance that somebody changed at Stripe by hand, when an operator says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from billing.audit import Auditor, StripeBooks
from billing.errors import PurserError
from billing.ledger import Account, Balances
from billing.store import ledger, tenants
from billing.unit import Runtime
from billing.views import CustomerView

ONLY: str = "customer_balance"
"""The one difference of a tenant that this settles; any other has another cause."""


class AdoptRefused(PurserError):
    """There is nothing to book, or not now; nothing was changed."""


class Balanced(StripeBooks, Protocol):
    """What it asks of Stripe; it writes nothing there."""

    async def customer(self, customer_id: str) -> CustomerView: ...


@dataclass(frozen=True, slots=True)
class Adopted:
    """`credit_minor`: how much more credit the tenant has by the books now; below zero: less."""

    credit_minor: int
    currency: str


@dataclass(slots=True)
class BalanceAdopter:
    """Compares as `purser audit` does, and books what is left of a tenant's balance (C20)."""

    rt: Runtime
    stripe: Balanced

    async def adopt(self, pubkey: str, reason: str) -> Adopted:
        """Stripe's balance becomes the books'. Raises `AdoptRefused`, and the gateway's errors."""
        async with self.rt.unit() as unit:
            tenant = await tenants.get(unit.tx, pubkey)
        if tenant is None or tenant.customer_id is None:
            raise AdoptRefused(pubkey, "there is no tenant with that key and a Stripe customer")
        before = await self.stripe.customer(tenant.customer_id)
        report = await Auditor(self.rt.engine, self.stripe, None).audit()
        mine = [row for row in report.differences if row.tenant == pubkey]
        others = [f"{row.what} {row.subject}" for row in mine if row.what != ONLY]
        if others:
            raise AdoptRefused(pubkey, f"something else differs too, first see to {others[0]}")
        if not mine:
            raise AdoptRefused(pubkey, "its balance at Stripe and the books agree")
        after = await self.stripe.customer(tenant.customer_id)
        if (before.balance_minor, before.currency) != (after.balance_minor, after.currency):
            raise AdoptRefused(pubkey, "its balance changes this very moment: ask again")
        return await self._book(pubkey, after, report.sums.get(pubkey, Balances()), reason=reason)

    async def _book(
        self, pubkey: str, customer: CustomerView, audited: Balances, *, reason: str
    ) -> Adopted:
        units = {unit for (account, unit) in audited.of if account is Account.CREDIT}
        currency = customer.currency or next(iter(units), None)
        if currency is None or units - {currency}:
            raise AdoptRefused(pubkey, "its credit is in more than one currency")
        booked_minor = audited.get(Account.CREDIT, currency)
        async with self.rt.unit() as unit:
            rows = await unit.tx.fetch_all(ledger.Sum, "ledger.credit_of", tenant=pubkey)
            now_minor = sum(row.amount for row in rows if row.unit == currency)
            if now_minor != booked_minor:
                raise AdoptRefused(pubkey, "something of it was booked this moment: ask again")
            # Stripe's sign: below zero is credit of the customer.
            credit_minor = booked_minor - customer.balance_minor
            operation = self.rt.ids.new("op")
            await ledger.post_adopted(unit, operation, pubkey, credit_minor, currency)
            await unit.record(
                "operator.balance_adopted",
                tenant=pubkey,
                subject=customer.id,
                credit_minor=credit_minor,
                currency=currency,
                reason=reason,
            )
        return Adopted(credit_minor, currency)
