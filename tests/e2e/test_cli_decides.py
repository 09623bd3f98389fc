"""What an operator decides beside a bot that runs: credit, a payment, a dead letter."""

from __future__ import annotations

import contextlib
import json
import sqlite3

import pytest

from bot.sandbox.lightning.faults import Silent
from tests.e2e.botprocess import Scene, Tenant, check_books, check_tenant_wallet, eventually
from tests.e2e.test_cli_beside_the_bot import purser

LONGER_THAN_EXPIRY_AND_MARGIN_S = 3600


async def with_alice(scene: Scene) -> Tenant:
    """A tenant whose first relay is paid and up."""
    await scene.start()
    tenant = await scene.tenant()
    await tenant.ask("new alice basic", "Ordered")
    await tenant.hear("alice is up")
    await eventually(scene.all_money_placed, "the money has its home")
    return tenant


async def test_credit_is_given_once_and_used_for_the_next_invoice(scene: Scene) -> None:
    """A command that is repeated by mistake would give twice; credit that is not used is none."""
    tenant = await with_alice(scene)
    words = ("credit", tenant.client.keys.npub, "2.00", "--reason", "an outage", "--json")
    given = (await purser(scene, *words)).json
    assert (given["way"], given["amount"]) == ("balance", "$2.00")
    assert (await purser(scene, *words)).code == 1
    await tenant.hear("You were given $2.00 of credit")
    (customer,) = scene.town.stripe.world.table("customer").values()
    assert customer["balance"] == -200
    await scene.advance()
    assert "$2.00 of it from your credit" in await tenant.hear("Paid from your wallet: $5.00")
    await eventually(scene.all_money_placed, "the renewal is booked")
    assert customer["balance"] == 0
    assert scene.town.operator_wallet.balance_msat == 5_000_000 + 3_000_000
    check_tenant_wallet(tenant)
    assert (await purser(scene, "audit", "--json")).json["agrees"] is True


def let_it_expire(scene: Scene) -> None:
    """By hand, without waiting a quarter of an hour: expiry and margin are over."""
    sql = "UPDATE payment_requests SET expires_at = expires_at - ? WHERE state = 'open'"
    with contextlib.closing(sqlite3.connect(scene.database, timeout=30.0)) as database, database:
        assert database.execute(sql, (LONGER_THAN_EXPIRY_AND_MARGIN_S,)).rowcount == 1


async def test_m2_a_payment_is_settled_by_the_operators_word(scene: Scene) -> None:
    """Our wallet is gone and the money came: without the command the invoice stays open for ever,
    and with it before the expiry and its margin a mistake could not be undone."""
    await scene.start()
    tenant = await scene.tenant()
    scene.town.payee.misbehave("lookup_invoice", Silent(), times=None)
    scene.town.payee.misbehave("list_transactions", Silent(), times=None)
    tenant.connection.misbehave("pay_invoice", Silent(executes=True))
    await tenant.ask("new alice basic", "Ordered")
    await eventually(lambda: scene.town.network.payments, "the wallet paid")
    (invoice,) = scene.invoices("open")
    words = ("payments", "resolve", invoice["id"], "--settled", "--reason", "seen in the node")
    early = await purser(scene, *words)
    assert (early.code, "may still be paid" in early.err) == (1, True)
    let_it_expire(scene)
    assert (await purser(scene, *words, "--json")).json["state"] == "settled"
    await tenant.hear("alice is up")
    assert len(scene.invoices("paid")) == 1
    told = (await purser(scene, "show", invoice["id"], "--json")).json
    assert "operator.resolved" in [entry["what"] for entry in told["story"]]
    assert (await purser(scene, *words)).code == 1, "that is final"
    await eventually(scene.all_money_placed, "the money has its home")
    check_tenant_wallet(tenant)
    check_books(scene)


def all_events_are_handled(scene: Scene) -> bool:
    """Whatever Stripe has to say was said and done."""
    handled = scene.rows("SELECT event_id FROM inbox_events WHERE handled_at IS NOT NULL")
    return set(scene.town.stripe.world.table("event")) <= {row[0] for row in handled}


async def test_a_dead_letter_is_listed_and_replayed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be handled for three days must not vanish: it is listed until it is."""
    monkeypatch.setenv("HURRIED", json.dumps({"billing.events.BACK_OFF_S": []}))
    scene.bot.module = "tests.e2e.hurried"
    await with_alice(scene)
    (invoice,) = scene.invoices("paid")
    events = scene.town.stripe.world.table("event").values()
    event = next(e["id"] for e in events if e["type"] == "invoice.paid")
    await eventually(lambda: all_events_are_handled(scene), "all events are handled")
    assert (await purser(scene, "events", "--failed", "--json")).json == []
    path = f"/v1/invoices/{invoice['id']}"
    scene.town.stripe.faults.add("forbidden", method="GET", path=path)
    assert (await purser(scene, "events", "replay", event)).code == 0
    await scene.bot.logged("event.failed", subject=event, dead_letter=True)
    (letter,) = (await purser(scene, "events", "--failed", "--json")).json
    assert (letter["event_id"], letter["state"]) == (event, "failed")
    again = await purser(scene, "events", "replay", "--since", "1d", "--failed", "--json")
    assert again.json["events"] == 1
    handled = f"SELECT state FROM inbox_events WHERE event_id = '{event}'"
    await eventually(lambda: scene.rows(handled) == [("handled",)], "it is handled")
    assert (await purser(scene, "events", "--failed", "--json")).json == []
