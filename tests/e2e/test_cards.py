"""A tenant leaves a card by a link in a message, and invoices that are sent, in a whole bot."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.botprocess import Scene, Tenant, check_books, check_log, eventually, scene_in


async def leave_card(scene: Scene, tenant: Tenant) -> None:
    """Ask for the link, open it, type a test card in."""
    await tenant.ask("card", "follows in a moment")
    message = await tenant.hear("Leave a card here")
    url = next(word for word in message.split() if word.startswith("http"))
    assert url.startswith(scene.town.stripe.base_url)
    (await scene.http.post(url, json={"card": "visa"})).raise_for_status()
    assert "Visa …4242 is set up" in await tenant.hear("is set up")
    assert url not in scene.bot.log, "whoever has the link is let in"


@pytest.mark.parametrize("has_portal", [True, False])
async def test_a_card_left_by_a_link_pays_the_renewal(scene: Scene, has_portal: bool) -> None:
    scene.town.stripe.world.settings.portal_configured = has_portal
    await scene.start()
    tenant = await scene.tenant(wallet=False)
    await tenant.ask("new alice basic", "Ordered")
    scene.pay_by_hand(await tenant.hear("To pay: $5.00"))
    await tenant.hear("alice is up")
    await leave_card(scene, tenant)
    await scene.advance()
    assert "$5.00 for alice" in await tenant.hear("Paid by card")
    assert [i["status"] for i in scene.invoices()] == ["paid", "paid"]
    # It goes away again, and the next renewal comes by message.
    (method,) = scene.town.stripe.world.table("payment_method")
    auth = {"Authorization": f"Bearer {scene.town.stripe.api_key}"}
    url = f"{scene.town.stripe.base_url}/v1/payment_methods/{method}/detach"
    (await scene.http.post(url, headers=auth)).raise_for_status()
    await tenant.hear("was taken away")
    await scene.advance()
    scene.pay_by_hand(await tenant.hear("To pay: $5.00"))
    await tenant.hear("Paid over Lightning")


async def test_invoices_that_are_sent_bring_a_relay_up_once_they_are_paid(tmp_path: Path) -> None:
    """M12: at Stripe the subscription is active from the first moment."""
    stripe = {"collection_method": "send_invoice", "email_domain": "tenants.example.com"}
    async with scene_in(tmp_path, {"stripe": stripe}) as scene:
        await scene.start()
        tenant = await scene.tenant(wallet=False)
        await tenant.ask("new alice basic", "Ordered")
        message = await tenant.hear("To pay: $5.00")
        (sub,) = scene.town.stripe.world.table("subscription").values()
        assert (sub["status"], sub["collection_method"]) == ("active", "send_invoice")
        assert not await scene.is_up("alice")
        scene.pay_by_hand(message)
        await tenant.hear("alice is up")
        assert await scene.is_up("alice")
        await tenant.connect_wallet()
        await scene.advance()
        await tenant.hear("Paid from your wallet")
        await eventually(scene.all_money_placed, "the money has its home")
        check_books(scene)
        check_log(scene)
