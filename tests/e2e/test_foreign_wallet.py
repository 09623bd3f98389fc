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


@pytest.mark.node
async def test_m5_m6_a_success_without_preimage_and_a_reply_that_comes_late(scene: Scene) -> None:
    """A success that proves nothing marks nothing paid; a reply to what our own wallet has settled
    long ago books nothing twice."""
    await scene.start()
    tenant = await scene.tenant(wallet=False)
    wallet = scene.town.network.wallet("foreign", TENANT_FUNDS_MSAT)
    async with AlbyWallet(wallet, scene.town.relay.url) as alby:
        await tenant.ask(f"wallet {alby.uri}", "is connected;")
        scene.town.network.stall_next()
        alby.connection.misbehave("pay_invoice", f.LyingSuccess(executes=True))
        await tenant.ask("new alice basic", "Ordered")
        await scene.bot.logged("attempt.answered")
        assert "under way" in await tenant.ask("pay", "payment")
        assert len(scene.invoices("open")) == 1
        scene.town.network.release_stalled()
        await tenant.hear("alice is up")

        alby.connection.misbehave("pay_invoice", f.LateReply())
        await scene.advance()
        await tenant.hear("Paid from your wallet")
        await eventually(scene.all_money_placed, "the renewal is booked")
        alby.connection.release()
        renewal = scene.invoices()[-1]["id"]
        await scene.bot.logged("attempt.answered", invoice=renewal)
        await scene.bot.terminate()
        # A relay that is slow to say OK is sent a second copy (M3).
        assert 2 <= alby.connection.requests.count("pay_invoice") <= 4
    assert len(scene.town.network.payments) == len(scene.invoices("paid")) == 2
    check_books(scene)
