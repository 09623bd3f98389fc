"""The journal for an accountant: valid Beancount, the same numbers in CSV, days of billing time."""

from __future__ import annotations

import csv
import io
from collections import Counter
from decimal import Decimal

import pytest

from billing.export import ACCOUNT_NAMES, COLUMNS, day_start, to_beancount, to_csv
from billing.ledger import Account, LedgerRow
from billing.store import ledger
from tests import beancount
from tests.unit.billing.test_books_audit import late_money, months
from tests.world import ALICE, World


async def rows_of(world: World, **limits: int) -> list[LedgerRow]:
    async with world.engine.transaction() as tx:
        return await ledger.rows(tx, **limits)


def row(entry: str, debit: Account, credit: Account, unit: str, amount: int) -> LedgerRow:
    return LedgerRow(
        seq=1,
        entry=entry,
        line=0,
        at=1_800_000_000,
        billing_at=1_800_000_000,
        kind='a "kind"',
        tenant=ALICE,
        invoice_id=None,
        payment_hash=None,
        debit=debit,
        credit=credit,
        unit=unit,
        amount=amount,
        rate=None,
    )


def test_every_account_has_a_name_for_the_accountant() -> None:
    assert ACCOUNT_NAMES.keys() == set(Account)
    assert len(set(ACCOUNT_NAMES.values())) == len(Account)


async def test_the_whole_journal_is_valid_beancount(world: World) -> None:
    await late_money(world)
    books = beancount.check(to_beancount(await rows_of(world)))
    t = f"T-{ALICE[:16]}"
    assert books.total() == {
        ("Assets:Lightning:Payee", "SAT"): Decimal("8000.000"),
        ("Equity:Conversion", "SAT"): Decimal("-8000.000"),
        ("Equity:Conversion", "USD"): Decimal("8.00"),
        ("Income:Hosting", "USD"): Decimal("-4.00"),
        (f"Liabilities:Customer-Credit:{t}", "USD"): Decimal("-4.00"),
    }
    whats = [transaction.what.strip('"') for transaction in books.transactions]
    assert whats == [
        "invoice issued",
        "money received",
        "invoice paid",
        "money placed",
        "money received",
        "money credited",
    ]


async def test_csv_says_the_same_as_beancount(world: World) -> None:
    await months(world)
    rows = await rows_of(world)
    table = list(csv.DictReader(io.StringIO(to_csv(rows))))
    assert tuple(table[0]) == COLUMNS
    sums: Counter[tuple[str, str]] = Counter()
    by_entry: Counter[tuple[str, str]] = Counter()
    for line in table:
        sums[line["account"], line["commodity"]] += Decimal(line["amount"])  # type: ignore[assignment]
        by_entry[line["entry"], line["commodity"]] += Decimal(line["amount"])  # type: ignore[assignment]
    there = beancount.check(to_beancount(rows)).total()
    assert {place: amount for place, amount in sums.items() if amount} == there
    assert not any(by_entry.values())
    received = [line for line in table if line["kind"] == "money_received"]
    assert {Decimal(line["rate"]) for line in received} == {Decimal(100_000)}
    assert all(len(line["payment_hash"]) == 64 and line["invoice"] for line in received)


async def test_days_cut_the_journal_without_gap_or_overlap(world: World) -> None:
    await months(world)
    rows = await rows_of(world)
    cut = rows[len(rows) // 2].billing_at
    before, after = await rows_of(world, until=cut), await rows_of(world, since=cut)
    assert before
    assert after
    assert sorted(r.seq for r in before + after) == [r.seq for r in rows]
    assert day_start("1970-01-02") == 86400
    with pytest.raises(ValueError, match="time data"):
        day_start("21.11.2026")


def test_currencies_keep_their_decimals_and_words_their_quotes() -> None:
    rows = [
        row("a", Account.RECEIVABLE, Account.REVENUE, "jpy", 500),
        row("b", Account.RECEIVABLE, Account.REVENUE, "kwd", 5120),
        row("c", Account.PAYEE_WALLET, Account.CONVERSION, "msat", 1),
    ]
    text = to_beancount(rows)
    assert "500 JPY" in text
    assert "5.120 KWD" in text
    assert "0.001 SAT" in text
    assert len(beancount.check(text).transactions) == 3


def test_an_empty_journal_is_a_valid_file() -> None:
    assert beancount.check(to_beancount([])).transactions == []
    assert to_csv([]).strip() == ",".join(COLUMNS)


def test_the_checker_finds_what_is_wrong() -> None:
    good = to_beancount([row("a", Account.RECEIVABLE, Account.REVENUE, "usd", 500)])
    beancount.check(good)
    for bad in (good.replace("-5.00", "-5.01"), good.replace(" USD", " usd"), good + "stray\n"):
        with pytest.raises(AssertionError):
            beancount.check(bad)
