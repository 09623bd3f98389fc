"""Compares ledger, store, Stripe and the operator's wallet, and names each difference.

Pure: four pictures in, differences out. A difference says where to look; it moves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from billing.ledger import MSAT, Account, Balances, invoice_position
from billing.model import Invoice, PaymentRequest, RequestState, Settlement, SettlementState, Tenant
from billing.money import format_fiat, format_sats
from billing.rails.issue import noted_in
from billing.views import PUBKEY_KEY, CustomerView, InvoiceView, RefundView
from wallet.ports import Transaction

PAID_BY_KEY: Final = "purser_paid_by"
"""As `billing.invoices` writes it."""


@dataclass(frozen=True, slots=True)
class Difference:
    """`what` is a word for programs; `subject` the id it is about; `text` says it to people."""

    what: str
    subject: str
    tenant: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Unbooked:
    """A refund that is final and has no entry."""

    subject: str
    tenant: str
    amount_minor: int
    currency: str


@dataclass(frozen=True, slots=True)
class BookedRefund:
    """A card refund that the books have, by Stripe's id of it."""

    stripe_id: str
    tenant: str
    amount_minor: int
    currency: str


@dataclass(frozen=True, slots=True)
class StoreSide:
    """The database in one transaction; the ledger as sums."""

    tenants: Sequence[Tenant]
    invoices: Sequence[Invoice]
    requests: Sequence[PaymentRequest]
    settlements: Sequence[Settlement]
    by_tenant: Mapping[str, Balances]
    by_invoice: Mapping[str, Balances]
    by_hash: Mapping[str, Balances]
    out_of_band: Mapping[str, Balances]
    card_refunds: Mapping[str, BookedRefund]
    unbooked: Sequence[Unbooked]


@dataclass(frozen=True, slots=True)
class StripeSide:
    """Every invoice, customer and card refund of the account."""

    invoices: Sequence[InvoiceView]
    customers: Sequence[CustomerView]
    refunds: Sequence[RefundView] = ()


@dataclass(frozen=True, slots=True)
class WalletSide:
    """What the operator's wallet says. `asked`: the hashes it was asked about; None: it gave a
    list of everything, of the requests in `ours`. `why_not`: it could not be compared."""

    received: Mapping[str, Transaction] = field(default_factory=dict)
    asked: frozenset[str] | None = None
    ours: frozenset[str] = frozenset()
    why_not: str | None = None


def compare(store: StoreSide, stripe: StripeSide, wallet: WalletSide) -> list[Difference]:
    """Everything that does not agree, by tenant and subject."""
    stripe = replace(stripe, invoices=_ours(store, stripe))
    found = [
        *_invoices(store, stripe),
        *_customers(store, stripe),
        *_out_of_band(store, stripe),
        *_money(store),
        *(
            Difference(
                "refund_books",
                row.subject,
                row.tenant,
                f"{format_fiat(row.amount_minor, row.currency)} went back and are not booked",
            )
            for row in store.unbooked
        ),
        *_card_refunds(store, stripe),
        *_wallet(store, wallet),
        *_sums(store, stripe),
    ]
    return sorted(found, key=lambda row: (row.tenant or "", row.subject, row.what))


# --- Stripe -------------------------------------------------------------------------------------


def _ours(store: StoreSide, stripe: StripeSide) -> list[InvoiceView]:
    """Without those of subscriptions that others made for our customers, which are left alone."""
    known = {invoice.id for invoice in store.invoices}
    own = {tenant.customer_id: tenant.subscription_id for tenant in store.tenants}
    return [
        view
        for view in stripe.invoices
        if view.id in known or not view.is_beside(own.get(view.customer_id))
    ]


def _invoices(store: StoreSide, stripe: StripeSide) -> Iterator[Difference]:
    known = {invoice.id: invoice for invoice in store.invoices}
    owners = _owners(store, stripe)
    hashes = {request.payment_hash for request in store.requests}
    for view in stripe.invoices:
        mine = known.pop(view.id, None)
        tenant = owners.get(view.customer_id) if mine is None else mine.tenant
        if tenant is None:
            continue
        if mine is None:
            # A void one that nobody could pay over Lightning holds no money, nor does a draft.
            is_void = view.status == "void" and not noted_in(view.metadata)
            if view.status != "draft" and not is_void:
                text = f"Stripe has invoice {view.id} ({_shape(view)}); the store does not know it"
                yield Difference("invoice_unknown", view.id, tenant, text)
            continue
        if (mine.status, mine.amount_remaining_minor) != (view.status, view.amount_remaining_minor):
            left = format_fiat(mine.amount_remaining_minor, mine.currency)
            text = f"Stripe says {_shape(view)}; the store says {mine.status}, {left} left"
            yield Difference("invoice_stale", view.id, tenant, text)
        booked = store.by_invoice.get(view.id, Balances())
        wanted = invoice_position(view)
        if booked.of != wanted.of:
            text = f"by Stripe the books should hold {_told(wanted)}; they hold {_told(booked)}"
            yield Difference("invoice_books", view.id, tenant, text)
        for noted in noted_in(view.metadata):
            if noted.payment_hash not in hashes:
                text = (
                    f"Stripe's invoice names the payment hash {noted.payment_hash} over "
                    f"{format_sats(noted.amount_msat)}; the store does not know it"
                )
                yield Difference("hash_unknown", view.id, tenant, text)
    for lost in known.values():
        if lost.status != "deleted":
            text = f"the store has it as {lost.status}; Stripe does not list it"
            yield Difference("invoice_missing", lost.id, lost.tenant, text)


def _owners(store: StoreSide, stripe: StripeSide) -> dict[str, str]:
    """Customer id -> tenant: by the store, else by the key in the customer's metadata."""
    owners = {c.id: c.metadata[PUBKEY_KEY] for c in stripe.customers if PUBKEY_KEY in c.metadata}
    return owners | {t.customer_id: t.pubkey for t in store.tenants if t.customer_id is not None}


def _customers(store: StoreSide, stripe: StripeSide) -> Iterator[Difference]:
    listed = {customer.id: customer for customer in stripe.customers}
    for tenant in store.tenants:
        booked = {
            unit: amount
            for (account, unit), amount in store.by_tenant.get(tenant.pubkey, Balances()).of.items()
            if account is Account.CREDIT
        }
        customer = listed.pop(tenant.customer_id or "", None)
        there: dict[str, int] = {}
        if customer is not None and customer.balance_minor:
            there = {customer.currency or "": customer.balance_minor}
        if booked != there:
            subject = tenant.customer_id or tenant.pubkey
            text = (
                f"customer balance: Stripe has {_credit(there)}, the books have {_credit(booked)}"
                "; if it was changed by hand: purser books adopt"
            )
            yield Difference("customer_balance", subject, tenant.pubkey, text)
    stored = {tenant.pubkey: tenant.customer_id for tenant in store.tenants}
    for other in listed.values():
        pubkey = other.metadata.get(PUBKEY_KEY)
        # One whose making was cut short before it was stored is found by its key at the next
        # order; without a balance there is nothing to compare until then.
        balance = f"its balance is {_credit({other.currency or '': other.balance_minor})}"
        if pubkey in stored and stored[pubkey] is not None:
            text = (
                f"a customer at Stripe carries this tenant's key, but theirs is {stored[pubkey]}: "
                f"{balance}"
            )
            yield Difference("customer_twice", other.id, pubkey, text)
        elif pubkey in stored and other.balance_minor:
            text = (
                "a customer at Stripe carries this tenant's key and is not known here (a restored "
                f"backup): {balance}; their next order takes it up"
            )
            yield Difference("customer_unknown", other.id, pubkey, text)


def _out_of_band(store: StoreSide, stripe: StripeSide) -> Iterator[Difference]:
    """M10: what we marked as paid must be backed by money. Without our mark, or when our money with
    that mark came too late and went elsewhere, somebody marked it in the Dashboard: their word, and
    no difference."""
    moneys = {money.payment_hash: money for money in store.settlements}
    views = {view.id: view for view in stripe.invoices}
    tenants = {invoice.id: invoice.tenant for invoice in store.invoices}
    for invoice_id, held in store.out_of_band.items():
        view = views.get(invoice_id)
        mark = None if view is None else view.metadata.get(PAID_BY_KEY)
        money = moneys.get(mark or "")
        by_hand = not mark or (money is not None and money.target_invoice_id != invoice_id)
        if by_hand and all(amount > 0 for amount in held.of.values()):
            continue
        text = (
            f"Purser marked it paid (payment hash {mark or 'unknown'}), and the money booked for "
            f"it differs by {_told(held)}"
        )
        yield Difference("paid_without_money", invoice_id, tenants.get(invoice_id), text)


def _card_refunds(store: StoreSide, stripe: StripeSide) -> Iterator[Difference]:
    """What Stripe gave back to cards, one by one."""
    owners, listed = _owners(store, stripe), {view.id: view for view in stripe.refunds}
    for view in listed.values():
        tenant, booked = owners.get(view.customer_id or ""), store.card_refunds.get(view.id)
        is_final = view.status == "succeeded"
        if tenant is None or (not is_final and booked is None):
            continue
        said = f"Stripe's refund {view.id} of {format_fiat(view.amount_minor, view.currency)}"
        if booked is None:
            yield Difference("refund_unbooked", view.id, tenant, f"{said} is not booked")
        elif not is_final:
            text = f"{said} is {view.status}, and booked as paid out"
            yield Difference("refund_bounced", view.id, tenant, text)
        elif (booked.amount_minor, booked.currency) != (view.amount_minor, view.currency):
            text = f"{said} is booked as {format_fiat(booked.amount_minor, booked.currency)}"
            yield Difference("refund_amount", view.id, tenant, text)
    for booked in store.card_refunds.values():
        if booked.stripe_id not in listed:
            text = f"{format_fiat(booked.amount_minor, booked.currency)} are booked as given back "
            text += "to a card; Stripe does not list that refund"
            yield Difference("refund_missing", booked.stripe_id, booked.tenant, text)


# --- money --------------------------------------------------------------------------------------


def _money(store: StoreSide) -> Iterator[Difference]:
    requests = {request.payment_hash: request for request in store.requests}
    moneys = {money.payment_hash: money for money in store.settlements}
    for money in moneys.values():
        booked = store.by_hash.get(money.payment_hash, Balances())
        wallet_msat = booked.get(Account.PAYEE_WALLET, MSAT)
        if wallet_msat != money.amount_msat:
            text = (
                f"{format_sats(money.amount_msat)} are stored as received, "
                f"{format_sats(wallet_msat)} are booked"
            )
            yield Difference("money_books", money.payment_hash, money.tenant, text)
        waiting = -booked.get(Account.UNPLACED, money.currency)
        if waiting != _waiting(money):
            text = (
                f"{format_fiat(_waiting(money), money.currency)} of it have no home yet by its "
                f"state ({money.state.value}), {format_fiat(waiting, money.currency)} by the books"
            )
            yield Difference("money_unplaced", money.payment_hash, money.tenant, text)
    for payment_hash, request in requests.items():
        if request.state is RequestState.SETTLED and payment_hash not in moneys:
            text = f"payment request {request.id} is settled, and no money is stored for it"
            yield Difference("money_lost", payment_hash, request.tenant, text)
    for payment_hash in store.by_hash.keys() - moneys.keys():
        text = "booked, and no money is stored for it"
        yield Difference("money_books", payment_hash, None, text)


def _waiting(money: Settlement) -> int:
    """In minor units: received and not yet where it belongs."""
    if money.state is SettlementState.RECEIVED:
        return money.value_minor
    return 0 if money.next_try_at is None else money.credit_minor


def _wallet(store: StoreSide, wallet: WalletSide) -> Iterator[Difference]:
    if wallet.why_not is not None:
        return
    requests = {request.payment_hash: request for request in store.requests}
    moneys = {money.payment_hash: money for money in store.settlements}
    asked = wallet.ours if wallet.asked is None else wallet.asked
    for payment_hash, told in wallet.received.items():
        request = requests.get(payment_hash)
        if request is not None and payment_hash not in moneys:
            text = (
                f"the wallet received {format_sats(told.amount_msat or 0)} for payment request "
                f"{request.id} of invoice {request.invoice_id}; none of it is booked"
            )
            yield Difference("wallet_has_more", payment_hash, request.tenant, text)
    for payment_hash, money in moneys.items():
        if payment_hash not in asked:
            continue
        told_by = wallet.received.get(payment_hash)
        if told_by is None:
            text = f"{format_sats(money.amount_msat)} are booked; the wallet does not show them"
            yield Difference("wallet_has_less", payment_hash, money.tenant, text)
        elif told_by.amount_msat not in (None, money.amount_msat):
            text = (
                f"{format_sats(money.amount_msat)} are booked; the wallet says "
                f"{format_sats(told_by.amount_msat or 0)}"
            )
            yield Difference("wallet_amount", payment_hash, money.tenant, text)


def _sums(store: StoreSide, stripe: StripeSide) -> Iterator[Difference]:
    """What no single thing shows: entries about something that is nowhere else."""
    owners, booked, there = _owners(store, stripe), Balances(), Balances()
    for sums in store.by_tenant.values():
        for (account, unit), amount in sums.of.items():
            if account in (Account.RECEIVABLE, Account.PAYEE_WALLET):
                booked.add((account, unit), amount)
    for view in stripe.invoices:
        if view.status == "open" and view.customer_id in owners:
            there.add((Account.RECEIVABLE, view.currency), view.amount_remaining_minor)
    for money in store.settlements:
        there.add((Account.PAYEE_WALLET, MSAT), money.amount_msat)
    for place in sorted(booked.of.keys() | there.of.keys()):
        ours, theirs = booked.get(*place), there.get(*place)
        if ours != theirs:
            text = (
                f"in sum the books have {_amount(place[1], ours)}, {_amount(place[1], theirs)} is"
            )
            yield Difference("sum", f"{place[0].value}:{place[1]}", None, f"{text} there")


# --- words --------------------------------------------------------------------------------------


def _shape(view: InvoiceView) -> str:
    return f"{view.status}, {format_fiat(view.amount_remaining_minor, view.currency)} left"


def _amount(unit: str, amount: int) -> str:
    return format_sats(amount) if unit == MSAT else format_fiat(amount, unit)


def _told(held: Balances) -> str:
    rows = sorted(held.of.items())
    parts = [f"{account.value} {_amount(unit, amount)}" for (account, unit), amount in rows]
    return ", ".join(parts) or "nothing"


def _credit(balance: Mapping[str, int]) -> str:
    """Stripe's sign turned round: what the customer has."""
    parts = [format_fiat(-amount, unit) for unit, amount in sorted(balance.items()) if unit]
    return ", ".join(parts) or "none"
