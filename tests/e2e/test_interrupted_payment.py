"""The bot is stopped or killed in the middle of a payment, and finishes it in its next life."""

from __future__ import annotations

from typing import Literal

import pytest

from bot.sandbox.lightning.faults import Delay, LateReply, Silent
from tests.e2e.botprocess import Scene, Tenant, check_books, check_tenant_wallet, eventually


async def order_and_ask_wallet(scene: Scene) -> Tenant:
    """A tenant has ordered, and the pay request has gone out to the wallet."""
    await scene.start()
    tenant = await scene.tenant()
    await tenant.ask("new alice basic", "Ordered")
    await scene.bot.logged("attempt.written")
    await eventually(lambda: "pay_invoice" in tenant.connection.requests, "the wallet was asked")
    return tenant


async def finished_once(scene: Scene, tenant: Tenant) -> None:
    """Paid, told and up: each once."""
    await tenant.hear("Paid from your wallet: $5.00 for alice")
    await tenant.hear("alice is up")
    assert await scene.is_up("alice")
    await eventually(scene.all_money_placed, "the settlement has its home")
    assert tenant.connection.requests.count("pay_invoice") == 1
    await scene.bot.terminate()
    assert len(scene.town.network.payments) == 1
    assert len(scene.invoices("paid")) == len(scene.invoices()) == 1
    assert len(tenant.paid_messages()) == 1
    check_books(scene)
    check_tenant_wallet(tenant)


@pytest.mark.parametrize("pays", ["while away", "after the start"])
async def test_sigterm_while_the_wallet_thinks(scene: Scene, pays: str) -> None:
    scene.town.payer.misbehave("pay_invoice", Delay())
    tenant = await order_and_ask_wallet(scene)
    await scene.bot.terminate()
    assert scene.invoices("open")
    if pays == "while away":
        tenant.connection.release()
        await eventually(lambda: tenant.wallet.network.payments, "the wallet paid")
    await scene.start()
    if pays == "after the start":
        assert scene.invoices("open")
        tenant.connection.release()
    await finished_once(scene, tenant)


async def test_sigkill_right_after_the_pay_request(scene: Scene) -> None:
    scene.town.payer.misbehave("pay_invoice", Delay())
    tenant = await order_and_ask_wallet(scene)
    await scene.bot.kill()
    await scene.start()
    assert "under way" in await tenant.ask("pay", "payment")
    tenant.connection.release()
    await finished_once(scene, tenant)


async def test_sigkill_and_a_silent_wallet_that_pays_later(scene: Scene) -> None:
    """No reply ever comes: our own wallet is the only witness (M6)."""
    scene.town.payer.misbehave("pay_invoice", Silent(executes=True))
    scene.town.network.stall_next()
    tenant = await order_and_ask_wallet(scene)
    await scene.bot.kill()
    await scene.start()
    assert scene.invoices("open")
    scene.town.network.release_stalled()
    await finished_once(scene, tenant)


@pytest.mark.parametrize("kind", ["timeout", "timeout_after_commit", "slow"])
async def test_sigkill_between_settlement_and_stripe(
    scene: Scene, kind: Literal["timeout", "timeout_after_commit", "slow"]
) -> None:
    """Money is proven, Stripe is being told: the call may or may not have taken effect (M10)."""
    scene.town.payer.misbehave("pay_invoice", LateReply())
    scene.town.network.stall_next()
    tenant = await order_and_ask_wallet(scene)
    (invoice,) = scene.invoices("open")
    faults = scene.town.stripe.faults
    faults.add(kind, method="POST", path=f"/v1/invoices/{invoice['id']}/pay", delay_s=2.0)
    scene.town.network.release_stalled()
    await eventually(lambda: faults.hits, "Stripe is being told")
    await scene.bot.kill()
    tenant.connection.release()
    await scene.start()
    await finished_once(scene, tenant)


async def test_sigterm_while_stripe_hangs(scene: Scene) -> None:
    """Money is proven and Stripe does not answer: the stop does not wait for it."""
    tenant_pays = scene.town.payer
    tenant_pays.misbehave("pay_invoice", LateReply())
    scene.town.network.stall_next()
    tenant = await order_and_ask_wallet(scene)
    faults = scene.town.stripe.faults
    faults.add("timeout", method="POST", path="/v1/invoices/", times=3, delay_s=30.0)
    scene.town.network.release_stalled()
    await eventually(lambda: faults.hits, "Stripe is being told")
    await scene.bot.terminate()
    faults.clear()
    await scene.start()
    tenant_pays.release()
    await finished_once(scene, tenant)
