"""The main job from order to a hand-paid renewal, in a process, with all books compared."""

from __future__ import annotations

from tests.e2e.botprocess import Scene, check_books, check_tenant_wallet, eventually


async def test_order_renewal_and_hand_payment(scene: Scene) -> None:
    await scene.start()
    tenant = await scene.tenant()
    assert "basic – Basic, $5.00 a month" in await tenant.ask("plans", "Plans")
    await tenant.ask("new alice basic", "Ordered")
    assert "$5.00 for alice" in await tenant.hear("Paid from your wallet")
    assert "alice.localhost" in await tenant.hear("alice is up")
    assert await scene.is_up("alice")
    assert not await scene.is_up("bob")
    await scene.advance()
    await tenant.hear("Paid from your wallet")
    check_tenant_wallet(tenant)

    taken_msat = tenant.wallet.drain()
    await scene.advance()
    message = await tenant.hear("To pay: $5.00 = 5 000 sats")
    assert "holds too little" in message
    payment_hash = scene.pay_by_hand(message)
    assert "$5.00 for alice" in await tenant.hear("Paid over Lightning")
    assert "Nothing is owed" in await tenant.ask("status", "Relays: 1 up")

    assert payment_hash in {i["metadata"]["purser_paid_by"] for i in scene.invoices("paid")}
    assert len(scene.invoices()) == 3
    await scene.bot.terminate()
    check_books(scene)
    tenant.wallet.fund(taken_msat)
    check_tenant_wallet(tenant)
    assert len(tenant.paid_messages()) == 3
    assert scene.town.network.total_msat() == 150_000_000


async def test_manual_tenant_without_a_wallet(scene: Scene) -> None:
    await scene.start()
    tenant = await scene.tenant(wallet=False)
    await tenant.ask("new alice plus", "Ordered")
    message = await tenant.hear("To pay: $12.00 = 12 000 sats")
    assert not await scene.is_up("alice")
    scene.pay_by_hand(message)
    await tenant.hear("alice is up")
    assert await scene.is_up("alice")
    await eventually(scene.all_money_placed, "the money has its home")
    check_books(scene)
