"""Changes of plan with a quote, played through all of billing in memory."""

from __future__ import annotations

from typing import Any

from billing import plan_effects
from billing.errors import StripeUnavailable
from billing.model import RelayState
from billing.plan_changes import QUOTE_LIFE_S
from billing.plan_model import PlanChange
from billing.plans import Catalogue, Plan
from bot.dm.texts import render
from tests.unit.billing.conftest import MakeWorld
from tests.world import ALICE, OPERATOR, World

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


async def test_m12_an_unpaid_upgrade_is_undone_and_touches_only_itself(world: World) -> None:
    """The items go back without credit for time never paid, and its invoice is closed."""
    await have_relay(world)
    _, quote = await ask(world, "pro")
    world.payer.behaviour = "refuses"
    await confirm(world, quote["code"])
    assert (await world.invoices())[-1].status == "open"
    await world.pass_time(27 * 3600, step=1800)
    (sub,) = world.stripe.books.subscriptions.values()
    assert [(i.price.amount_minor, i.quantity) for i in sub.items] == [(400, 1)]
    assert not sub.pending
    assert sub.customer.balance_minor == 0
    assert [i.status for i in await world.invoices()] == ["paid", "void"]
    (relay,) = await world.relays()
    assert (relay.plan, relay.state) == ("basic", RelayState.ACTIVE)
    assert [c.state.value for c in await changes(world)] == ["undone"]
    assert "plan_undone" in [kind for kind, _ in await world.messages()]


async def test_m12_an_unpaid_upgrade_is_undone_before_the_renewal_has_its_price(
    make_world: MakeWorld,
) -> None:
    """Confirmed within a day of the renewal and not paid, it was undone after that was made: the
    tenant was asked for the dear plan's price, for a relay on the cheap one."""
    world = await make_world()
    world.catalogue = Catalogue(
        [Plan("basic", "Basic", 400, "usd"), Plan("pro", "Pro", 9000, "usd")]
    )
    world._build()
    await have_relay(world)
    (sub,) = world.stripe.books.subscriptions.values()
    await world.pass_time(sub.period_end - 8 * 3600 - world.clock.billing_now(), step=DAY_S)
    _, quote = await ask(world, "pro")
    world.payer.behaviour = "refuses"
    told = (await confirm(world, quote["code"]))[1]
    assert told["due_until"] == sub.period_end - 6 * 3600
    await world.pass_time(90 * 60, step=600)
    assert (await ask(world, "pro"))[0] == "plan_open"
    await world.pass_time(7 * 3600, step=1800)
    await world.pass_time(7200, step=1800)
    amounts = [(i.status, i.total_minor) for i in await world.invoices()]
    assert amounts == [("paid", 400), ("void", quote["now_minor"]), ("open", 400)]
    assert [c.state.value for c in await changes(world)] == ["undone"]


async def test_an_upgrade_just_before_a_renewal_waits_for_it(world: World) -> None:
    await have_relay(world)
    (sub,) = world.stripe.books.subscriptions.values()
    await world.pass_time(sub.period_end - 6 * 3600 - world.clock.billing_now(), step=DAY_S)
    kind, told = await ask(world, "pro")
    assert (kind, told["why"]) == ("plan_not_now", "before_renewal")
    assert "Ask again once it is renewed" in render(kind, told)
    await world.pass_time(9 * 3600, step=1800)
    assert (await ask(world, "pro"))[0] == "plan_quote"


async def test_m9_an_upgrade_paid_after_it_was_given_up_is_applied_at_no_further_cost(
    world: World,
) -> None:
    await have_relay(world)
    _, quote = await ask(world, "pro")
    world.payer.behaviour = "refuses"
    await confirm(world, quote["code"])
    await world.pass_time(22 * 3600, step=1800)
    (sub,) = world.stripe.books.subscriptions.values()
    invoice = list(world.stripe.books.invoices.values())[-1]
    (change,) = await changes(world)
    async with world.rt.unit() as unit:
        await plan_effects.give_up(unit, change, "for the test")
        await unit.tx.execute("invoices.want_collection", id=invoice.id, due_at=2**40)
    # Somebody marks it paid at Stripe before it is voided.
    world.stripe.books.mark_paid(invoice, off_stripe=True)
    await world.pass_time(3600, step=600)
    (relay,) = await world.relays()
    assert relay.plan == "pro"
    assert [(i.price.amount_minor, i.quantity) for i in sub.items] == [(900, 1)]
    assert not sub.pending
    assert len(await world.invoices()) == 2


async def test_a_downgrade_waits_for_the_periods_end_and_the_renewal_has_its_price(
    world: World,
) -> None:
    await have_relay(world, "pro")
    _, quote = await ask(world, "basic")
    assert (quote["now_minor"], quote["next_minor"]) == (0, 400)
    assert (await confirm(world, quote["code"]))[0] == "plan_scheduled"
    (sub,) = world.stripe.books.subscriptions.values()
    assert [i.price.amount_minor for i in sub.items] == [400]
    assert not sub.pending
    assert (await world.relays())[0].plan == "pro"
    await world.pass_time(25 * DAY_S, step=DAY_S)
    assert (await world.relays())[0].plan == "basic"
    assert [i.total_minor for i in await world.invoices()] == [900, 400]


async def test_a_stop_before_a_downgrade_gives_nothing_back_at_the_cheaper_price(
    make_world: MakeWorld,
) -> None:
    """The items have the next period's plan already: $9 were paid, and credit was a share of $4."""
    world = await make_world()
    world.stop_policy = "now_with_credit"
    world._build()
    await have_relay(world, "pro")
    _, quote = await ask(world, "basic")
    await confirm(world, quote["code"])
    await world.orders.stop(await world.command("stop"), "alice", confirmed=True)
    await world.settle_down()
    (sub,) = world.stripe.books.subscriptions.values()
    (relay,) = await world.relays()
    assert (relay.state, relay.plan, relay.stops_at) == (RelayState.ACTIVE, "pro", sub.period_end)
    assert sub.cancel_at_period_end
    assert sub.customer.balance_minor == 0


async def test_k11_a_downgrade_taken_back_costs_nothing(world: World) -> None:
    """K11: a scheduled change was overwritten by a second in silence."""
    await have_relay(world, "pro")
    _, quote = await ask(world, "basic")
    await confirm(world, quote["code"])
    kind, facts = await ask(world, "pro")
    assert kind == "plan_kept"
    assert facts["dropped"] == "Basic"
    (sub,) = world.stripe.books.subscriptions.values()
    assert [i.price.amount_minor for i in sub.items] == [900]
    assert not sub.pending
    await world.pass_time(25 * DAY_S, step=DAY_S)
    assert [i.total_minor for i in await world.invoices()] == [900, 900]


async def test_a_downgrade_to_free_ends_the_subscription_and_the_relay_goes_on(
    world: World,
) -> None:
    await have_relay(world)
    _, quote = await ask(world, "free")
    await confirm(world, quote["code"])
    await world.pass_time(40 * DAY_S, step=DAY_S)
    (sub,) = world.stripe.books.subscriptions.values()
    assert sub.status == "canceled"
    (relay,) = await world.relays()
    assert (relay.plan, relay.state) == ("free", RelayState.ACTIVE)
    assert world.host.is_up(relay.id)
    assert len(await world.invoices()) == 1
    # The end is what was asked for: nobody hears of a cancellation, or that the relay stops.
    assert "lapsing" not in [kind for kind, _ in await world.messages()]
    assert await world.messages(OPERATOR) == []


async def test_m12_from_a_free_plan_it_is_an_order_and_unpaid_it_stays_free(world: World) -> None:
    await world.orders.new(await world.command("new"), "alice", "free")
    await world.settle_down()
    _, quote = await ask(world, "basic")
    assert quote["now_minor"] == 400
    await confirm(world, quote["code"])
    (relay,) = await world.relays()
    assert (relay.plan, relay.state) == ("free", RelayState.ACTIVE)
    await world.pass_time(27 * 3600, step=1800)
    (relay,) = await world.relays()
    assert (relay.plan, relay.state) == ("free", RelayState.ACTIVE)
    assert [i.status for i in await world.invoices()] == ["void"]
    await world.connect_wallet()
    _, quote = await ask(world, "basic")
    await confirm(world, quote["code"])
    await world.pass_time(120, step=30)
    assert (await world.relays())[0].plan == "basic"
    await world.pass_time(32 * DAY_S, step=DAY_S)
    assert [i.total_minor for i in await world.invoices()] == [400, 400, 400]


async def test_an_offer_runs_out_and_a_used_one_says_so(world: World) -> None:
    await have_relay(world)
    _, quote = await ask(world, "pro")
    await world.pass_time(QUOTE_LIFE_S + 1, step=QUOTE_LIFE_S + 1)
    kind, facts = await confirm(world, quote["code"])
    assert (kind, facts["state"]) == ("offer_over", "expired")
    _, quote = await ask(world, "pro")
    await confirm(world, quote["code"])
    kind, facts = await confirm(world, quote["code"])
    assert kind == "offer_over"
    assert "applied" in facts["state"] or facts["state"] in ("ordered", "confirmed")
    assert len([c for c in await changes(world) if c.confirmed_at]) == 1


async def test_what_was_confirmed_is_done_at_that_price_or_offered_anew(world: World) -> None:
    """A renewal between the offer and its execution makes another price: the tenant is asked."""
    await have_relay(world)
    _, quote = await ask(world, "pro")
    (sub,) = world.stripe.books.subscriptions.values()
    away = ("update_items", "preview_change")

    def fails(name: str, arguments: Any) -> None:
        if name in away:
            raise StripeUnavailable("sub", "away")

    world.stripe.before = fails
    await confirm(world, quote["code"])
    world.clock.advance(sub.period_end - world.clock.billing_now() - 3600)
    await world.lease.take()
    world.stripe.before = lambda name, arguments: None
    sub.period_start, sub.period_end = sub.period_end, sub.period_end + 30 * DAY_S
    world.clock.advance(7200)
    await world.settle_down()
    assert (await world.relays())[0].plan == "basic"
    assert all(i.price.amount_minor == 400 for i in sub.items)


async def test_good_standing_gets_it_at_once_and_pays_with_the_renewal(
    make_world: MakeWorld,
) -> None:
    """M12 as the operator chose it: `provision = "good_standing"`."""
    world = await make_world()
    world.provision = "good_standing"
    world._build()
    await have_relay(world)
    _, quote = await ask(world, "pro")
    assert quote["later"]
    assert quote["now_minor"] == 0
    await confirm(world, quote["code"])
    assert (await world.relays())[0].plan == "pro"
    await world.orders.new(await world.command("new"), "berta", "basic")
    await world.settle_down()
    assert (await world.relays())[1].state is RelayState.ACTIVE
    assert len(await world.invoices()) == 1
    await world.pass_time(25 * DAY_S, step=DAY_S)
    first, renewal = await world.invoices()
    assert first.total_minor == 400
    # Pro and Basic for the next period, and both differences of the one before.
    assert 1300 + 300 + 250 < renewal.total_minor < 1300 + 360 + 300
    assert renewal.status == "paid"


async def test_who_owes_gets_nothing_in_advance(make_world: MakeWorld) -> None:
    world = await make_world()
    world.provision = "good_standing"
    world._build()
    await have_relay(world)
    world.payer.behaviour = "refuses"
    await world.pass_time(23 * DAY_S, step=DAY_S)
    assert (await world.invoices())[-1].status == "open"
    await world.orders.new(await world.command("new"), "berta", "basic")
    await world.settle_down()
    assert (await world.relays())[1].state is RelayState.PENDING_PAYMENT
    kind, facts = await ask(world, "pro")
    assert (kind, facts["why"]) == ("plan_not_now", "owed")


async def test_nobody_confirms_the_offer_of_another(world: World) -> None:
    await have_relay(world)
    _, quote = await ask(world, "pro")
    other = "b0" * 32
    await world.plan_desk.confirm(await world.command("confirm", other), quote["code"])
    await world.settle_down()
    assert (await world.messages(other))[-1][0] == "no_such_offer"
    assert (await world.relays())[0].plan == "basic"
    assert other != ALICE


async def test_m12_two_upgrades_at_once_each_wait_for_their_own_invoice(world: World) -> None:
    await have_relay(world)
    await world.orders.new(await world.command("new"), "berta", "basic")
    await world.settle_down()
    await world.pass_time(600, step=60)
    world.payer.behaviour = "refuses"
    for name in ("alice", "berta"):
        _, quote = await ask(world, "pro", name)
        await confirm(world, quote["code"])
    first, second = (await world.invoices())[-2:]
    assert {first.status, second.status} == {"open"}
    (request,) = [r for r in await world.requests() if r.invoice_id == second.id]
    world.payee.settle(request.payment_hash)
    await world.pass_time(120, step=30)
    plans = {r.name: r.plan for r in await world.relays()}
    assert plans == {"alice": "basic", "berta": "pro"}
    await world.pass_time(27 * 3600, step=1800)
    (sub,) = world.stripe.books.subscriptions.values()
    assert {i.price.amount_minor: i.quantity for i in sub.items} == {400: 1, 900: 1}
    assert not sub.pending
    assert [i.status for i in await world.invoices()][-2:] == ["void", "paid"]
    assert sub.customer.balance_minor == 0


async def test_an_order_beside_an_upgrade_that_nobody_pays(world: World) -> None:
    await have_relay(world)
    _, quote = await ask(world, "pro")
    world.payer.behaviour = "refuses"
    await confirm(world, quote["code"])
    world.payer.behaviour = "pays"
    await world.orders.new(await world.command("new"), "berta", "basic")
    await world.settle_down()
    await world.pass_time(120, step=30)
    assert (await world.relays())[1].state is RelayState.ACTIVE
    await world.pass_time(27 * 3600, step=1800)
    (sub,) = world.stripe.books.subscriptions.values()
    assert {i.price.amount_minor: i.quantity for i in sub.items} == {400: 2}
    assert [r.plan for r in await world.relays()] == ["basic", "basic"]


async def test_k11_a_stop_drops_the_offer_and_the_scheduled_change(world: World) -> None:
    await have_relay(world, "pro")
    _, quote = await ask(world, "basic")
    await confirm(world, quote["code"])
    await world.orders.stop(await world.command("stop"), "alice", confirmed=True)
    await world.settle_down()
    assert [c.state.value for c in await changes(world)] == ["cancelled"]
    await world.resumes.resume(await world.command("resume"), "alice")
    await world.settle_down()
    (sub,) = world.stripe.books.subscriptions.values()
    assert [i.price.amount_minor for i in sub.items] == [900]
    assert not sub.pending
    await world.pass_time(25 * DAY_S, step=DAY_S)
    assert [i.total_minor for i in await world.invoices()] == [900, 900]
