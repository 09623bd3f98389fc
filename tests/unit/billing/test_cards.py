"""The command `card`, what a card that came pays, one that went, one that is about to expire."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from billing.card_model import Card
from billing.card_pages import BACK_OFF_S, CardCommands
from billing.errors import StripeRejected, StripeUnavailable
from billing.model import InboxEvent, PaymentAttempt, Rail
from bot.control_events import EventControl
from bot.dm.texts import render
from tests.books import check_all, check_ledger
from tests.world import ALICE, OPERATOR, World

DAY_S = 86_400
GENERATOR = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
URI = f"nostr+walletconnect://{GENERATOR}?relay=wss%3A%2F%2Fr.example&secret={'12' * 32}"


async def ask(world: World) -> None:
    await world.card_commands.card(await world.command("card"))
    await world.settle_down()


async def order(world: World, name: str = "alice") -> None:
    await world.orders.new(await world.command("new"), name, "basic")
    await world.settle_down()


async def said(world: World, kind: str) -> list[dict[str, Any]]:
    """The facts of these messages, each of which has words."""
    found = [facts for name, facts in await world.messages() if name == kind]
    for facts in found:
        text = render(kind, facts)
        assert "None" not in text, text
        assert not set("{}") & set(text), text
    return found


async def card_of(world: World) -> Card:
    (card,) = await world.all(Card, "cards.get", tenant=ALICE)
    assert isinstance(card, Card)
    return card


async def card_tries(world: World) -> list[PaymentAttempt]:
    tries = []
    for invoice in await world.invoices():
        tries += [a for a in await world.attempts(invoice.id) if a.rail is Rail.CARD]
    return tries


def only_customer(world: World) -> Any:
    (customer,) = world.stripe.books.customers.values()
    return customer


async def session_of(world: World) -> str:
    """The last page that was sent."""
    url: str = (await said(world, "card_page"))[-1]["url"]
    return url.rpartition("/")[2]


# --- the command ---------------------------------------------------------------------------------


async def test_card_sends_a_link_and_says_how_long_it_works(world: World) -> None:
    await order(world)
    await ask(world)
    (page,) = await said(world, "card_page")
    assert page["url"] == "https://pages.example/bps_0001"
    assert (page["expires_at"], page["lasts_s"]) == (None, 300)
    kinds = [kind for kind, _ in await world.messages()]
    assert kinds.index("card_preparing") < kinds.index("card_page")


async def test_without_a_portal_it_is_a_checkout_page_with_its_end(world: World) -> None:
    world.stripe.has_portal = False
    await order(world)
    await ask(world)
    (page,) = await said(world, "card_page")
    assert page["url"] == "https://pages.example/cs_test_0001"
    assert page["expires_at"] == world.clock.billing_now() + DAY_S
    keys = [args["operation_id"] for name, args in world.stripe.calls if name.endswith("_page")]
    assert len(set(keys)) == len(keys) == 2, "M11: another call has another key"


async def test_asking_twice_at_once_gives_one_page(world: World) -> None:
    await order(world)
    await world.card_commands.card(await world.command("card"))
    await ask(world)
    assert len(await said(world, "card_preparing")) == 2
    assert len(await said(world, "card_page")) == 1
    await ask(world)
    assert len(await said(world, "card_page")) == 2, "later it is another"


async def test_a_stranger_gets_no_customer_at_stripe(world: World) -> None:
    await ask(world)
    assert [kind for kind, _ in await world.messages()] == ["no_tenant"]
    assert world.stripe.books.customers == {}


async def test_where_cards_are_not_taken_it_says_so(world: World) -> None:
    await order(world)
    world.card_commands = CardCommands(world.desk, takes_cards=False)
    await ask(world)
    assert len(await said(world, "no_cards")) == 1


async def test_stripe_away_is_waited_out_and_then_told(world: World) -> None:
    await order(world)

    def away(name: str, arguments: Any) -> None:
        if name.endswith("_page"):
            raise StripeUnavailable("cus", "no answer")

    world.stripe.before = away
    await ask(world)
    world.stripe.before = lambda name, arguments: None
    await world.pass_time(60, step=10)
    assert len(await said(world, "card_page")) == 1
    world.stripe.before = away
    await ask(world)
    await world.pass_time(sum(BACK_OFF_S) + 60, step=30)
    assert len(await said(world, "card_page_failed")) == 1
    alarms = [facts["what"] for _, facts in await world.messages(OPERATOR)]
    assert len([what for what in alarms if "leave a card" in what]) == 1
    world.stripe.before = lambda name, arguments: None
    await ask(world)
    assert len(await said(world, "card_page")) == 2


async def test_the_link_is_said_to_the_tenant_and_logged_nowhere(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    await order(world)
    await ask(world)
    assert "pages.example" not in capsys.readouterr().out


# --- what it pays --------------------------------------------------------------------------------


async def test_a_card_left_at_checkout_becomes_the_default_and_pays_what_is_open(
    world: World,
) -> None:
    """M4: the request that was shown dies first, then the card pays; nobody pays twice."""
    world.stripe.has_portal = False
    await order(world)
    await ask(world)
    left = world.stripe.complete(await session_of(world))
    await world.settle_down()
    assert only_customer(world).default_method == left
    (ready,) = await said(world, "card_ready")
    assert (ready["brand"], ready["last4"], ready["owes"]) == ("visa", "4242", True)
    assert await card_tries(world) == [], "M4: what was shown can still be paid"
    await world.pass_time(2 * 3600, step=300)
    (attempt,) = await card_tries(world)
    assert attempt.state == "settled"
    (invoice,) = await world.invoices()
    assert (invoice.status, invoice.paid_by) == ("paid", "card")
    assert (await world.relays())[0].state == "active"
    await check_all(world)


async def test_a_card_left_in_the_portal_pays_too(world: World) -> None:
    await order(world)
    await ask(world)
    world.stripe.complete(await session_of(world))
    await world.pass_time(2 * 3600, step=300)
    assert (await world.invoices())[0].paid_by == "card"
    assert "set_default_method" not in {name for name, _ in world.stripe.calls}


async def test_m4_a_card_waits_while_the_wallets_attempt_is_in_flight(world: World) -> None:
    await world.connect_wallet()
    world.payer.behaviour = "silent"
    await order(world)
    world.stripe.attach(only_customer(world).id)
    await world.settle_down()
    assert (await card_of(world)).method_id is not None
    assert await card_tries(world) == []
    # And the wallet pays in the end: the card is never asked.
    (request,) = await world.requests()
    world.payee.settle(request.payment_hash)
    await world.pass_time(3600, step=300)
    assert await card_tries(world) == []
    assert (await world.invoices())[0].paid_by == "nwc"
    await check_all(world)


async def test_another_card_is_tried_where_the_first_was_declined(world: World) -> None:
    """One try for each card, not one for each invoice."""
    await order(world)
    who = only_customer(world).id
    bad = world.stripe.attach(who, "decline")
    await world.pass_time(2 * 3600, step=300)
    assert [a.state for a in await card_tries(world)] == ["refused"]
    good = world.stripe.attach(who, "ok")
    await world.settle_down()
    assert only_customer(world).default_method == bad, "an attached one is no default"
    world.stripe.make_default(who, good)
    await world.pass_time(3 * 3600, step=300)
    assert [a.state for a in await card_tries(world)] == ["refused", "settled"]
    assert (await world.invoices())[0].status == "paid"
    await check_all(world)


async def test_the_same_card_is_not_tried_again(world: World) -> None:
    await order(world)
    world.stripe.attach(only_customer(world).id, "decline")
    await world.pass_time(20 * 3600, step=600)
    assert len(await card_tries(world)) == 1


async def test_m4_a_new_card_does_not_wait_for_stripes_next_try(world: World) -> None:
    """A card-only tenant's renewal is Stripe's; with a new card it is taken over and paid at once,
    unless Stripe is collecting it at this moment."""
    await order(world)
    who = only_customer(world).id
    old = world.stripe.attach(who)
    await world.pass_time(2 * 3600, step=300)
    (sub,) = world.stripe.books.subscriptions.values()
    world.stripe.behaviours[old] = "decline"
    world.stripe.make_default(who, old)
    await world.pass_time(sub.period_end - world.clock.billing_now() + 2 * 3600, step=3600)
    renewal = list(world.stripe.books.invoices.values())[-1]
    assert (renewal.status, renewal.auto_advance, renewal.attempts) == ("open", True, 1)
    new = world.stripe.attach(who)
    world.stripe.make_default(who, new)
    await world.pass_time(600, step=60)
    assert (renewal.status, renewal.auto_advance) == ("paid", False)
    await check_ledger(world)


# --- defaults ------------------------------------------------------------------------------------


async def test_an_attached_card_is_made_the_default_only_where_there_is_none(world: World) -> None:
    await order(world)
    who = only_customer(world).id
    first = world.stripe.attach(who)
    await world.settle_down()
    assert only_customer(world).default_method == first
    world.stripe.attach(who)
    await world.settle_down()
    assert only_customer(world).default_method == first
    assert len(await said(world, "card_ready")) == 1


async def test_m14_a_replayed_checkout_brings_no_old_card_back(world: World) -> None:
    world.stripe.has_portal = False
    await order(world)
    await ask(world)
    old = world.stripe.complete(await session_of(world))
    await world.settle_down()
    await ask(world)
    new = world.stripe.complete(await session_of(world))
    await world.settle_down()
    assert only_customer(world).default_method == new != old
    await EventControl(world.rt).replay([], since=0, only_failed=False)
    await world.settle_down()
    assert only_customer(world).default_method == new


async def test_m11_a_lost_answer_to_making_it_the_default_is_asked_again(world: World) -> None:
    await order(world)
    lost: list[str] = []

    def lose(name: str, arguments: Any) -> None:
        if name == "set_default_method" and not lost:
            lost.append(name)
            raise StripeUnavailable("cus", "no answer")

    world.stripe.after = lose
    left = world.stripe.attach(only_customer(world).id)
    await world.settle_down()
    await world.pass_time(60, step=10)
    assert (await card_of(world)).method_id == left
    assert len(await said(world, "card_ready")) == 1


async def test_a_card_that_no_event_told_of_is_seen_by_collection(world: World) -> None:
    """K3: what a webhook would have led to, its loss leads to as well."""
    await order(world)
    who = only_customer(world).id
    left = world.stripe.attach(who)
    world.stripe.make_default(who, left)
    world.stripe.books.events.clear()
    await world.pass_time(8 * 3600, step=1800)
    assert (await card_of(world)).method_id == left
    assert (await world.invoices())[0].status == "paid"


async def test_a_look_that_fails_is_repeated(world: World) -> None:
    await order(world)

    def broken(name: str, arguments: Any) -> None:
        if name == "payment_methods_of":
            raise StripeRejected("cus", "no", status=403, code=None, request_id=None)

    world.stripe.before = broken
    left = world.stripe.attach(only_customer(world).id)
    await world.settle_down()
    assert (await card_of(world)).look_attempts == 1
    world.stripe.before = lambda name, arguments: None
    await world.pass_time(60, step=10)
    card = await card_of(world)
    assert (card.method_id, card.look_attempts, card.look_due_at) == (left, 0, None)


# --- gone, expiring ------------------------------------------------------------------------------


async def test_status_names_the_card_that_pays(world: World) -> None:
    await order(world)
    await world.accounts.status(await world.command("status"))
    world.stripe.attach(only_customer(world).id)
    await world.settle_down()
    await world.accounts.status(await world.command("status"))
    before, after = [render("status", facts) for facts in await said(world, "status")]
    assert "Card" not in before
    assert "Card: Visa …4242." in after
    assert "come to you by message" not in after


@pytest.mark.parametrize("has_wallet", [False, True])
async def test_a_detached_card_is_told_with_what_pays_now(world: World, has_wallet: bool) -> None:
    if has_wallet:
        await world.connect_wallet()
    await order(world)
    left = world.stripe.attach(only_customer(world).id)
    await world.settle_down()
    world.stripe.detach(left)
    await world.settle_down()
    (gone,) = await said(world, "card_gone")
    assert (gone["last4"], gone["wallet"]) == ("4242", has_wallet)
    assert (await card_of(world)).method_id is None
    events = await world.all(InboxEvent, "events.newest", count=100)
    (detached,) = [e for e in events if e.type == "payment_method.detached"]
    assert detached.state == "handled"


async def renewing(world: World, expires: tuple[int, int]) -> str:
    """Alice with a paid relay and a card that expires so; returns the card."""
    await order(world)
    who = only_customer(world).id
    left = world.stripe.attach(who, expires=expires)
    await world.pass_time(2 * 3600, step=300)
    assert (await world.invoices())[0].status == "paid"
    return left


async def test_a_card_about_to_expire_is_told_once_before_the_renewal(world: World) -> None:
    now = datetime.fromtimestamp(world.clock.billing_now(), UTC)
    month = now.year * 12 + now.month - 1 + 3
    left = await renewing(world, (month % 12 + 1, month // 12))
    ends_at = int(datetime((month + 1) // 12, (month + 1) % 12 + 1, 1, tzinfo=UTC).timestamp())
    assert (await card_of(world)).warn_at == ends_at - 31 * DAY_S
    await world.pass_time(ends_at - 32 * DAY_S - world.clock.billing_now(), step=DAY_S // 2)
    assert await said(world, "card_expires") == []
    await world.pass_time(30 * DAY_S, step=DAY_S // 2)
    (told,) = await said(world, "card_expires")
    assert (told["ends_at"], told["is_over"], told["wallet"]) == (ends_at, False, False)
    assert told["renews_at"] <= ends_at, "before the first renewal that it cannot pay"
    # Another card, another warning in its time; this one is not told again.
    new = world.stripe.attach(only_customer(world).id)
    world.stripe.make_default(only_customer(world).id, new)
    world.stripe.detach(left)
    await world.pass_time(5 * DAY_S, step=DAY_S)
    assert len(await said(world, "card_expires")) == 1


async def test_a_card_that_expires_this_month_is_told_when_it_comes(world: World) -> None:
    now = datetime.fromtimestamp(world.clock.billing_now(), UTC)
    await renewing(world, (now.month, now.year))
    assert len(await said(world, "card_expires")) == 1
    who = only_customer(world).id
    world.stripe.books.tell_of("invoice.upcoming", {"object": "invoice", "customer": who})
    await world.settle_down()
    assert len(await said(world, "card_expires")) == 1


# --- a wallet comes ------------------------------------------------------------------------------


async def test_a_wallet_connected_pays_what_is_open(world: World) -> None:
    """M4: once what was shown to a person is dead."""
    await order(world)
    (shown,) = await world.requests()
    assert shown.shown_at is not None
    await world.wallet_commands.connect(await world.command("wallet"), URI)
    await world.settle_down()
    assert (await world.invoices())[0].status == "open"
    await world.pass_time(2 * 3600, step=300)
    assert (await world.invoices())[0].paid_by == "nwc"
    await check_all(world)
