"""Writes the journal for an accountant: CSV, a line for each posting, or a Beancount file.

Dates are UTC days of billing time. Tenants are accounts of their own where somebody owes somebody;
sats have three decimals, so that no millisat is lost.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from billing.ledger import MSAT, Account, LedgerRow, balances
from billing.money import to_decimal

SATS: Final = "SAT"
"""Beancount's commodities are capitals; a sat is the unit that wallets show."""
MSAT_DIGITS: Final = 3
TENANT_CHARS: Final = 16
"""Of a pubkey: enough to be alone, short enough to be read."""

COLUMNS: Final = (
    "date",
    "entry",
    "kind",
    "tenant",
    "invoice",
    "payment_hash",
    "account",
    "amount",
    "commodity",
    "rate",
)

ACCOUNT_NAMES: Final[Mapping[Account, str]] = {
    Account.RECEIVABLE: "Assets:Receivable",
    Account.REVENUE: "Income:Hosting",
    Account.CREDIT: "Liabilities:Customer-Credit",
    Account.CARD: "Assets:Stripe",
    Account.OUT_OF_BAND: "Assets:Marked-Paid-At-Stripe",
    Account.PAYEE_WALLET: "Assets:Lightning:Payee",
    Account.CONVERSION: "Equity:Conversion",
    Account.UNPLACED: "Liabilities:Unplaced",
    Account.LIABILITY: "Liabilities:Owed-Back",
    Account.RATE_DIFFERENCE: "Income:Rate-Difference",
    Account.BAD_DEBT: "Expenses:Bad-Debt",
    Account.CREDIT_NOTES: "Expenses:Credit-Notes",
    Account.REFUNDS: "Expenses:Refunds",
    Account.GOODWILL: "Expenses:Goodwill",
    Account.PAYOUT_WALLET: "Assets:Lightning:Payout",
}
_BY_TENANT: Final = frozenset(
    {Account.RECEIVABLE, Account.CREDIT, Account.UNPLACED, Account.LIABILITY}
)


@dataclass(frozen=True, slots=True)
class Posting:
    """A signed amount on a named account."""

    account: str
    amount: Decimal
    commodity: str

    @property
    def number(self) -> str:
        """Plain digits, never an exponent."""
        return f"{self.amount:f}"


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One entry, its postings summed by account."""

    first: LedgerRow
    postings: tuple[Posting, ...]

    @property
    def date(self) -> str:
        """Of billing time."""
        return f"{datetime.fromtimestamp(self.first.billing_at, UTC):%Y-%m-%d}"


def journal(rows: Sequence[LedgerRow]) -> Iterator[JournalEntry]:
    """Entries in the order of booking."""
    entries: dict[str, list[LedgerRow]] = {}
    for row in rows:
        entries.setdefault(row.entry, []).append(row)
    for group in entries.values():
        moved = sorted(balances(group).of.items())
        postings = (_posting(group[0].tenant, *place, amount) for place, amount in moved)
        yield JournalEntry(group[0], tuple(postings))


def _posting(tenant: str, account: Account, unit: str, amount: int) -> Posting:
    name = ACCOUNT_NAMES[account]
    if account in _BY_TENANT:
        # A component begins with a capital or a digit.
        name += f":T-{tenant[:TENANT_CHARS]}"
    if unit == MSAT:
        return Posting(name, Decimal(amount).scaleb(-MSAT_DIGITS), SATS)
    return Posting(name, to_decimal(amount, unit), unit.upper())


def to_csv(rows: Sequence[LedgerRow]) -> str:
    """RFC 4180 with a header; each entry's lines sum to zero in every commodity."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for entry in journal(rows):
        row = entry.first
        for posting in entry.postings:
            writer.writerow(
                (
                    entry.date,
                    row.entry,
                    row.kind,
                    row.tenant,
                    row.invoice_id or "",
                    row.payment_hash or "",
                    posting.account,
                    posting.number,
                    posting.commodity,
                    row.rate or "",
                )
            )
    return text.getvalue()


def to_beancount(rows: Sequence[LedgerRow]) -> str:
    """https://beancount.github.io/docs/beancount_language_syntax.html; needs no other file."""
    # Accounts are opened before the first transaction; Beancount sorts by date itself.
    entries = list(journal(rows))
    lines = ['option "title" "Purser"']
    lines += [f'option "operating_currency" "{code}"' for code in _currencies(rows)]
    lines += [""]
    opened: dict[str, str] = {}
    for entry in entries:
        for posting in entry.postings:
            known = opened.get(posting.account, entry.date)
            opened[posting.account] = min(known, entry.date)
    lines += [f"{date} open {account}" for account, date in sorted(opened.items())]
    for entry in entries:
        lines += ["", *_transaction(entry)]
    return "\n".join(lines) + "\n"


def _currencies(rows: Iterable[LedgerRow]) -> list[str]:
    return sorted({row.unit.upper() for row in rows if row.unit != MSAT})


def _transaction(entry: JournalEntry) -> Iterator[str]:
    row = entry.first
    what = row.kind.replace("_", " ")
    yield f'{entry.date} * "{_quoted(row.tenant)}" "{_quoted(what)}"'
    for name, value in (
        ("entry", row.entry),
        ("invoice", row.invoice_id),
        ("payment-hash", row.payment_hash),
        ("rate", row.rate),
    ):
        if value:
            yield f'  {name}: "{_quoted(value)}"'
    for posting in entry.postings:
        yield f"  {posting.account}  {posting.number} {posting.commodity}"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def day_start(text: str) -> int:
    """Epoch seconds of a UTC day `2026-11-21`. Raises `ValueError`."""
    return int(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp())
