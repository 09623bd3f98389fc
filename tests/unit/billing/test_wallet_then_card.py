"""M4: a tenant with a wallet and a card is asked once over each, one after the other."""

from __future__ import annotations

from typing import Any

import pytest

from billing.model import PaymentRequest, Rail
from tests.books import check_all
from tests.fakes.stripe_books import Invoice as StripeInvoice
from tests.unit.billing.dunned import HOUR_S, order, renewal, subscription
from tests.world import World


class CardCalls:
    """Each `pay_by_card`, and what was known of the wallet's requests at that moment."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.made: list[tuple[int, list[PaymentRequest]]] = []
        world.stripe.before = self.seen

    async def seen(self, name: str, arguments: Any) -> None:
        if name == "pay_by_card":
            self.made.append((self.world.clock.now(), await self.world.requests()))


async def at_renewal(world: World, behaviour: str) -> tuple[StripeInvoice, CardCalls]:
    """A relay paid by its wallet, a good card beside it, and a renewal that the wallet does not
    pay. Stripe's draft would collect by itself."""
    await world.connect_wallet()
    await order(world)
    await world.pass_time(30, step=10)
    (customer,) = world.stripe.books.customers
    world.stripe.make_default(customer, world.stripe.attach(customer))
    world.payer.behaviour = behaviour
    calls = CardCalls(world)
    left_s = subscription(world).period_end - world.clock.billing_now()
    await world.pass_time(left_s, step=6 * HOUR_S)
    await world.pass_time(300, step=60)
    return renewal(world), calls


async def check_one_card_call(world: World, invoice: StripeInvoice, calls: CardCalls) -> None:
    """One hand-back by one call, after the death of all that was issued, and Stripe was never let
    loose to collect by itself."""
    ((called_at, requests),) = calls.made
    for request in requests:
        if request.invoice_id == invoice.id:
            assert request.state.value == "dead"
            assert called_at >= request.expires_at + request.margin_s
    assert [name for name, _ in world.stripe.calls].count("pay_by_card") == 1
    assert (invoice.status, invoice.auto_advance, invoice.attempts) == ("paid", False, 1)
    paid = next(i for i in await world.invoices() if i.id == invoice.id)
    assert (paid.status, paid.paid_by) == ("paid", "card")
    tries = [(a.rail, a.state.value) for a in await world.attempts(invoice.id)]
    assert [state for rail, state in tries if rail is Rail.CARD] == ["settled"]
    assert [rail for rail, _ in tries].count(Rail.NWC) == 1
    await check_all(world)


@pytest.mark.parametrize("behaviour", ["silent", "refuses"])
async def test_m4_after_the_wallet_the_card_pays_once_and_only_after_the_requests_death(
    world: World, behaviour: str
) -> None:
    """A card that never followed would stop a relay whose tenant can pay; one that followed at once
    could pay beside the wallet."""
    invoice, calls = await at_renewal(world, behaviour)
    (request,) = [r for r in await world.requests() if r.invoice_id == invoice.id]
    assert (request.state.value, request.shown_at) == ("open", None)
    assert (calls.made, invoice.auto_advance, invoice.attempts) == ([], False, 0)
    await world.pass_time(6 * HOUR_S, step=60)
    await check_one_card_call(world, invoice, calls)
    assert "pay_by_hand" not in [kind for kind, _ in await world.messages()]


@pytest.mark.parametrize("behaviour", ["silent", "refuses"])
async def test_m4_who_says_pay_with_a_wallet_and_a_card_is_charged_by_one_call(
    world: World, behaviour: str
) -> None:
    """`pay` shows a request or says that a payment is under way. Nobody pays it: the card is asked
    once after its death, however often `pay` was said."""
    invoice, calls = await at_renewal(world, behaviour)
    for _ in range(3):
        await world.accounts.pay(await world.command("pay"))
        await world.pass_time(60, step=30)
    said = [kind for kind, _ in await world.messages()]
    assert said.count("payment_under_way") == (3 if behaviour == "silent" else 0)
    assert said.count("pay_by_hand") == (0 if behaviour == "silent" else 3)
    assert (calls.made, invoice.auto_advance) == ([], False)
    await world.pass_time(6 * HOUR_S, step=60)
    await check_one_card_call(world, invoice, calls)
