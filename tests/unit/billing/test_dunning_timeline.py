"""The timeline of an unpaid renewal, on the real billing code: what it takes, and the way back."""

from __future__ import annotations

from typing import Any

from billing.dunning import DAY_S, Window
from billing.model import RelayState
from bot.dm.texts import render
from tests.world import ALICE, World

HOUR_S = 3600


async def unpaid(world: World) -> int:
    """A relay that was paid for a month, and a renewal whose wallet is empty. Returns T."""
    await world.connect_wallet()
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    await world.pass_time(30, step=10)
    world.payer.behaviour = "refuses"
    (sub,) = world.stripe.books.subscriptions.values()
    left = sub.period_end - world.clock.billing_now()
    await world.pass_time(left, step=6 * HOUR_S)
    return int(sub.period_start if sub.periods > 1 else sub.period_end)


async def windows(world: World) -> list[Window]:
    return await world.all(Window, "dunning.everything_open")


async def said(world: World) -> list[tuple[str, dict[str, Any]]]:
    found = await world.messages(ALICE)
    for kind, facts in found:
        render(kind, facts)
    return [(kind, facts) for kind, facts in found if kind.startswith("dunning_")]


async def state(world: World) -> RelayState:
    (relay,) = await world.relays()
    return relay.state


async def test_k5_the_whole_timeline_and_then_nothing_is_owed_or_invoiced_any_more(
    world: World,
) -> None:
    due_at = await unpaid(world)
    seen: dict[int, list[str]] = {}
    states: dict[int, str] = {}
    for day in range(40):
        await world.pass_time(DAY_S, step=6 * HOUR_S)
        seen[day] = [kind for kind, _ in await said(world)]
        states[day] = (await state(world)).value
    assert [kind for kind, _ in await said(world)] == [
        "dunning_due",
        "dunning_remind",
        "dunning_remind",
        "dunning_limit",
        "dunning_stop",
        "dunning_end",
    ]
    changes = [day for day in range(1, 40) if states[day] != states[day - 1]]
    assert [states[day] for day in changes] == ["limited", "stopped", "ended"]
    assert changes == [7, 10, 30]
    (sub,) = world.stripe.books.subscriptions.values()
    assert sub.status == "canceled"
    invoices = await world.invoices()
    assert invoices[0].status == "paid"
    assert {i.status for i in invoices[1:]} == {"void"}
    count = len(invoices)
    await world.pass_time(100 * DAY_S, step=12 * HOUR_S)
    assert len(await world.invoices()) == count
    assert due_at
