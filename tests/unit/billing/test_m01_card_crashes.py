"""M1, M4, M11, M14: a crash at any step of leaving a card ends with one card and one payment."""

from __future__ import annotations

import os

from billing.model import Rail, RelayState
from billing.store.migrate import migrate
from billing.store.open import open_engine
from tests.books import check_all
from tests.crashes import Crash, Tripwire
from tests.world import World

STRIDE = 17
"""`PURSER_ALL_CRASHES=1` tries each of the some 400 steps."""


async def story(crash_at: int | None) -> tuple[World, Tripwire]:
    """An order, a Checkout page, a card left there, paid with it once what was shown is dead."""
    engine = await open_engine(":memory:", driver="inline")
    await migrate(engine)
    wire = Tripwire(crash_at)
    world = World(engine, wire=wire)
    await world.start()
    world.stripe.has_portal = False
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    command = await world.command("card")
    wire.is_armed = True
    try:
        await world.card_commands.card(command)
        await world.settle_down()
        leave(world)
        await world.settle_down()
        for _ in range(14):
            world.clock.advance(600)
            await world.lease.renew()
            await world.settle_down()
    except Crash:
        world = await world.reborn()
        # The relay delivers what was not handled again.
        await world.card_commands.card(command)
    wire.is_armed = False
    await world.settle_down()
    leave(world)
    await world.pass_time(3 * 3600, step=600)
    return world, wire


def leave(world: World) -> None:
    """The person opens the newest link, unless a card was left before."""
    pages = world.stripe.pages
    urls = [facts["url"] for _, kind, facts in world.courier.said if kind == "card_page"]
    if urls and all(page.left is None for page in pages.values()):
        world.stripe.complete(str(urls[-1]).rpartition("/")[2])


async def ended_well(world: World) -> None:
    (invoice,) = await world.invoices()
    assert (invoice.status, invoice.paid_by) == ("paid", "card")
    (relay,) = await world.relays()
    assert relay.state is RelayState.ACTIVE
    tries = [a for a in await world.attempts(invoice.id) if a.rail is Rail.CARD]
    assert len(tries) <= 2, "one whose call was never made may be there too"
    assert world.stripe.books.invoices[invoice.id].attempts == 1, "charged once"
    kinds = [kind for kind, _ in await world.messages()]
    assert kinds.count("card_ready") == 1
    await check_all(world)
    await world.store.close()


async def test_m1_a_crash_at_any_step_leaves_one_card_and_one_charge() -> None:
    world, wire = await story(None)
    await ended_well(world)
    steps = list(wire.steps)
    assert len(steps) > 60
    assert any("set_default_method" in step for step in steps)
    stride = 1 if os.environ.get("PURSER_ALL_CRASHES") else STRIDE
    for crash_at in range(0, len(steps), stride):
        world, again = await story(crash_at)
        assert again.steps[-1] == steps[crash_at], "the story is the same up to the crash"
        try:
            await ended_well(world)
        except BaseException as error:
            raise AssertionError(f"after a crash {steps[crash_at]} (step {crash_at})") from error
