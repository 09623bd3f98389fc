"""The straight path and the ladder, on the real billing code and store (SQLite, inline)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from billing.model import RelayState
from billing.store.migrate import migrate
from billing.store.open import open_engine
from tests.world import ALICE, World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    engine = await open_engine(":memory:", driver="inline")
    await migrate(engine)
    made = World(engine)
    await made.start()
    yield made
    await engine.close()


async def order(world: World, name: str = "alice", plan: str = "basic") -> None:
    await world.orders.new(await world.command("new"), name, plan)


async def test_a_connected_wallet_pays_and_the_relay_comes_up(world: World) -> None:
    await world.connect_wallet()
    await order(world)
    await world.settle_down()
    await world.pass_time(10, step=2)
    (relay,) = await world.relays()
    (invoice,) = await world.invoices()
    assert invoice.status == "paid"
    assert invoice.paid_by == "nwc"
    assert relay.state is RelayState.ACTIVE
    assert world.host.is_up(relay.id)
    assert len(world.payer.sent) == 1
    kinds = [kind for kind, _ in await world.messages()]
    assert kinds == ["ordered", "invoice_paid", "relay_up"]


async def test_without_a_wallet_a_hand_payment_is_noticed_by_itself(world: World) -> None:
    """C13: a payment by hand was noticed only when somebody opened the page."""
    await order(world)
    await world.settle_down()
    (request,) = await world.requests()
    assert request.shown_at is not None
    kind, facts = (await world.messages())[-1]
    assert kind == "pay_by_hand"
    assert facts["amount_msat"] == 4_000_000
    assert (await world.relays())[0].state is RelayState.PENDING_PAYMENT
    await world.pass_time(600, step=30)
    world.payee.settle(request.payment_hash)
    await world.pass_time(60, step=30)
    (invoice,) = await world.invoices()
    assert invoice.status == "paid"
    assert invoice.paid_by == "manual"
    assert (await world.relays())[0].state is RelayState.ACTIVE


async def test_a_refusal_falls_to_the_manual_rail_with_the_same_request(world: World) -> None:
    """C2: every error became "pending", an empty wallet too: no other rail, no message."""
    await world.connect_wallet()
    world.payer.behaviour = "refuses"
    await order(world)
    await world.settle_down()
    (request,) = await world.requests()
    assert request.shown_at is not None
    kind, facts = (await world.messages())[-1]
    assert kind == "pay_by_hand"
    assert facts["why"] == "refused:INSUFFICIENT_BALANCE"
    assert facts["bolt11"] == request.bolt11
    world.payee.settle(request.payment_hash)
    await world.pass_time(60, step=10)
    assert (await world.invoices())[0].status == "paid"


async def test_m4_nothing_is_shown_and_no_rail_starts_while_a_payment_is_in_flight(
    world: World,
) -> None:
    """C3: a card or a hand and a wallet could both pay the same invoice."""
    await world.connect_wallet()
    world.payer.behaviour = "silent"
    await order(world)
    await world.settle_down()
    await world.accounts.pay(await world.command("pay"))
    await world.pass_time(600, step=60)
    kinds = [kind for kind, _ in await world.messages()]
    assert kinds == ["ordered", "payment_under_way"]
    assert len(world.payer.sent) == 1
    # lnd: dead five minutes after expiry and two look-ups; only then a person is shown another.
    await world.pass_time(1200, step=60)
    kinds = [kind for kind, _ in await world.messages()]
    assert "pay_by_hand" in kinds
    requests = await world.requests()
    assert [r.state.value for r in requests] == ["dead", "open"]


async def test_m9_money_for_a_dead_request_becomes_credit_after_the_other_was_paid(
    world: World,
) -> None:
    await world.connect_wallet()
    world.payer.behaviour = "silent"
    await order(world)
    await world.settle_down()
    await world.pass_time(1800, step=60)
    first, second = await world.requests()
    world.payee.settle(second.payment_hash)
    await world.pass_time(120, step=30)
    assert (await world.invoices())[0].status == "paid"
    world.payee.settle(first.payment_hash)
    await world.pass_time(2 * 86400, step=7200)
    states = {s.payment_hash: s.state.value for s in await world.settlements()}
    assert states == {first.payment_hash: "credited", second.payment_hash: "placed"}
    assert "credit_added" in [kind for kind, _ in await world.messages()]


async def test_c25_an_unpaid_order_ends_and_nothing_is_owed(world: World) -> None:
    """C25: the first invoice expired, the relay stayed on and was ordered anew: free hosting."""
    await order(world)
    await world.settle_down()
    for _ in range(52):
        await world.pass_time(1800, step=1800)
        (relay,) = await world.relays()
        assert not world.host.is_up(relay.id)
    assert relay.is_lapsed
    await world.pass_time(40 * 86400, step=86400)
    (invoice,) = await world.invoices()
    assert invoice.status == "void"
    assert len(world.stripe.books.subscriptions) == 1
    assert (await world.relays())[0].state is RelayState.ENDED


async def test_renewals_are_collected_month_by_month(world: World) -> None:
    await world.connect_wallet()
    await order(world)
    await world.settle_down()
    await world.pass_time(65 * 86400, step=6 * 3600)
    paid = await world.invoices()
    assert [invoice.status for invoice in paid] == ["paid"] * 3
    assert len(world.payer.sent) == 3
    assert ALICE


async def test_a_wallet_that_refused_is_asked_again_on_the_configured_days(world: World) -> None:
    world.collector.nwc_retry_after_s = (2 * 86400,)
    await world.connect_wallet()
    await order(world)
    await world.settle_down()
    await world.pass_time(60, step=10)
    world.payer.behaviour = "refuses"
    asked = []
    for _ in range(35):
        await world.pass_time(86400, step=6 * 3600)
        asked.append(len(world.payer.sent))
    days = [day for day in range(1, 35) if asked[day] > asked[day - 1]]
    assert len(days) == 2
    assert days[1] - days[0] == 2


async def test_m12_a_relay_stopped_on_a_shared_first_invoice_runs_to_the_end_of_what_was_paid(
    world: World,
) -> None:
    await order(world, "alice")
    await order(world, "berta")
    await world.settle_down()
    (invoice,) = await world.invoices()
    assert invoice.total_minor == 800
    await world.orders.stop(await world.command("stop"), "alice", confirmed=True)
    await world.settle_down()
    (request,) = await world.requests()
    world.payee.settle(request.payment_hash)
    await world.pass_time(60, step=10)
    alice, berta = await world.relays()
    assert world.host.is_up(alice.id)
    assert world.host.is_up(berta.id)
    assert alice.stops_at is not None
    await world.pass_time(33 * 86400, step=86400)
    alice, berta = await world.relays()
    assert alice.state is RelayState.ENDED
    assert berta.state is not RelayState.ENDED
    assert [i.total_minor for i in await world.invoices()] == [800, 400]


async def test_a_relay_alone_on_its_unpaid_invoice_ends_at_once_and_nothing_is_owed(
    world: World,
) -> None:
    await order(world)
    await world.settle_down()
    await world.orders.stop(await world.command("stop"), "alice", confirmed=True)
    await world.settle_down()
    (relay,) = await world.relays()
    assert relay.state is RelayState.ENDED
    await world.pass_time(2 * 3600, step=600)
    assert (await world.invoices())[0].status == "void"


async def test_who_asks_too_often_is_told_once_a_minute(world: World) -> None:
    for _ in range(25):
        await world.accounts.status(await world.command("status"))
    kinds = [kind for kind, _ in await world.messages()]
    assert kinds.count("too_many_commands") == 1
    assert kinds.count("no_tenant") == 20
