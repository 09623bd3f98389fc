"""A refund over real relays and wallets: from the operator's treasury to the tenant's own wallet,
once, whatever the treasury says (C18, M5, K10)."""

from __future__ import annotations

import json

import pytest

from billing.money import format_sats
from bot.sandbox.lightning import Connection, NwcService, SandboxWallet
from bot.sandbox.lightning import faults as f
from tests.e2e.botprocess import Scene, Tenant, eventually
from tests.e2e.test_cli_beside_the_bot import purser
from tests.interop.alby import AlbyWallet

TREASURY_MSAT = 20_000_000


async def paid_by_wallet(scene: Scene, spender_uri: str) -> tuple[Tenant, str]:
    scene.changes["refunds"] = {"nwc": spender_uri}
    await scene.start()
    tenant = await scene.tenant()
    await tenant.ask("new alice basic", "Ordered")
    await tenant.hear("alice is up")
    await eventually(scene.all_money_placed, "the money has its home")
    (invoice,) = scene.invoices("paid")
    return tenant, str(invoice["id"])


async def refunded_once(
    scene: Scene, tenant: Tenant, invoice: str, treasury: SandboxWallet, connection: Connection
) -> None:
    before = tenant.wallet.balance_msat
    ordered = await purser(scene, "refund", invoice, "--reason", "asked for it", "--json")
    assert ordered.code == 0, ordered
    assert (ordered.json["state"], ordered.json["sats"]) == ("pending", 5000)
    assert f"{format_sats(5_000_000)} went to your wallet" in await tenant.hear("Given back: $5.00")
    assert tenant.wallet.balance_msat == before + 5_000_000
    fee_msat = TREASURY_MSAT - 5_000_000 - treasury.balance_msat
    assert 0 <= fee_msat < 50_000, "paid once"
    assert connection.requests.count("pay_invoice") == 1
    again = await purser(scene, "refund", invoice, "--reason", "once more")
    assert again.code != 0
    assert "nothing of it is left" in again.err

    def noted() -> bool:
        return scene.rows("SELECT state, noted_at IS NULL FROM refunds") == [("done", 0)]

    await eventually(noted, "Stripe has its credit note")
    (note,) = scene.town.stripe.world.table("credit_note").values()
    assert (note["amount"], note["invoice"]) == (500, invoice)
    story = (await purser(scene, "show", str(ordered.json["refund"]))).out
    assert "refund.in_flight" in story
    proof = await purser(scene, "audit", "--json")
    assert json.loads(proof.out)["differences"] == []


@pytest.mark.parametrize(
    "fault", [None, f.FailsThenSettles(), f.Silent(executes=True)], ids=lambda x: type(x).__name__
)
async def test_c18_m5_a_refund_arrives_once_whatever_the_treasury_says(
    scene: Scene, fault: f.Fault | None
) -> None:
    treasury = scene.town.network.wallet("treasury", TREASURY_MSAT)
    service = NwcService(treasury, scene.town.relay.url)
    connection = service.add_connection(budget_msat=TREASURY_MSAT)
    async with service:
        tenant, invoice = await paid_by_wallet(scene, connection.uri)
        if fault is not None:
            connection.misbehave("pay_invoice", fault)
        await refunded_once(scene, tenant, invoice, treasury, connection)


@pytest.mark.node
async def test_c18_a_refund_from_getalbys_wallet_service(scene: Scene) -> None:
    treasury = scene.town.network.wallet("treasury", TREASURY_MSAT)
    alby = AlbyWallet(treasury, scene.town.relay.url)
    async with alby:
        tenant, invoice = await paid_by_wallet(scene, alby.uri)
        await refunded_once(scene, tenant, invoice, treasury, alby.connection)


async def test_k10_m7_a_tenants_wallet_that_is_silent_gets_nothing_and_the_operator_sees_why(
    scene: Scene,
) -> None:
    treasury = scene.town.network.wallet("treasury", TREASURY_MSAT)
    service = NwcService(treasury, scene.town.relay.url)
    connection = service.add_connection()
    async with service:
        _, invoice = await paid_by_wallet(scene, connection.uri)
        await scene.town.tenant_service.stop()
        await purser(scene, "refund", invoice, "--reason", "r")

        def waits() -> bool:
            rows = scene.rows("SELECT state, problem FROM refunds")
            return rows[0][0] == "pending" and "payment request" in (rows[0][1] or "")

        await eventually(waits, "it waits for the tenant's wallet", 60)
        assert connection.requests.count("pay_invoice") == 0
        assert treasury.balance_msat == TREASURY_MSAT
