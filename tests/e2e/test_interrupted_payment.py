"""The bot is stopped or killed in the middle of payments, and finishes them in its next life.

Starting a process takes a second: each test has several tenants, each in a plight of its own.
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import pytest

from bot.sandbox.lightning.faults import Delay, Fault, LateReply, Silent
from tests.e2e.botprocess import Scene, Tenant, check_books, check_tenant_wallet, eventually

ASKED = "SELECT count(*) FROM payment_attempts WHERE writes >= 1"
"""On a busy machine one is settled before the other was sent, or a relay's OK takes its five
seconds and a second copy goes out (M3)."""


async def order_and_ask_wallets(scene: Scene, *faults: Fault) -> list[Tenant]:
    """A tenant for each fault has ordered, and the pay requests have gone out to the wallets."""
    await scene.start()
    tenants = [await scene.tenant() for _ in faults]
    for number, (tenant, fault) in enumerate(zip(tenants, faults, strict=True)):
        tenant.connection.misbehave("pay_invoice", fault)
        await tenant.ask(f"new relay{number} basic", "Ordered")
    await eventually(lambda: scene.rows(ASKED) == [(len(faults),)], "all requests are out")
    for tenant in tenants:
        asked = tenant.connection.requests
        await eventually(functools.partial(asked.count, "pay_invoice"), "the wallet was asked")
    return tenants


def invoice_of(scene: Scene, number: int) -> dict[str, Any]:
    """Stripe's invoice for the relay of that number."""
    sql = (
        "SELECT i.invoice_id FROM invoice_relays i JOIN hosted_relays r ON r.id = i.relay_id"
        f" WHERE r.name = 'relay{number}'"
    )
    ((invoice_id,),) = scene.rows(sql)
    return next(i for i in scene.invoices() if i["id"] == invoice_id)


async def all_finished_once(scene: Scene) -> None:
    """Paid, told and up: each once for each tenant."""
    for number, tenant in enumerate(scene.tenants):
        await tenant.hear(f"Paid from your wallet: $5.00 for relay{number}")
        await tenant.hear(f"relay{number} is up")
        assert await scene.is_up(f"relay{number}")
    await eventually(scene.all_money_placed, "the settlements have their home")
    await scene.bot.terminate()
    count = len(scene.tenants)
    assert len(scene.town.network.payments) == count
    assert len(scene.invoices("paid")) == len(scene.invoices()) == count
    for tenant in scene.tenants:
        assert 1 <= tenant.connection.requests.count("pay_invoice") <= 2
        assert len(tenant.paid_messages()) == 1
        check_tenant_wallet(tenant)
    check_books(scene)


async def test_sigterm_while_the_wallets_think(scene: Scene) -> None:
    early, late = await order_and_ask_wallets(scene, Delay(), Delay())
    await scene.bot.terminate()
    assert len(scene.invoices("open")) == 2
    early.connection.release()
    await eventually(lambda: scene.town.network.payments, "one wallet paid while the bot was away")
    await scene.start()
    assert invoice_of(scene, 1)["status"] == "open"
    late.connection.release()
    await all_finished_once(scene)


async def test_sigkill_right_after_the_pay_requests(scene: Scene) -> None:
    """One wallet answers the next life; the other never does, and pays later all the same: there
    our own wallet is the only witness (M6)."""
    slow, silent = await order_and_ask_wallets(scene, Delay(), Silent(executes=True))
    await scene.bot.kill()
    assert [p.payer for p in scene.town.network.payments] == [silent.wallet]
    await scene.start()
    assert "under way" in await slow.ask("pay", "payment")
    slow.connection.release()
    await all_finished_once(scene)


async def test_sigkill_while_a_silent_wallets_payment_is_on_its_way(scene: Scene) -> None:
    scene.town.network.stall_next()
    await order_and_ask_wallets(scene, Silent(executes=True))
    await scene.bot.kill()
    await scene.start()
    assert scene.invoices("open")
    scene.town.network.release_stalled()
    await all_finished_once(scene)


@pytest.mark.parametrize("kind", ["timeout", "timeout_after_commit", "slow"])
async def test_sigkill_between_settlement_and_stripe(
    scene: Scene, kind: Literal["timeout", "timeout_after_commit", "slow"]
) -> None:
    """Money is proven, Stripe is being told: the call may or may not have taken effect (M10)."""
    scene.town.network.stall_next()
    (tenant,) = await order_and_ask_wallets(scene, LateReply())
    faults = scene.town.stripe.faults
    path = f"/v1/invoices/{invoice_of(scene, 0)['id']}/pay"
    faults.add(kind, method="POST", path=path, delay_s=2.0)
    scene.town.network.release_stalled()
    await eventually(lambda: faults.hits, "Stripe is being told")
    await scene.bot.kill()
    tenant.connection.release()
    await scene.start()
    await all_finished_once(scene)


async def test_sigterm_while_stripe_hangs(scene: Scene) -> None:
    """Money is proven and Stripe does not answer: the stop does not wait for it."""
    scene.town.network.stall_next()
    (tenant,) = await order_and_ask_wallets(scene, LateReply())
    faults = scene.town.stripe.faults
    faults.add("timeout", method="POST", path="/v1/invoices/", times=3, delay_s=30.0)
    scene.town.network.release_stalled()
    await eventually(lambda: faults.hits, "Stripe is being told")
    await scene.bot.terminate()
    faults.clear()
    await scene.start()
    tenant.connection.release()
    await all_finished_once(scene)
