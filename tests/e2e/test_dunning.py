"""A renewal that nobody pays, played for real: the sandbox's clock jumps, and each step is told."""

from __future__ import annotations

from tests.e2e.botprocess import Scene, Tenant, check_books, eventually
from tests.e2e.test_cli_beside_the_bot import purser

TOLD = "SELECT day FROM dunning_windows WHERE told_clock IS NOT NULL AND closed_at IS NULL"
UNTOLD_HOST = "SELECT 1 FROM hosted_relays WHERE wanted_rev <> applied_rev"


async def later(scene: Scene, tenant: Tenant, hours: int, wanted: str) -> str:
    """A jump is time that passed, not an outage; but the message before must have arrived."""
    await eventually(lambda: scene.rows(TOLD), "the message before was seen delivered")
    await scene.advance(hours * 3600)
    return await tenant.hear(wanted)


async def test_a_timeline_in_jumps_and_the_way_back(scene: Scene) -> None:
    await scene.start()
    tenant = await scene.tenant()
    await tenant.ask("new alice basic", "Ordered")
    await tenant.hear("alice is up")
    taken_msat = tenant.wallet.drain()
    await scene.advance()
    message = await tenant.hear("To pay: $5.00 = 5 000 sats")
    # On a busy machine the invoice is seen in the middle of the jump, whose rest counts as time.
    early = [told.text for told in tenant.client.heard if "is due since" in told.text]
    text = early[0] if early else await later(scene, tenant, 5, "is due since")
    assert "alice is limited on" in text
    await later(scene, tenant, 25, "A reminder")
    await later(scene, tenant, 49, "A reminder")
    await later(scene, tenant, 97, "alice is limited now")
    assert await scene.is_up("alice"), "limited answers still"
    assert "alice is stopped on" in await tenant.ask("status", "Relays:")
    (row,) = (await purser(scene, "dunning", "--json")).json
    assert (row["next"], row["told"], row["owes"]) == ("stop", True, "$5.00")
    assert row["relays"] == "alice (limited)"
    refused = await purser(scene, "dunning", "resume", row["invoice"], "--reason", "a look")
    assert refused.code == 1
    assert "is not paused" in refused.err
    assert "Noted: you have 2 days more" in await tenant.ask("promise 2", "Noted")
    await scene.advance(73 * 3600)
    await later(scene, tenant, 49, "alice is stopped now")
    await eventually(lambda: not scene.rows(UNTOLD_HOST), "the relay host was told")
    assert not await scene.is_up("alice")
    scene.pay_by_hand(message)
    assert "alice comes up now" in await tenant.hear("Paid over Lightning")
    await tenant.hear("alice is up")
    assert await scene.is_up("alice")
    assert "Nothing is owed" in await tenant.ask("status", "Relays: 1 up")
    await eventually(scene.all_money_placed, "the money has its home")
    await scene.bot.terminate()
    check_books(scene)
    tenant.wallet.fund(taken_msat)
