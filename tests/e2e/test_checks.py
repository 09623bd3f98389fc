"""`purser check` against a whole sandbox: what is well, and what each fault is called."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bot.checks import Finding, Verdict, run_checks
from bot.config import load_config
from bot.sandbox.lightning.faults import Quirks
from bot.sandbox.town import Town


@pytest.fixture
async def town() -> AsyncIterator[Town]:
    async with Town() as made:
        yield made


async def check(
    town: Town, directory: Path, changes: dict[str, dict[str, Any]] | None = None
) -> dict[str, Finding]:
    config = load_config(town.write_config(directory, changes), {})
    return {finding.what: finding for finding in await run_checks(config)}


def not_ok(findings: dict[str, Finding]) -> set[str]:
    return {what for what, finding in findings.items() if finding.verdict is not Verdict.OK}


async def test_all_is_well_in_a_fresh_sandbox(town: Town, tmp_path: Path) -> None:
    findings = await check(town, tmp_path)
    assert not_ok(findings) == set()
    assert {
        "SQLite", "database", "bot", f"relay {town.relay.url}", "Stripe", "webhooks", "payee",
        "payee kind", "payee requests", "exchange rate usd", "relay host",
    } == set(findings)  # fmt: skip
    assert not (tmp_path / "data" / "purser.sqlite").exists(), "a check changes nothing"


async def test_a_payee_that_may_pay_fails(town: Town, tmp_path: Path) -> None:
    spending = town.operator_service.add_connection()
    findings = await check(town, tmp_path, {"payee": {"nwc": spending.uri}})
    assert findings["payee"].verdict is Verdict.FAILED
    assert "pay_invoice" in findings["payee"].text
    assert spending.uri.rpartition("secret=")[2] not in str(findings)


async def test_a_payee_that_ignores_the_asked_expiry_fails(town: Town, tmp_path: Path) -> None:
    stubborn = town.operator_service.add_connection(
        receive_only=True, quirks=Quirks(forced_expiry_s=86_400)
    )
    findings = await check(town, tmp_path, {"payee": {"nwc": stubborn.uri}})
    assert not_ok(findings) == {"payee requests"}
    assert "later than asked" in findings["payee requests"].text


async def test_an_unknown_payee_costs_three_hours(town: Town, tmp_path: Path) -> None:
    findings = await check(town, tmp_path, {"payee": {"kind": "unknown"}})
    assert findings["payee kind"].verdict is Verdict.WARN
    assert "180 min" in findings["payee kind"].text


async def test_another_node_than_the_pinned_one_fails(town: Town, tmp_path: Path) -> None:
    pinned = town.tenant_wallet.node_pubkey
    findings = await check(town, tmp_path, {"payee": {"pubkey": pinned}})
    assert not_ok(findings) == {"payee requests"}


async def test_stripe_knows_another_webhook_account_and_key(town: Town, tmp_path: Path) -> None:
    elsewhere = {"http": {"public_url": "https://elsewhere.example.com"}}
    assert not_ok(await check(town, tmp_path, elsewhere)) == {"webhooks"}
    other = await check(town, tmp_path, {"stripe": {"account": "acct_other"}})
    assert town.stripe.world.settings.account_id in other["Stripe"].text
    assert other["Stripe"].verdict is Verdict.FAILED
    wrong = await check(town, tmp_path, {"stripe": {"api_key": "sk_test_wrong"}})
    assert wrong["Stripe"].verdict is Verdict.FAILED
    assert "sk_test_wrong" not in str(wrong)


async def test_what_is_away_is_named_and_the_rest_still_looked_at(
    town: Town, tmp_path: Path
) -> None:
    await town.rates.stop()
    await town.relay_host.stop()
    away = "ws://127.0.0.1:9"
    changes = {"bot": {"relays": [town.relay.url, away]}}
    findings = await check(town, tmp_path, changes)
    assert not_ok(findings) == {"exchange rate usd", "relay host", f"relay {away}"}


async def test_an_indexer_that_is_away_is_only_a_warning(town: Town, tmp_path: Path) -> None:
    away = "ws://127.0.0.1:9"
    findings = await check(town, tmp_path, {"bot": {"indexer_relays": [town.relay.url, away]}})
    assert not_ok(findings) == {f"relay {away}"}
    assert findings[f"relay {away}"].verdict is Verdict.WARN


async def test_a_key_that_the_relay_host_does_not_know_fails(town: Town, tmp_path: Path) -> None:
    town.relay_host.whitelist.clear()
    assert not_ok(await check(town, tmp_path)) == {"relay host"}
