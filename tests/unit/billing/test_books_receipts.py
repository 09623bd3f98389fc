"""Receipts: what was paid, at which rate of which sources, for which time, proven by what."""

from __future__ import annotations

from typing import Any

from billing.money import format_sats
from bot.dm.texts import render
from tests.unit.billing.conftest import MakeWorld
from tests.unit.billing.test_books_audit import by_card, by_hand, credit_is_spent, paid
from tests.world import World


async def receipts(world: World) -> list[tuple[dict[str, Any], str]]:
    said = [facts for kind, facts in await world.messages() if kind == "invoice_paid"]
    return [(facts, render("invoice_paid", facts)) for facts in said]


async def test_a_lightning_payment_gets_a_whole_receipt(world: World) -> None:
    await paid(world)
    (request,) = await world.requests()
    ((facts, text),) = await receipts(world)
    assert facts["amount_msat"] == 4_000_000
    assert facts["rate_sources"] == ["one", "two"]
    assert facts["covers_until"] - facts["covers_from"] in range(28 * 86400, 32 * 86400)
    first, blank, receipt, proof = text.split("\n")
    assert first == "Paid from your wallet: $4.00 for alice. Thank you. alice comes up now."
    assert blank == ""
    assert receipt.startswith(
        f"Receipt F-0001, {format_sats(4_000_000)} at $100,000.00 for 1 BTC (one and two, "
    )
    assert ", period " in receipt
    assert proof == f"Payment hash: {request.payment_hash}"


async def test_the_receipt_names_what_came_not_what_was_asked(world: World) -> None:
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    (request,) = await world.requests()
    stub = world.payee.invoices[request.payment_hash]
    object.__setattr__(stub.bolt11, "amount_msat", 4_500_000)
    world.payee.settle(request.payment_hash)
    await world.pass_time(60, step=30)
    ((facts, text),) = await receipts(world)
    assert facts["amount_msat"] == 4_500_000
    assert text.startswith("Paid over Lightning: $4.00 for alice.")
    assert format_sats(4_500_000) in text


async def test_a_card_payment_has_a_period_and_no_rate(make_world: MakeWorld) -> None:
    world = await make_world()
    await by_card(world)
    (facts, text), *_ = await receipts(world)
    assert facts["paid_by"] == "card"
    assert text.startswith("Paid by card: $4.00")
    assert ", period " in text
    assert "sats" not in text
    assert "hash" not in text


async def test_credit_that_paid_is_named(make_world: MakeWorld) -> None:
    world = await make_world()
    await credit_is_spent(world)
    facts, text = (await receipts(world))[-1]
    assert facts["paid_by"] == "credit"
    assert text.startswith("Paid from your credit: $4.00")
    assert "$4.00 of it from your credit" in text


async def test_one_receipt_for_a_payment(world: World) -> None:
    """M14: events of Stripe, look-ups and collection say it once."""
    await by_hand(world)
    await world.pass_time(3600, step=600)
    assert len(await receipts(world)) == 1


def test_a_message_stored_by_an_older_version_still_has_words() -> None:
    old = {
        "invoice": "in_1",
        "amount_minor": 400,
        "currency": "usd",
        "paid_by": "nwc",
        "relays": ["alice"],
        "brought_up": [],
    }
    assert render("invoice_paid", old) == "Paid from your wallet: $4.00 for alice. Thank you."
