"""What tests of dunning share: a tenant whose renewal is not paid, and ways to look at it."""

from __future__ import annotations

from typing import Any

from billing.dunning import DAY_S, Window
from billing.model import OutboxMessage, RelayState
from billing.unit import facts_of
from bot.dm.texts import render
from tests.fakes.stripe_books import Invoice as StripeInvoice
from tests.fakes.stripe_books import Subscription
from tests.world import ALICE, OPERATOR, World

HOUR_S = 3600
STEP_S = 6 * HOUR_S


async def order(world: World, name: str = "alice", plan: str = "basic") -> None:
    await world.orders.new(await world.command("new"), name, plan)
    await world.settle_down()


def subscription(world: World) -> Subscription:
    return list(world.stripe.books.subscriptions.values())[-1]


async def to_renewal(world: World) -> None:
    """To the end of the period and beyond: the draft is finalized, the rails are tried."""
    end = subscription(world).period_end
    await world.pass_time(end - world.clock.billing_now(), step=STEP_S)
    await world.pass_time(2 * HOUR_S, step=HOUR_S)


async def unpaid(world: World, *, card: bool = False) -> None:
    """A relay paid for a month, and a renewal that its wallet refuses or its card declines."""
    if card:
        await order(world)
        (customer,) = world.stripe.books.customers.values()
        world.stripe.set_card(customer.id, "ok")
        (request,) = await world.requests()
        world.payee.settle(request.payment_hash)
        await world.pass_time(60, step=10)
        world.stripe.set_card(customer.id, "decline")
    else:
        await world.connect_wallet()
        await order(world)
        await world.pass_time(30, step=10)
        world.payer.behaviour = "refuses"
    await to_renewal(world)


def renewal(world: World, index: int = 1) -> StripeInvoice:
    return list(world.stripe.books.invoices.values())[index]


async def days(world: World, count: float) -> None:
    await world.pass_time(int(count * DAY_S), step=STEP_S)


async def windows(world: World) -> list[Window]:
    return await world.all(Window, "dunning.everything_open")


async def window(world: World, invoice_id: str) -> Window:
    (found,) = await world.all(Window, "dunning.get", invoice_id=invoice_id)
    return found  # type: ignore[no-any-return]


async def said(world: World, *, all_of_it: bool = False) -> list[str]:
    """The kinds of what dunning told, each rendered as it is read."""
    return [kind for kind, _ in await told(world) if all_of_it or kind.startswith("dunning_")]


async def told(world: World) -> list[tuple[str, dict[str, Any]]]:
    found = await world.messages(ALICE)
    for kind, facts in found:
        assert render(kind, facts)
    return found


async def text_of(world: World, kind: str) -> str:
    """The last message of this kind, in words."""
    facts = [facts for name, facts in await told(world) if name == kind]
    return render(kind, facts[-1])


async def alarms(world: World) -> list[str]:
    rows = await world.all(OutboxMessage, "outbox.to_recipient", recipient=OPERATOR)
    return [str(facts_of(row.facts)["what"]) for row in rows]


async def state(world: World, index: int = 0) -> RelayState:
    return (await world.relays())[index].state
