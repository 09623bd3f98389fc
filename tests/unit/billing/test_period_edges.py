"""Commands in the last moments of a period, and renewals that Stripe made before it heard of them.

Each play advances the clock between the command and the workers: that is a second of a busy bot, or
hours of one that was away.
"""

from __future__ import annotations

import pytest

from billing.dunning import DAY_S
from billing.model import RelayState
from tests.unit.billing.dunned import (
    HOUR_S,
    days,
    order,
    renewal,
    state,
    subscription,
    text_of,
    to_renewal,
    unpaid,
)
from tests.unit.billing.test_plan_changes import ask, confirm, have_relay
from tests.world import World


async def to_just_before(world: World, seconds: int = 1) -> None:
    left = subscription(world).period_end - world.clock.billing_now() - seconds
    await world.pass_time(left, step=DAY_S)


async def over_the_end(world: World, seconds: int = 2) -> None:
    """Nobody works meanwhile; then everybody for a day."""
    world.clock.advance(seconds)
    await world.lease.take()
    await world.settle_down()
    await world.pass_time(DAY_S, step=HOUR_S)


async def billed(world: World) -> tuple[str, int]:
    """The plan that runs, and what the last invoice was over."""
    return (await world.relays())[0].plan, (await world.invoices())[-1].total_minor


async def test_m12_a_downgrade_is_not_taken_back_once_the_renewal_may_have_its_price(
    world: World,
) -> None:
    """Else a tenant pays the small plan's renewal and runs the large one, month after month."""
    await have_relay(world, "pro")
    _, quote = await ask(world, "basic")
    await confirm(world, quote["code"])
    await to_just_before(world)
    await world.plan_desk.ask(await world.command("plan"), "alice", "pro")
    await over_the_end(world)
    assert "neither made nor cancelled" in await text_of(world, "plan_not_now")
    assert await billed(world) == ("basic", 400)


async def test_a_downgrade_comes_too_late_for_a_renewal_that_is_being_made(world: World) -> None:
    """Else the renewal has the price of the plan that the relay then loses."""
    await have_relay(world, "pro")
    await to_just_before(world, HOUR_S + 300)
    _, quote = await ask(world, "basic")
    world.clock.advance(301)
    await world.plan_desk.confirm(await world.command("confirm"), quote["code"])
    assert (await world.messages())[-1][1]["why"] == "renewing"
    kind, facts = await ask(world, "free")
    assert (kind, facts["why"]) == ("plan_not_now", "renewing")
    await over_the_end(world, HOUR_S)
    assert await billed(world) == ("pro", 900)
    _, quote = await ask(world, "basic")
    assert (await confirm(world, quote["code"]))[0] == "plan_scheduled"


@pytest.mark.parametrize("card", [False, True])
@pytest.mark.parametrize("away_s", [2, 5 * HOUR_S])
async def test_a_renewal_made_for_a_relay_that_was_stopped_is_not_collected(
    world: World, card: bool, away_s: int
) -> None:
    if card:
        await order(world)
        (customer,) = world.stripe.books.customers.values()
        world.stripe.set_card(customer.id, "ok")
        (request,) = await world.requests()
        world.payee.settle(request.payment_hash)
        await world.pass_time(60, step=10)
    else:
        await have_relay(world)
    await to_just_before(world)
    await world.orders.stop(await world.command("stop"), "alice", confirmed=True)
    # Stripe charges a card an hour after it made the renewal: later there is nothing to prevent.
    await over_the_end(world, min(away_s, 1800) if card else away_s)
    assert await state(world) is RelayState.ENDED
    first, second = await world.invoices()
    assert (first.status, second.status) == ("paid", "void")
    assert len(world.payer.sent) == (0 if card else 1)
    assert subscription(world).cancel_at_period_end
    await days(world, 70)
    assert len(await world.invoices()) == 2


async def test_what_was_used_before_is_collected_although_nothing_runs_any_more(
    world: World,
) -> None:
    """A renewal that also bills time that is over, as with `good_standing`, stands."""
    await have_relay(world)
    await to_just_before(world)
    await world.orders.stop(await world.command("stop"), "alice", confirmed=True)
    world.clock.advance(2)
    await world.stripe.invoice(renewal(world, 0).id)
    second = renewal(world)
    assert second.covers[0] is not None
    second.covers = (second.covers[0] - 20 * DAY_S, second.covers[1])
    await over_the_end(world)
    assert [i.status for i in await world.invoices()] == ["paid", "paid"]


async def test_a_free_relay_is_on_no_renewal_and_never_dunned(world: World) -> None:
    """It touches only the relays on that invoice's lines."""
    await world.orders.new(await world.command("new"), "berta", "free")
    await world.settle_down()
    await unpaid(world)
    await days(world, 12)
    assert [await state(world, index) for index in (0, 1)] == [
        RelayState.ACTIVE,
        RelayState.STOPPED,
    ]
    await days(world, 25)
    assert [await state(world, index) for index in (0, 1)] == [RelayState.ACTIVE, RelayState.ENDED]
    assert "berta" not in await text_of(world, "dunning_end")


async def test_a_relay_that_becomes_free_with_the_renewal_is_not_on_it(world: World) -> None:
    await have_relay(world)
    await world.orders.new(await world.command("new"), "berta", "basic")
    await world.settle_down()
    _, quote = await ask(world, "free")
    await confirm(world, quote["code"])
    world.payer.behaviour = "refuses"
    await to_renewal(world)
    await days(world, 12)
    assert [(r.plan, r.state.value) for r in await world.relays()] == [
        ("free", "active"),
        ("basic", "stopped"),
    ]


async def test_written_off_at_stripe_it_can_still_be_paid_by_hand(world: World) -> None:
    """Stripe can be set to write invoices off after the last retry; dunning goes on, so must `pay`.
    Nothing of it is charged by itself any more."""
    await unpaid(world)
    renewal(world).status = "uncollectible"
    world.stripe.books.tell("invoice.marked_uncollectible", renewal(world))
    await days(world, 8)
    assert await state(world) is RelayState.LIMITED
    sent, asked = len(world.payer.sent), len(await world.requests())
    await world.accounts.status(await world.command("status"))
    assert (await world.messages())[-1][1]["owed"]
    await world.accounts.pay(await world.command("pay"))
    await world.settle_down()
    kind, facts = (await world.messages())[-1]
    assert facts["amount_minor"] == 400
    assert (kind, len(await world.requests())) == ("pay_by_hand", asked + 1)
    world.payee.settle((await world.requests())[-1].payment_hash)
    await world.pass_time(HOUR_S, step=600)
    assert renewal(world).status == "paid"
    assert await state(world) is RelayState.ACTIVE
    assert len(world.payer.sent) == sent
    await world.accounts.pay(await world.command("pay"))
    assert (await world.messages())[-1][0] == "nothing_to_pay"
