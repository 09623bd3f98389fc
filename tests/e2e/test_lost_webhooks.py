"""What happened while no webhook came, or while the bot was away, is found at the next start."""

from __future__ import annotations

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
