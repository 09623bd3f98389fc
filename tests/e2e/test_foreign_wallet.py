"""A bot in a process and a tenant with @getalby/sdk's wallet service, on a relay that keeps what
NIP-47 calls ephemeral: each month is paid once, whatever the wallet is shown again."""

from __future__ import annotations

import pytest

from bot.sandbox.lightning import faults as f
from bot.sandbox.town import TENANT_FUNDS_MSAT
from tests.e2e.botprocess import Scene, check_books, eventually
from tests.fakes.scripted_relay import ScriptedRelay
from tests.interop.alby import AlbyWallet


@pytest.mark.node
async def test_m3_m5_requests_that_are_kept_and_a_wallet_that_says_failed(scene: Scene) -> None:
    await scene.start()
    tenant = await scene.tenant(wallet=False)
    wallet = scene.town.network.wallet("foreign", TENANT_FUNDS_MSAT)
    async with ScriptedRelay() as relay:
        relay.keeps_requests = True
        alby = AlbyWallet(wallet, relay.url)
        async with alby:
            await tenant.ask(f"wallet {alby.uri}", "is connected;")
            await tenant.ask("new alice basic", "Ordered")
            await tenant.hear("alice is up")
        async with alby:
            # It asks its relay for everything, and pays again what it finds: that is refused.
            asked = alby.connection.requests
            await eventually(lambda: asked.count("pay_invoice") == 2, "it was shown the old one")
            alby.connection.misbehave("pay_invoice", f.FailsThenSettles())
            await scene.advance()
            await tenant.hear("Paid from your wallet")
            assert "Nothing is owed" in await tenant.ask("status", "Relays: 1 up")
        await eventually(scene.all_money_placed, "the renewal is booked")
        await scene.bot.terminate()
        written = [event["id"] for event in relay.events() if event["kind"] == 23194]
        assert len(written) == len(set(written)), "each request was written once"
    assert len(scene.invoices("paid")) == len(scene.invoices()) == 2
    check_books(scene)
