"""What happened while no webhook came, or while the bot was away, is found: at the next start, by
the timer, and by the watch on what lags behind."""

from __future__ import annotations

import json

import pytest

from tests.e2e.botprocess import MONTH_S, Scene, check_books, eventually

ALL = 1_000_000


def lose_every_webhook(scene: Scene) -> None:
    """From now on Stripe sends nothing: only its lists know."""
    scene.town.stripe.delivery.misbehaviour.drop = ALL


async def test_a_renewal_while_the_bot_is_away(scene: Scene) -> None:
    await scene.start()
    tenant = await scene.tenant()
    await tenant.ask("new alice basic", "Ordered")
    await tenant.hear("alice is up")
    await eventually(scene.all_money_placed, "the first is booked")
    await scene.bot.terminate()
    lose_every_webhook(scene)
    await scene.advance()
    await scene.start()
    await tenant.hear("Paid from your wallet")
    await eventually(scene.all_money_placed, "the renewal is booked")
    assert len(scene.invoices("paid")) == 2
    check_books(scene)


async def test_ordering_and_renewing_without_any_webhook(scene: Scene) -> None:
    """An order needs none; a renewal is found when the bot starts again."""
    lose_every_webhook(scene)
    await scene.start()
    tenant = await scene.tenant()
    await tenant.ask("new alice basic", "Ordered")
    await tenant.hear("Paid from your wallet")
    await tenant.hear("alice is up")
    await scene.advance(MONTH_S)
    assert len(scene.invoices()) == 2
    await scene.bot.terminate()
    await scene.start()
    await tenant.hear("Paid from your wallet")
    await eventually(scene.all_money_placed, "the renewal is booked")
    check_books(scene)


async def test_marked_paid_by_the_operator_unnoticed(scene: Scene) -> None:
    """The bot is away, the operator takes cash and marks the invoice paid in the Dashboard."""
    await scene.start()
    tenant = await scene.tenant(wallet=False)
    await tenant.ask("new alice basic", "Ordered")
    await tenant.hear("To pay: $5.00")
    await scene.bot.kill()
    lose_every_webhook(scene)
    (invoice,) = scene.invoices("open")
    answer = await scene.http.post(
        f"{scene.town.stripe.base_url}/v1/invoices/{invoice['id']}/pay",
        data={"paid_out_of_band": "true"},
        headers={"Authorization": f"Bearer {scene.town.stripe.api_key}"},
    )
    assert answer.json()["status"] == "paid"
    await scene.start()
    await tenant.hear("alice is up")
    assert await scene.is_up("alice")
    assert scene.town.network.payments == []


ONLY_LAG = {"bot.app.LAG_S": 0.5, "billing.lag.AGAIN_AFTER_S": 0}
"""Stripe's month goes by in steps: the watch may look before its last one."""
ONLY_TIMER = {"bot.app.RECONCILE_S": 0.5, "bot.app.LAG_S": 3600.0}


@pytest.mark.parametrize("waits", [ONLY_LAG, ONLY_TIMER], ids=["lag", "timer"])
async def test_a_renewal_without_any_webhook_is_found_by_a_bot_that_goes_on(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, waits: dict[str, float]
) -> None:
    """With one of the two gone, a lost webhook would wait for the next start, or for ever."""
    monkeypatch.setenv("HURRIED", json.dumps(waits))
    scene.bot.module = "tests.e2e.hurried"
    await scene.start()
    tenant = await scene.tenant()
    await tenant.ask("new alice basic", "Ordered")
    await tenant.hear("Paid from your wallet")
    await tenant.hear("alice is up")
    lose_every_webhook(scene)
    await scene.advance()
    await tenant.hear("Paid from your wallet")
    await eventually(scene.all_money_placed, "the renewal is booked")
    assert len(scene.invoices("paid")) == len(scene.invoices()) == 2
    assert bool(scene.bot.lines("reconcile.lag")) is (waits is ONLY_LAG)
    check_books(scene)
