"""The ledger in the database: append-only, balanced row by row, and begun from what was there."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from billing.ledger import MSAT, Account
from billing.store import ledger, statements
from billing.store.engine import ConstraintViolated, MigratableEngine
from billing.store.migrate import MIGRATIONS_DIR, available, migrate
from tests import engines
from tests.store.test_guards import CONNECTION, INVOICE, REQUEST, SETTLEMENT, TENANT, Raw

ROW = {
    "entry": "e",
    "line": 0,
    "at": 1,
    "billing_at": 1,
    "kind": "k",
    "tenant": "t",
    "debit": "receivable",
    "credit": "revenue",
    "unit": "usd",
    "amount": 5,
}


@pytest.fixture
async def old(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[MigratableEngine]:
    """A database of the first schema."""
    allow_raw_sql(monkeypatch)
    async with engines.opened(empty_database_url, migrated=False) as engine:
        first = available(engine.dialect)[0]
        shutil.copytree(
            MIGRATIONS_DIR / engine.dialect,
            tmp_path / engine.dialect,
            ignore=lambda _, names: [n for n in names if not n.startswith(first.name)],
        )
        await migrate(engine, tmp_path)
        yield engine


def allow_raw_sql(monkeypatch: pytest.MonkeyPatch) -> None:
    def statement(sql: str) -> statements.Statement:
        if sql in statements.load():
            return statements.load()[sql]
        params = statements.parameters(sql)
        return statements.Statement("raw", "", sql, statements.to_psycopg(sql), params)

    monkeypatch.setattr("billing.store.sqlite.statement", statement)
    monkeypatch.setattr("billing.store.postgres.statement", statement)


async def test_c20_nothing_changes_or_takes_away_an_entry(
    engine: MigratableEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow_raw_sql(monkeypatch)
    raw = Raw(engine)
    await raw.insert("tenants", TENANT)
    await raw.insert("ledger", ROW)
    for sql in ("UPDATE ledger SET amount = 6", "DELETE FROM ledger"):
        with pytest.raises(ConstraintViolated):
            async with engine.transaction() as tx:
                await tx.execute(sql)
    if engine.dialect == "postgresql":
        with pytest.raises(ConstraintViolated):
            async with engine.transaction() as tx:
                await tx.execute("TRUNCATE ledger")
    async with engine.transaction() as tx:
        assert [row.amount for row in await ledger.rows(tx)] == [5]
        assert await tx.scalar("ledger.has", entry="e") == 1
        assert await tx.scalar("ledger.has", entry="f") is None


@pytest.mark.parametrize(
    "wrong",
    [{"amount": 0}, {"amount": -5}, {"credit": "receivable"}, {"line": 0}, {"tenant": "nobody"}],
)
async def test_a_row_out_of_balance_a_repeat_and_a_stranger_are_refused(
    engine: MigratableEngine, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any]
) -> None:
    allow_raw_sql(monkeypatch)
    raw = Raw(engine)
    await raw.insert("tenants", TENANT)
    await raw.insert("ledger", ROW)
    await raw.refuses("ledger", ROW | {"line": 1} | wrong)
    await raw.insert("ledger", ROW | {"line": 1})


async def test_the_books_begin_with_what_was_there(old: MigratableEngine) -> None:
    """Old → new with data: invoices in each state, money in each home."""
    raw = Raw(old)
    await raw.insert("tenants", TENANT | {"customer_id": "cus_1"})
    await raw.insert("connections", CONNECTION)
    gone = {"amount_remaining_minor": 0}
    await raw.insert(
        "invoices",
        INVOICE | {"id": "in_open"},
        INVOICE | {"id": "in_draft", "status": "draft"},
        INVOICE | {"id": "in_void", "status": "void"},
        INVOICE | {"id": "in_lost", "status": "uncollectible"},
    )
    await raw.insert(
        "invoices",
        INVOICE | gone | {"id": "in_nwc", "status": "paid", "paid_by": "nwc"},
        INVOICE | gone | {"id": "in_card", "status": "paid", "paid_by": "card"},
        INVOICE
        | gone
        | {"id": "in_credit", "status": "paid", "paid_by": "credit"}
        | {"amount_due_minor": 0},
        INVOICE | {"id": "in_part", "amount_due_minor": 300, "amount_remaining_minor": 300},
        INVOICE
        | gone
        | {"id": "in_less", "status": "paid", "paid_by": "credit"}
        | {"total_minor": -70, "amount_due_minor": 0},
    )
    for n, (state, more) in enumerate(
        (
            ("placed", {"target_invoice_id": "in_nwc", "credit_minor": 20, "value_minor": 520}),
            ("received", {"next_try_at": 1, "value_minor": 40}),
            ("credited", {"credit_minor": 90, "value_minor": 90}),
            ("credited", {"credit_minor": 11, "value_minor": 11, "next_try_at": 1}),
            ("liability", {"value_minor": 33}),
        )
    ):
        key = f"h{n}"
        settled = {"id": f"pr_{n}", "payment_hash": key, "state": "settled", "rate": "100000"}
        await raw.insert("payment_requests", REQUEST | settled | {"invoice_id": "in_nwc"})
        paid = {"payment_hash": key, "request_id": f"pr_{n}", "amount_msat": 1000, "state": state}
        await raw.insert("settlements", SETTLEMENT | paid | more)
    await migrate(old)
    async with old.transaction() as tx:
        held = (await ledger.sums(tx, "ledger.sums"))["t"]
        rows = await ledger.rows(tx)
        by_hash = await ledger.sums(tx, "ledger.by_payment_hash")
        foreign = await ledger.sums(tx, "ledger.out_of_band")
    assert {f"{account.value} {unit}": amount for (account, unit), amount in held.of.items()} == {
        "receivable usd": 500 + 300,
        "bad_debt usd": 500,
        "card usd": 500,
        "revenue usd": -(500 * 6 - 70),
        "credit usd": 500 + 200 - 70 - 20 - 90,
        "conversion usd": 520 + 40 + 90 + 11 + 33,
        "conversion msat": -5000,
        "payee_wallet msat": 5000,
        "unplaced usd": -(40 + 11),
        "liability usd": -33,
    }
    assert foreign == {}
    assert by_hash["h1"].get(Account.UNPLACED, "usd") == -40
    assert by_hash["h0"].get(Account.PAYEE_WALLET, MSAT) == 1000
    assert {row.rate for row in rows if row.kind == "money_received"} == {"100000"}
    assert all(row.kind == "invoice_opening" for row in rows if row.entry.startswith("invoice:"))
