"""Gathers what the books, Stripe and the operator's wallet say, for the comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from billing.audit_rules import (
    BookedRefund,
    Difference,
    StoreSide,
    StripeSide,
    Unbooked,
    WalletSide,
    compare,
)
from billing.ledger import Balances
from billing.model import Connection, Invoice, PaymentRequest, Settlement, Tenant
from billing.store import ledger, tenants
from billing.store.engine import Engine
from billing.views import CustomerView, InvoiceView, RefundView
from wallet.ports import NotFound, Payee, Transaction, Unreachable, WalletError

LOOKUPS_MAX: Final = 200
"""Of what a wallet does not list, the newest money is asked for one by one."""
EVERYTHING: Final = 1 << 62


class StripeBooks(Protocol):
    """What an audit asks of Stripe. Raises the gateway's errors."""

    async def all_invoices(self) -> Sequence[InvoiceView]:
        """Every invoice of the account, newest first."""
        ...

    async def all_customers(self) -> Sequence[CustomerView]:
        """Every customer of the account that is not deleted, newest first."""
        ...

    async def all_refunds(self) -> Sequence[RefundView]:
        """Every refund of the account's card payments, newest first."""
        ...


@dataclass(frozen=True, slots=True)
class Report:
    """`sums`: by tenant, then by account and unit. `compared` says in words with what."""

    differences: tuple[Difference, ...]
    sums: Mapping[str, Balances]
    compared: tuple[str, ...]


@dataclass(slots=True)
class Auditor:
    """Reads only; safe beside a running bot, whose changes under way are no differences."""

    engine: Engine
    stripe: StripeBooks
    payee: Payee | None

    async def audit(self) -> Report:
        """Raises the gateway's errors. What differs is looked at twice: a payment that is being
        booked while we look is in one picture and not yet in another."""
        first = await self._look()
        if not first.differences:
            return first
        second = await self._look()
        before = {(row.what, row.subject) for row in first.differences}
        lasting = tuple(r for r in second.differences if (r.what, r.subject) in before)
        return Report(lasting, second.sums, second.compared)

    async def _look(self) -> Report:
        stripe = StripeSide(
            await self.stripe.all_invoices(),
            await self.stripe.all_customers(),
            await self.stripe.all_refunds(),
        )
        store, ours = await self._store()
        wallet = await self._wallet(store, ours)
        seen = f"{len(wallet.received)} payments to our wallet"
        compared = (
            f"{len(stripe.invoices)} invoices, {len(stripe.customers)} customers "
            f"and {len(stripe.refunds)} refunds at Stripe",
            seen if wallet.why_not is None else f"not our wallet: {wallet.why_not}",
        )
        return Report(tuple(compare(store, stripe, wallet)), store.by_tenant, compared)

    async def _store(self) -> tuple[StoreSide, frozenset[str]]:
        """One picture, and the payment hashes that today's operator wallet issued."""
        async with self.engine.transaction() as tx:
            side = StoreSide(
                tenants=await tx.fetch_all(Tenant, "tenants.everyone"),
                invoices=await tx.fetch_all(Invoice, "invoices.everything"),
                requests=await tx.fetch_all(
                    PaymentRequest, "payments.everything", count=EVERYTHING
                ),
                settlements=await tx.fetch_all(Settlement, "ledger.settlements"),
                by_tenant=await ledger.sums(tx, "ledger.sums"),
                by_invoice=await ledger.sums(tx, "ledger.by_invoice"),
                by_hash=await ledger.sums(tx, "ledger.by_payment_hash"),
                out_of_band=await ledger.sums(tx, "ledger.out_of_band"),
                card_refunds={
                    row.stripe_id: row
                    for row in await tx.fetch_all(BookedRefund, "ledger.card_refunds")
                },
                unbooked=await tx.fetch_all(Unbooked, "ledger.refunds_unbooked"),
            )
            payee = await tenants.payee(tx)
            connections = await tx.fetch_all(Connection, "connections.everything")
        same = {c.id for c in connections if payee and c.wallet_pubkey == payee.wallet_pubkey}
        ours = (r.payment_hash for r in side.requests if r.payee_connection_id in same)
        return side, frozenset(ours)

    async def _wallet(self, store: StoreSide, ours: frozenset[str]) -> WalletSide:
        if self.payee is None:
            return WalletSide(why_not="none is configured")
        since = min((r.created_at for r in store.requests if r.payment_hash in ours), default=None)
        if since is None:
            return WalletSide(ours=ours)
        listed = await self.payee.list_incoming(since)
        match listed:
            case Unreachable(reason=reason):
                return WalletSide(why_not=reason)
            case WalletError():
                return await self._one_by_one(store, ours, {})
            case _:
                received = {told.payment_hash: told for told in listed}
                return await self._one_by_one(store, ours, received)

    async def _one_by_one(
        self, store: StoreSide, ours: frozenset[str], listed: Mapping[str, Transaction]
    ) -> WalletSide:
        """What no list shows is asked for: a list may end early, so it proves no absence."""
        assert self.payee is not None
        received = dict(listed)
        newest = sorted(store.settlements, key=lambda money: -money.seen_at)
        missing = [
            money.payment_hash
            for money in newest
            if money.payment_hash in ours and money.payment_hash not in received
        ]
        asked = missing[:LOOKUPS_MAX]
        for payment_hash in asked:
            told = await self.payee.lookup_invoice(payment_hash)
            if isinstance(told, Unreachable):
                return WalletSide(why_not=told.reason)
            if isinstance(told, WalletError) and told.code != NotFound().code:
                return WalletSide(why_not=f"it says {told.code}")
            if isinstance(told, Transaction) and told.is_incoming_settled:
                received[payment_hash] = told
        return WalletSide(received, frozenset(asked) | (ours & received.keys()), ours)
