"""M1, M3, M4, M8, M10: a crash at any commit and any call loses no money and takes none twice."""

from __future__ import annotations

import os

import pytest

from billing.model import RelayState
from billing.store.migrate import migrate
from billing.store.open import open_engine
from tests.books import check_all
from tests.crashes import Crash, Tripwire
from tests.world import World

STRIDE = {
    "pays": 3,
    "pays_silently": 7,
    "refuses": 5,
    "silent": 8,
    "not_sent": 11,
    "no_wallet": 9,
}
"""What the tenant's wallet does → every how many-th step is tried: `PURSER_ALL_CRASHES=1` tries
each of the some 300, which takes a minute."""


async def story(behaviour: str, crash_at: int | None) -> tuple[World, Tripwire]:
    """Order with a wallet, crash once on the way, come back, and let a person pay what is shown."""
    engine = await open_engine(":memory:", driver="inline")
    await migrate(engine)
    wire = Tripwire(crash_at)
    world = World(engine, wire=wire)
    await world.start()
    if behaviour != "no_wallet":
        await world.connect_wallet()
    world.payer.behaviour = behaviour
    await world.orders.new(await world.command("new"), "alice", "basic")
    wire.is_armed = True
    try:
        await world.settle_down()
        world.clock.advance(3)
        await world.settle_down()
        await pay_by_hand(world)
        world.clock.advance(30)
        await world.settle_down()
    except Crash:
        world = await world.reborn()
    wire.is_armed = False
    for seconds in (10, 60, 600, 300, 300, 300, 120, 120, 120, 120, 60, 60, 60, 60, 60, 60):
        await world.pass_time(seconds, step=seconds)
        if await is_over(world):
            break
        await pay_by_hand(world)
    return world, wire


async def is_over(world: World) -> bool:
    relays, invoices = await world.relays(), await world.invoices()
    return [i.status for i in invoices] == ["paid"] and world.host.is_up(relays[0].id)


async def pay_by_hand(world: World) -> None:
    """A person pays the newest bolt11 they were told, while it can be paid and once only."""
    told = [facts for _, kind, facts in world.courier.said if kind == "pay_by_hand"]
    if not told or "paid" in [i.status for i in await world.invoices()]:
        return
    payment_hash = str(told[-1]["bolt11"]).removeprefix("lnbcrt1")
    if world.clock.now() < int(str(told[-1]["expires_at"])):
        if any(i.state == "settled" for i in world.payee.invoices.values()):
            return
        world.payee.settle(payment_hash)


async def ended_well(world: World) -> None:
    (invoice,) = await world.invoices()
    assert invoice.status == "paid"
    (relay,) = await world.relays()
    assert relay.state is RelayState.ACTIVE
    assert world.host.is_up(relay.id)
    assert len(await world.settlements()) == 1
    await check_all(world)
    await world.store.close()


@pytest.mark.parametrize("behaviour", STRIDE)
async def test_m1_a_crash_at_any_step_ends_in_one_payment(behaviour: str) -> None:
    world, wire = await story(behaviour, None)
    await ended_well(world)
    steps = list(wire.steps)
    assert len(steps) > 60
    stride = 1 if os.environ.get("PURSER_ALL_CRASHES") else STRIDE[behaviour]
    for crash_at in range(0, len(steps), stride):
        world, again = await story(behaviour, crash_at)
        assert again.steps[-1] == steps[crash_at], "the story is the same up to the crash"
        try:
            await ended_well(world)
        except BaseException as error:
            raise AssertionError(f"after a crash {steps[crash_at]} (step {crash_at})") from error
