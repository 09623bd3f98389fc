"""The journal of double entries: which accounts a business event moves, in which unit, by how much.

Pure. A posting is a signed amount on one account in one unit (`msat`, or a currency's minor units);
positive is a debit. An entry's postings sum to zero in every unit; sats and fiat meet on
`conversion`, linked by the rate that the entry keeps. It is stored as transfers, each from one
account to another, so that no row in the database can be out of balance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Final, Literal, TypeAlias

from billing.model import PaymentRequest, Settlement
from billing.money import msat_to_minor
from billing.views import InvoiceView

MSAT: Final = "msat"


class Account(StrEnum):
    """One meaning each; the sign in brackets is the usual one."""

    RECEIVABLE = "receivable"
    """(+) What open invoices still ask for."""
    REVENUE = "revenue"
    """(-) Totals of finalized invoices."""
    CREDIT = "credit"
    """(-) Customer balances: at all times Stripe's `balance` with Stripe's sign."""
    CARD = "card"
    """(+) What Stripe collected by itself."""
    OUT_OF_BAND = "out_of_band"
    """(+) Marked paid off Stripe and not backed by money of ours: zero but for a foreign hand."""
    PAYEE_WALLET = "payee_wallet"
    """(+) msat that the operator's wallet says it received (M6)."""
    CONVERSION = "conversion"
    """Where sats and fiat meet, at the stored rate."""
    UNPLACED = "unplaced"
    """(-) Received and not yet given its home (M9)."""
    LIABILITY = "liability"
    """(-) Owed to somebody without a customer at Stripe (M9)."""
    RATE_DIFFERENCE = "rate_difference"
    """What rounding to whole sats, or another rate, makes of an amount."""
    BAD_DEBT = "bad_debt"
    """(+) Open amounts of invoices given up as uncollectible."""
    CREDIT_NOTES = "credit_notes"
    """(+) Reductions of open invoices by Stripe's credit notes."""
    REFUNDS = "refunds"
    """(+) Given back of what was paid."""
    GOODWILL = "goodwill"
    """(+) Credit that an operator gave."""
    PAYOUT_WALLET = "payout_wallet"
    """(-) msat sent out for refunds: never by the payee connection, which cannot pay (M6)."""


Place: TypeAlias = tuple[Account, str]
"""An account and a unit."""
RefundWay: TypeAlias = Literal["lightning", "card", "balance"]
SpendPart: TypeAlias = Literal["debited", "placed", "returned", "owed"]
"""What became of credit that was to pay an invoice."""


class Unbalanced(AssertionError):
    """An entry whose postings do not sum to zero in each unit: a bug."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One event in the books. `key` is stored once: the same event again changes nothing."""

    key: str
    kind: str
    tenant: str
    postings: Mapping[Place, int]
    invoice_id: str | None = None
    payment_hash: str | None = None
    rate: str | None = None


@dataclass(frozen=True, slots=True)
class Transfer:
    """`amount` (above zero) of `unit` from the account `credit` to the account `debit`."""

    debit: Account
    credit: Account
    unit: str
    amount: int


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """A stored transfer with what its entry says."""

    seq: int
    entry: str
    line: int
    at: int
    billing_at: int
    kind: str
    tenant: str
    invoice_id: str | None
    payment_hash: str | None
    debit: Account
    credit: Account
    unit: str
    amount: int
    rate: str | None


@dataclass(slots=True)
class Balances:
    """Sums by place; only what is not zero."""

    of: dict[Place, int] = field(default_factory=dict)

    def add(self, place: Place, amount: int) -> None:
        """Zero sums vanish, so that equal books compare equal."""
        total = self.of.pop(place, 0) + amount
        if total:
            self.of[place] = total

    def take(self, row: LedgerRow) -> None:
        """One stored transfer."""
        self.add((row.debit, row.unit), row.amount)
        self.add((row.credit, row.unit), -row.amount)

    def get(self, account: Account, unit: str) -> int:
        """Debits less credits."""
        return self.of.get((account, unit), 0)


def balances(rows: Iterable[LedgerRow]) -> Balances:
    """What these rows come to."""
    made = Balances()
    for row in rows:
        made.take(row)
    return made


def transfers(postings: Mapping[Place, int]) -> tuple[Transfer, ...]:
    """The same movement as transfers, deterministic. Raises `Unbalanced`."""
    made: list[Transfer] = []
    for unit in sorted({unit for _, unit in postings}):
        rows = sorted((a, amount) for (a, u), amount in postings.items() if u == unit and amount)
        if sum(amount for _, amount in rows):
            raise Unbalanced(f"{unit} does not sum to zero: {rows}")
        debits = [(account, amount) for account, amount in rows if amount > 0]
        for account, amount in rows:
            left = -amount
            while left > 0:
                to, room = debits[-1]
                moved = min(left, room)
                made.append(Transfer(to, account, unit, moved))
                left -= moved
                debits[-1] = (to, room - moved)
                if room == moved:
                    debits.pop()
    return tuple(made)


# --- invoices -----------------------------------------------------------------------------------


def invoice_position(view: InvoiceView) -> Balances:
    """What an invoice that looks like this at Stripe comes to in the books.

    The applied customer balance is total less amount due, whichever way it went: credit spent, a
    total below zero, or one below the minimum charge that moved to the balance (facts/stripe.md).
    """
    made, unit = Balances(), view.currency
    if view.status in ("draft", "void", "deleted"):
        return made
    settled = view.amount_due_minor - view.amount_remaining_minor
    off_stripe = view.amount_paid_off_stripe_minor
    paid = max(view.amount_paid_minor, off_stripe)
    made.add((Account.REVENUE, unit), -view.total_minor)
    made.add((Account.CREDIT, unit), view.total_minor - view.amount_due_minor)
    made.add((Account.OUT_OF_BAND, unit), off_stripe)
    made.add((Account.CARD, unit), paid - off_stripe)
    made.add((Account.CREDIT_NOTES, unit), settled - paid)
    owed = Account.BAD_DEBT if view.status == "uncollectible" else Account.RECEIVABLE
    made.add((owed, unit), view.amount_remaining_minor)
    return made


def invoice_changed(
    tenant: str, view: InvoiceView, booked: Balances, entries_before: int
) -> Entry | None:
    """The step from what is booked for this invoice to what it looks like now; None: no step.

    A step, not a state: whatever was missed in between, the books end where Stripe is.
    """
    step = invoice_position(view)
    for place, amount in booked.of.items():
        step.add(place, -amount)
    if not step.of:
        return None
    kind = "issued" if not booked.of and view.status != "paid" else view.status
    return Entry(
        f"invoice:{view.id}:{entries_before + 1}",
        f"invoice_{kind}",
        tenant,
        step.of,
        invoice_id=view.id,
    )


# --- money over Lightning -----------------------------------------------------------------------


def worth_minor(amount_msat: int, currency: str, rate: str, fallback_minor: int) -> int:
    """At the request's stored rate; a rate that was lost makes no difference of its own."""
    price = Decimal(rate)
    if not price.is_finite() or price <= 0:
        return fallback_minor
    return msat_to_minor(amount_msat, currency, price)


def money_received(request: PaymentRequest, amount_msat: int, value_minor: int) -> Entry:
    """Our wallet has it (M6): `value_minor` counts for the tenant, the rest is rounding."""
    unit = request.currency
    worth = worth_minor(amount_msat, unit, request.rate, value_minor)
    made = Balances()
    made.add((Account.PAYEE_WALLET, MSAT), amount_msat)
    made.add((Account.CONVERSION, MSAT), -amount_msat)
    made.add((Account.CONVERSION, unit), worth)
    made.add((Account.RATE_DIFFERENCE, unit), value_minor - worth)
    made.add((Account.UNPLACED, unit), -value_minor)
    return Entry(
        f"money:{request.payment_hash}:received",
        "money_received",
        request.tenant,
        made.of,
        invoice_id=request.invoice_id,
        payment_hash=request.payment_hash,
        rate=request.rate,
    )


def money_placed(money: Settlement, invoice_id: str, taken_minor: int, credit_minor: int) -> Entry:
    """It paid this invoice, which took `taken_minor`; `credit_minor` stays to be credited."""
    unit = money.currency
    made = Balances()
    made.add((Account.UNPLACED, unit), money.value_minor - credit_minor)
    made.add((Account.OUT_OF_BAND, unit), -taken_minor)
    made.add((Account.RATE_DIFFERENCE, unit), taken_minor + credit_minor - money.value_minor)
    return _of_money(money, "placed", made, invoice_id)


def money_credited(money: Settlement) -> Entry:
    """Its rest stands on the customer's balance at Stripe."""
    made = Balances()
    made.add((Account.UNPLACED, money.currency), money.credit_minor)
    made.add((Account.CREDIT, money.currency), -money.credit_minor)
    return _of_money(money, "credited", made, money.invoice_id)


def money_owed(money: Settlement, amount_minor: int) -> Entry:
    """There is no customer to credit: it is owed (M9)."""
    made = Balances()
    made.add((Account.UNPLACED, money.currency), amount_minor)
    made.add((Account.LIABILITY, money.currency), -amount_minor)
    return _of_money(money, "owed", made, money.invoice_id)


def customer_gone(customer_id: str, tenant: str, currency: str, balance_minor: int) -> Entry:
    """Its customer was deleted at Stripe with this on the balance, in the books' sign: what was the
    tenant's is owed to them (M9), what they owed is lost."""
    made = Balances()
    made.add((Account.CREDIT, currency), -balance_minor)
    to = Account.LIABILITY if balance_minor < 0 else Account.BAD_DEBT
    made.add((to, currency), balance_minor)
    return Entry(f"customer_gone:{customer_id}:{currency}", "customer_gone", tenant, made.of)


def _of_money(money: Settlement, what: str, made: Balances, invoice_id: str) -> Entry:
    return Entry(
        f"money:{money.payment_hash}:{what}",
        f"money_{what}",
        money.tenant,
        made.of,
        invoice_id=invoice_id,
        payment_hash=money.payment_hash,
    )


# --- credit that pays an invoice ----------------------------------------------------------------


def credit_spent(
    spend_id: str, part: SpendPart, tenant: str, invoice_id: str, amount_minor: int, currency: str
) -> Entry:
    """Taken from the balance, placed on the invoice, or given back (to the balance; owed, where
    there is no customer any more). `amount_minor` is above zero."""
    made = Balances()
    is_taken = part == "debited"
    made.add((Account.UNPLACED, currency), -amount_minor if is_taken else amount_minor)
    other = {"placed": Account.OUT_OF_BAND, "owed": Account.LIABILITY}.get(part, Account.CREDIT)
    made.add((other, currency), amount_minor if is_taken else -amount_minor)
    return Entry(
        f"spend:{spend_id}:{part}", f"credit_{part}", tenant, made.of, invoice_id=invoice_id
    )


# --- what an operator gives ---------------------------------------------------------------------


def credit_granted(operation_id: str, tenant: str, amount_minor: int, currency: str) -> Entry:
    """An operator gave credit, and it stands on the balance at Stripe."""
    made = Balances()
    made.add((Account.GOODWILL, currency), amount_minor)
    made.add((Account.CREDIT, currency), -amount_minor)
    return Entry(f"credit:{operation_id}", "credit_granted", tenant, made.of)


def balance_adopted(operation_id: str, tenant: str, credit_minor: int, currency: str) -> Entry:
    """Somebody changed the balance in the Dashboard, and an operator had it booked."""
    made = Balances()
    made.add((Account.GOODWILL, currency), credit_minor)
    made.add((Account.CREDIT, currency), -credit_minor)
    return Entry(f"adopted:{operation_id}", "balance_adopted", tenant, made.of)


def refunded(
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
) -> Entry:
    """A refund that is final. `lightning` needs the msat that were sent and the rate used."""
    made = Balances()
    given = Account.LIABILITY if from_liability else Account.REFUNDS
    made.add((given, currency), amount_minor)
    if way == "lightning":
        assert rate is not None
        assert amount_msat > 0
        worth = worth_minor(amount_msat, currency, rate, amount_minor)
        made.add((Account.PAYOUT_WALLET, MSAT), -amount_msat)
        made.add((Account.CONVERSION, MSAT), amount_msat)
        made.add((Account.CONVERSION, currency), -worth)
        made.add((Account.RATE_DIFFERENCE, currency), worth - amount_minor)
    else:
        made.add((Account.CARD if way == "card" else Account.CREDIT, currency), -amount_minor)
    return Entry(
        f"refund:{refund_id}",
        "refunded",
        tenant,
        made.of,
        invoice_id=invoice_id,
        payment_hash=payment_hash,
        rate=rate,
    )


def refund_bounced(
    refund_id: str, tenant: str, invoice_id: str | None, amount_minor: int, currency: str
) -> Entry:
    """A booked card refund whose money Stripe has back: turned round, once."""
    made = Balances()
    made.add((Account.CARD, currency), amount_minor)
    made.add((Account.REFUNDS, currency), -amount_minor)
    return Entry(
        f"refund:{refund_id}:bounced", "refund_bounced", tenant, made.of, invoice_id=invoice_id
    )
