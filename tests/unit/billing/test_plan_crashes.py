"""M1, M11, M12: a crash at any commit and any call of a change of plan changes, and bills, once."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

import pytest

from billing.model import RelayState
from billing.store.migrate import migrate
from billing.store.open import open_engine
from tests.books import check_all
from tests.crashes import Crash, Tripwire
from tests.world import World

DAY_S = 86400
STRIDE = 9
"""Every how many-th step is tried; `PURSER_ALL_CRASHES=1` tries each."""

Act = Callable[[World], Awaitable[None]]


async def confirm_offer(world: World) -> None:
    """What was offered, if an offer is there: a person says it once more after a crash."""
    codes = [facts["code"] for kind, facts in await world.messages() if kind == "plan_quote"]
    if codes:
        await world.plan_desk.confirm(await world.command("confirm"), str(codes[-1]))


async def change_plan(world: World, plan: str) -> None:
    await world.plan_desk.ask(await world.command("plan"), "alice", plan)
    await world.settle_down()
    await confirm_offer(world)
    await world.settle_down()
    world.clock.advance(10)
    await world.settle_down()


async def upgrade(world: World) -> None:
    await change_plan(world, "pro")


async def downgrade(world: World) -> None:
    await change_plan(world, "basic")


async def stop_and_resume(world: World) -> None:
    await world.orders.stop(await world.command("stop"), "alice", confirmed=True)
    await world.settle_down()
    await world.resumes.resume(await world.command("resume"), "alice")
    await world.settle_down()


async def stop_with_credit(world: World) -> None:
    await world.orders.stop(await world.command("stop"), "alice", confirmed=True)
    await world.settle_down()


async def story(act: Act, plan: str, crash_at: int | None) -> tuple[World, Tripwire]:
    engine = await open_engine(":memory:", driver="inline")
    await migrate(engine)
    wire = Tripwire(crash_at)
    world = World(engine, wire=wire)
    if act is stop_with_credit:
        world.stop_policy = "now_with_credit"
        world._build()
    await world.start()
    await world.connect_wallet()
    await world.orders.new(await world.command("new"), "alice", plan)
    await world.settle_down()
    await world.pass_time(10 * DAY_S, step=5 * DAY_S)
    wire.is_armed = True
    try:
        await act(world)
    except Crash:
        world = await world.reborn()
    wire.is_armed = False
    for seconds in (10, 60, 60, 400):
        await world.pass_time(seconds, step=seconds)
        # What a person said to a bot that died they say once more.
        if act in (upgrade, downgrade):
            await confirm_offer(world)
        elif act is stop_and_resume:
            await world.resumes.resume(await world.command("resume"), "alice")
        else:
            await world.orders.stop(await world.command("stop"), "alice", confirmed=True)
    for _ in range(6):
        await world.pass_time(300, step=300)
        await pay_by_hand(world)
    return world, wire


async def pay_by_hand(world: World) -> None:
    """A person pays what they are shown: a request that may have been sent is not sent again."""
    for request in await world.requests():
        is_shown = request.state.value == "open" and request.shown_at is not None
        if is_shown and world.payee.invoices[request.payment_hash].state != "settled":
            world.payee.settle(request.payment_hash)


@pytest.mark.parametrize(
    ("act", "plan", "bills"),
    [
        (upgrade, "basic", [400, 337, 900]),
        (downgrade, "pro", [900, 400]),
        (stop_and_resume, "basic", [400, 400]),
        (stop_with_credit, "basic", [400, -271]),
    ],
)
async def test_m1_a_crash_at_any_step_changes_and_bills_once(
    act: Act, plan: str, bills: list[int]
) -> None:
    world, wire = await story(act, plan, None)
    whole = await ended(world, act)
    steps = list(wire.steps)
    assert len(steps) > 10
    stride = 1 if os.environ.get("PURSER_ALL_CRASHES") else STRIDE
    for crash_at in range(0, len(steps), stride):
        world, _ = await story(act, plan, crash_at)
        try:
            after = await ended(world, act)
            assert len(after) in (len(whole), len(whole) - 1)
            for mine, theirs in zip(after, whole, strict=False):
                assert abs(mine - theirs) <= 500
        except BaseException as error:
            raise AssertionError(f"after a crash {steps[crash_at]} (step {crash_at})") from error
    assert len(whole) == len(bills)
    assert all(abs(a - b) < 10 for a, b in zip(whole, bills, strict=True)), whole


async def ended(world: World, act: Act) -> list[int]:
    """The bills at the end of the period, all paid, and the books agree."""
    await world.pass_time(23 * DAY_S, step=DAY_S)
    invoices = await world.invoices()
    assert all(invoice.status == "paid" for invoice in invoices)
    (relay,) = await world.relays()
    subscriptions = list(world.stripe.books.subscriptions.values())
    assert len(subscriptions) == 1
    assert not subscriptions[0].pending
    if act is stop_with_credit:
        assert (relay.state, subscriptions[0].status) == (RelayState.ENDED, "canceled")
    else:
        assert relay.state is RelayState.ACTIVE
        (item,) = subscriptions[0].items
        assert item.price.lookup_key.startswith(f"purser_{relay.plan}_")
        assert item.quantity == 1
    await check_all(world)
    await world.store.close()
    return [invoice.total_minor for invoice in invoices]
