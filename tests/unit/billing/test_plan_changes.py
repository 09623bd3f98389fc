"""Changes of plan with a quote, played through all of billing in memory."""

from __future__ import annotations

from typing import Any

from billing.model import PlanChange, RelayState
from bot.dm.texts import render
from tests.world import World

DAY_S = 86400


async def have_relay(world: World, plan: str = "basic", name: str = "alice") -> None:
    """One relay that is paid and up, ten days into its period."""
    await world.connect_wallet()
    await world.orders.new(await world.command("new"), name, plan)
    await world.settle_down()
    await world.pass_time(10 * DAY_S, step=DAY_S)
    assert (await world.relays())[-1].state is RelayState.ACTIVE


async def ask(world: World, plan: str, name: str = "alice") -> tuple[str, dict[str, Any]]:
    await world.plan_desk.ask(await world.command("plan"), name, plan)
    await world.settle_down()
    return (await world.messages())[-1]


async def confirm(world: World, code: str) -> tuple[str, dict[str, Any]]:
    before = len(await world.messages())
    await world.plan_desk.confirm(await world.command("confirm"), code)
    reply = (await world.messages())[before]
    await world.settle_down()
    return reply


async def changes(world: World) -> list[PlanChange]:
    found = [
        change
        for relay in await world.relays()
        for change in await world.all(PlanChange, "plan_changes.of_relay", relay_id=relay.id)
    ]
    return sorted(found, key=lambda c: (c.created_at, c.id))


async def test_an_upgrade_is_quoted_confirmed_paid_over_nwc_and_only_then_applied(
    world: World,
) -> None:
    """Keysat's tier change (K): quote, invoice, applied on settle, the same object kept; M12."""
    await have_relay(world)
    kind, quote = await ask(world, "pro")
    assert kind == "plan_quote"
    assert 300 < quote["now_minor"] < 360
    assert quote["next_minor"] == 900
    (sub,) = world.stripe.books.subscriptions.values()
    assert quote["next_at"] == sub.period_end
    assert quote["code"] in render(kind, quote)
    assert [i.price.amount_minor for i in sub.items] == [400]

    world.payer.behaviour = "silent"
    (relay,) = await world.relays()
    assert (await confirm(world, quote["code"].lower()))[0] == "plan_confirmed"
    _, second = await world.invoices()
    assert (second.status, second.total_minor) == ("open", quote["now_minor"])
    assert not sub.pending
    assert (await world.relays())[0].plan == "basic"
    assert world.host.relays[relay.id].plan == "basic"

    (request,) = [r for r in await world.requests() if r.invoice_id == second.id]
    world.payee.settle(request.payment_hash)
    await world.pass_time(120, step=30)
    (after,) = await world.relays()
    assert (after.id, after.name, after.plan) == (relay.id, "alice", "pro")
    assert world.host.relays[relay.id].plan == "pro"
    said = [kind for kind, _ in await world.messages()]
    assert said[-2:] == ["invoice_paid", "plan_applied"]
    await world.pass_time(25 * DAY_S, step=DAY_S)
    assert [i.total_minor for i in await world.invoices()] == [400, quote["now_minor"], 900]
    assert len(world.stripe.books.subscriptions) == 1
