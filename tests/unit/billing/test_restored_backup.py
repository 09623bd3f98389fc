"""A backup put back, a lost database, a second bot: nothing is charged twice, nothing is lost.

Reference defects: an attempt forgotten by a restore and charged again (M1, M2), a customer made a
second time (M11), a paid relay that nobody knows any more (M13).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from billing import taken_up_later
from billing.errors import PurserError, StripeUnavailable
from billing.model import (
    AttemptState,
    Connection,
    Rail,
    RelayState,
    RequestState,
    SettlementState,
    Tenant,
)
from billing.other_life import PAYER_PREFIX
from billing.rails.card import LOST_REQUEST_S
from billing.rails.card_note import metadata_of_card
from billing.rebuild import Gated
from billing.store import tenants
from billing.store.engine import MigratableEngine
from billing.store.migrate import migrate
from billing.store.open import open_engine
from tests.books import check_all, check_books, check_one_payer_at_a_time
from tests.unit.billing.conftest import MakeWorld
from tests.world import ALICE, OPERATOR, World
from wallet.ports import Transaction


async def backup(world: World, path: Path) -> MigratableEngine:
    """The database as it is now, as another file."""
    driver = world.store._driver  # type: ignore[attr-defined]
    await driver.run("backup", lambda c: c.execute("VACUUM INTO ?", (str(path),)) and None)
    return await open_engine(str(path), driver="inline")


async def empty(world: World) -> MigratableEngine:
    engine = await open_engine(":memory:", driver="inline")
    await migrate(engine)
    return engine


async def reborn_on(world: World, engine: MigratableEngine) -> World:
    """As `World.reborn`, with the operator's wallet configured as the start of a bot does."""
    again = await world.reborn(engine, rebuild=False)
    if not await again.all(Connection, "connections.everything"):
        await again.start()
    return again


async def order(world: World, *, wallet: bool = True) -> None:
    if wallet:
        await world.connect_wallet()
    await world.orders.new(await world.command("new"), "alice", "basic")


async def come_to_an_end(world: World) -> None:
    for seconds in (60, 600, 300, 300, 300, 300, 600, 600):
        await world.pass_time(seconds, step=seconds)


def charges(world: World) -> int:
    return sum(i.state == "settled" for i in world.payee.invoices.values())


@pytest.mark.parametrize("behaviour", ["pays", "pays_silently", "silent"])
async def test_m1_a_backup_from_before_the_attempt_charges_nobody_twice(
    make_world: MakeWorld, tmp_path: Path, behaviour: str
) -> None:
    world = await make_world()
    world.payer.behaviour = behaviour
    await order(world)
    engine = await backup(world, tmp_path / "old.sqlite")
    await world.settle_down()
    assert len(world.payer.sent) == 1
    again = await reborn_on(world, engine)
    await again.rebuilder.run_once(again.clock.now())
    await again.settle_down()
    assert len(world.payer.sent) == 1, "nothing new while the old one can be paid"
    await come_to_an_end(again)
    check_one_payer_at_a_time(again)
    if behaviour != "silent":
        assert charges(again) == 1
        (relay,) = await again.relays()
        assert relay.state is RelayState.ACTIVE
        assert again.host.is_up(relay.id)
        await check_all(again)
    await engine.close()


async def test_m9_a_backup_older_than_the_watch_learns_of_every_invoice(
    make_world: MakeWorld, tmp_path: Path
) -> None:
    """Simulation seed 201: the restored database last saw anything 40 days ago, so looking back
    over the 30 days of the watch left a paid invoice out of its books for ever."""
    world = await make_world()
    await world.connect_wallet()
    engine = await backup(world, tmp_path / "old.sqlite")
    await order(world, wallet=False)
    await world.settle_down()
    await world.pass_time(600)
    (paid,) = await world.invoices()
    assert paid.status == "paid"
    world.clock.advance(40 * 86_400)
    again = await reborn_on(world, engine)
    await again.rebuilder.run_once(again.clock.now())
    assert paid.id in {invoice.id for invoice in await again.invoices()}
    await come_to_an_end(again)
    assert [m.invoice_id for m in await again.settlements()].count(paid.id) == 1
    await engine.close()


async def test_m13_after_a_restore_the_relay_host_is_told_everything_again(
    make_world: MakeWorld, tmp_path: Path
) -> None:
    """Simulation seed 106: the other life had stopped a relay that this database has running."""
    world = await make_world()
    await order(world)
    await world.settle_down()
    await world.pass_time(600)
    engine = await backup(world, tmp_path / "old.sqlite")
    (relay,) = await world.relays()
    await world.orders.new(await world.command("new"), "second", "basic")
    await world.settle_down()
    desired = world.keeper.desired(replace(relay, state=RelayState.ENDED))
    await world.host.apply(desired)
    assert not world.host.is_up(relay.id)
    again = await reborn_on(world, engine)
    assert await again.rebuilder.run_once(again.clock.now())
    await come_to_an_end(again)
    assert again.host.is_up(relay.id)
    await engine.close()


async def test_m9_money_placed_before_the_restore_does_not_become_credit_too(
    make_world: MakeWorld, tmp_path: Path
) -> None:
    """The backup knows the open request; the other life was paid by it and booked it."""
    world = await make_world()
    world.payer.behaviour = "silent"
    await order(world)
    await world.settle_down()
    engine = await backup(world, tmp_path / "old.sqlite")
    (request,) = await world.requests()
    world.payee.settle(request.payment_hash)
    await world.pass_time(600)
    assert [i.status for i in await world.invoices()] == ["paid"]
    again = await reborn_on(world, engine)
    await again.rebuilder.run_once(again.clock.now())
    await come_to_an_end(again)
    assert (await again.settlements())[0].target_invoice_id == request.invoice_id
    assert [name for name, _ in again.stripe.calls if name == "credit_customer"] == []
    await check_all(again)
    await engine.close()


async def test_m11_late_credit_given_before_the_restore_is_not_given_again(
    make_world: MakeWorld, tmp_path: Path
) -> None:
    world = await make_world()
    await order(world, wallet=False)
    await world.settle_down()
    (request,) = await world.requests()
    engine = await backup(world, tmp_path / "old.sqlite")
    operation = "op_by_hand"
    await world.stripe.pay_out_of_band(operation, request.invoice_id)
    world.payee.settle(request.payment_hash)
    await world.pass_time(600)
    (customer,) = world.stripe.books.customers.values()
    assert customer.balance_minor == -400
    again = await reborn_on(world, engine)
    await again.rebuilder.run_once(again.clock.now())
    await come_to_an_end(again)
    assert (await again.settlements())[0].credit_minor == 400
    assert customer.balance_minor == -400
    await engine.close()


async def test_m11_a_subscription_that_another_life_replaced_is_not_replaced_again(
    make_world: MakeWorld,
) -> None:
    """Simulation seed 7: the backup knows a first order that ran out; the tenant ordered again in
    the other life, and after the restore had two living subscriptions, both charged."""
    world = await make_world()
    await order(world)
    await world.settle_down()
    books = world.stripe.books
    (old,) = books.subscriptions.values()
    old.status = "incomplete_expired"
    await world.stripe.create_subscription(
        "op_of_another_life",
        customer_id=old.customer.id,
        quantities={old.items[0].price.id: 1},
        metadata=old.metadata,
    )
    async with world.rt.unit() as unit:
        await tenants.want_sync(unit.tx, ALICE, due_at=unit.now)
    await world.settle_down()
    living = [s.id for s in books.subscriptions.values() if not s.is_terminal]
    assert len(living) == 1
    (tenant,) = await world.all(Tenant, "tenants.everyone")
    assert tenant.subscription_id == living[0]


async def test_m9_two_bots_that_hold_the_same_money_book_it_once(
    make_world: MakeWorld, tmp_path: Path
) -> None:
    """Simulation seed 40: a copy marked the invoice paid between our note and our call. Ours was
    refused, taken for the Dashboard's haste, and the same money became credit as well."""
    world = await make_world()
    await order(world, wallet=False)
    await world.settle_down()
    (request,) = await world.requests()
    engine = await backup(world, tmp_path / "copy.sqlite")
    other = await reborn_on(world, engine)
    await other.rebuilder.run_once(other.clock.now())
    world.payee.settle(request.payment_hash)
    await world.lease.take()
    ran = False

    async def before(name: str, arguments: object) -> None:
        nonlocal ran
        if name == "pay_out_of_band" and not ran:
            ran = True
            await other.settle_down()

    world.stripe.before = before
    await world.pass_time(600, step=60)
    assert ran
    for each in (world, other):
        await come_to_an_end(each)
        (money,) = await each.settlements()
        assert (money.state, money.credit_minor) == ("placed", 0)
    assert [name for name, _ in world.stripe.calls if name == "credit_customer"] == []
    await engine.close()


async def paid_to_a_copy(world: World, tmp_path: Path) -> tuple[World, MigratableEngine]:
    """A copy beside us made the request, was paid and marked it: the copy and its database."""
    await world.rebuilder.run_once(world.clock.now())
    await order(world, wallet=False)
    await world.sync.run_once(world.clock.now())
    engine = await backup(world, tmp_path / "copy.sqlite")
    other = await reborn_on(world, engine)
    await other.rebuilder.run_once(other.clock.now())
    await other.settle_down()
    (request,) = await other.requests()
    other.payee.settle(request.payment_hash)
    await other.pass_time(300, step=60)
    return other, engine


async def test_m9_what_a_copy_beside_us_was_paid_is_booked_here_while_we_run(
    make_world: MakeWorld, tmp_path: Path
) -> None:
    """The copy made the request, was paid and marked the invoice: ours heard of a paid invoice and
    had no money for it in its books (simulation seeds 3438 and 5047)."""
    world = await make_world()
    other, engine = await paid_to_a_copy(world, tmp_path)
    (request,) = await other.requests()
    assert [i.status for i in await other.invoices()] == ["paid"]
    await world.lease.take()
    await world.settle_down()
    assert await world.rebuilder.run_once(world.clock.now()) == 1
    await world.settle_down()
    (money,) = await world.settlements()
    assert (money.payment_hash, money.state) == (request.payment_hash, "placed")
    async with world.rt.unit() as unit:
        assert not await taken_up_later.waiting(unit.tx)
    await check_books(world)
    await engine.close()


async def test_one_hash_that_our_wallet_cannot_judge_holds_up_no_start(
    make_world: MakeWorld, tmp_path: Path
) -> None:
    """It waits for its turn over restarts; a start that asked about it first charged nothing, for
    as long as the wallet had an error for that hash."""
    world = await make_world()
    _, engine = await paid_to_a_copy(world, tmp_path)
    await world.lease.take()
    await world.settle_down()
    world.payee.down = True
    await world.pass_time(2 * 86_400, step=21_600)
    await world.reconciler.run_once(world.clock.now())
    again = await world.reborn(rebuild=False)
    again.payee.down = True
    await again.rebuilder.run_once(again.clock.now())
    assert again.rebuilder.done
    async with again.rt.unit() as unit:
        assert await taken_up_later.waiting(unit.tx)
    again.payee.down = False
    assert await again.rebuilder.run_once(again.clock.now()) == 1
    await engine.close()


@pytest.mark.parametrize("home", ["credit", "another invoice"])
async def test_m9_money_that_found_its_home_before_the_restore_pays_nothing_else(
    make_world: MakeWorld, tmp_path: Path, home: str
) -> None:
    """Simulation seed 10: credited in the other life, and after the restore it paid the tenant's
    next invoice as well."""
    world = await make_world()
    await order(world, wallet=False)
    await world.settle_down()
    (request,) = await world.requests()
    books = world.stripe.books
    (sub,) = books.subscriptions.values()
    engine = await backup(world, tmp_path / "old.sqlite")
    await world.stripe.void_invoice("op_by_hand", request.invoice_id)
    sub.status = "active"
    if home == "another invoice":
        other = books.draft(sub.customer, sub, [400], "manual", False)
        books.finalize(other)
        await world.reconciler.run_once(world.clock.now())
        await world.settle_down()
    world.payee.settle(request.payment_hash)
    await world.pass_time(600)
    placed = sum(i.off_stripe for i in books.invoices.values()) - sub.customer.balance_minor
    assert placed == 400
    # What credit leaves of it is just what the money could pay.
    owed = books.draft(sub.customer, sub, [800 if home == "credit" else 400], "manual", False)
    books.finalize(owed)
    again = await reborn_on(world, engine)
    await again.rebuilder.run_once(again.clock.now())
    await come_to_an_end(again)
    assert owed.status == "open", "paid by money that was spent before"
    assert sum(i.off_stripe for i in books.invoices.values()) <= 400
    await engine.close()


async def test_m9_money_that_had_lost_its_target_is_found_where_another_life_placed_it(
    make_world: MakeWorld, tmp_path: Path
) -> None:
    """Simulation seed 4163: in the backup the money had aimed at an invoice that was voided. That
    one's calls were taken for a payment of this life, and the money became credit as well."""
    world = await make_world()
    await order(world, wallet=False)
    await world.settle_down()
    (request,) = await world.requests()
    books = world.stripe.books
    (sub,) = books.subscriptions.values()
    world.payee.settle(request.payment_hash)
    world.stripe.before = _unavailable("annotate_invoice")
    await world.pass_time(120, step=30)
    world.stripe.before = lambda name, arguments: None
    await world.stripe.void_invoice("op_by_hand", request.invoice_id)
    sub.status = "active"
    world.clock.advance(300)
    await world.placer.run_once(world.clock.now())
    (money,) = await world.settlements()
    assert (money.state, money.target_invoice_id) == (SettlementState.RECEIVED, None)
    engine = await backup(world, tmp_path / "old.sqlite")
    other = books.draft(sub.customer, sub, [400], "manual", False)
    books.finalize(other)
    await world.reconciler.run_once(world.clock.now())
    await world.pass_time(600)
    assert (other.status, other.off_stripe) == ("paid", 400)
    again = await reborn_on(world, engine)
    await again.rebuilder.run_once(again.clock.now())
    await come_to_an_end(again)
    assert (await again.settlements())[0].target_invoice_id == other.id
    assert sub.customer.balance_minor == 0
    await engine.close()


async def test_m9_a_note_of_ours_that_comes_late_is_no_other_life(make_world: MakeWorld) -> None:
    """It was on its way when the Dashboard marked the invoice paid, and the money aimed anew: that
    invoice was not paid with this money, whatever stands on it now."""
    world = await make_world()
    await order(world, wallet=False)
    await world.settle_down()
    (request,) = await world.requests()
    (sub,) = world.stripe.books.subscriptions.values()
    at_stripe = world.stripe.books.invoices[request.invoice_id]
    late: list[dict[str, str]] = []

    def lose(name: str, arguments: Mapping[str, Any]) -> None:
        if name == "annotate_invoice" and PAYER_PREFIX in str(arguments) and not late:
            late.append(dict(arguments["metadata"]))
            raise StripeUnavailable(name, "timeout")

    world.stripe.before = lose
    world.payee.settle(request.payment_hash)
    for _ in range(60):
        await world.resolver.run_once(world.clock.now())
        await world.placer.run_once(world.clock.now())
        if late:
            break
        world.clock.advance(5)
    world.stripe.books.mark_paid(at_stripe, off_stripe=True)
    world.clock.advance(5)
    await world.placer.run_once(world.clock.now())
    (money,) = await world.settlements()
    assert (money.state, money.target_invoice_id) == (SettlementState.RECEIVED, None)
    at_stripe.metadata.update(late[0])
    await world.pass_time(1800, step=60)
    assert sub.customer.balance_minor == -400


def _unavailable(call: str) -> Callable[[str, Mapping[str, Any]], None]:
    def before(name: str, arguments: Mapping[str, Any]) -> None:
        if name == call:
            raise StripeUnavailable(name, "503")

    return before


@pytest.mark.parametrize("lost", ["everything", "the tenant"])
async def test_m13_a_tenant_nobody_remembers_keeps_what_was_paid(
    make_world: MakeWorld, tmp_path: Path, lost: str
) -> None:
    world = await make_world()
    before = await backup(world, tmp_path / "old.sqlite")
    await order(world)
    await world.settle_down()
    (was,) = await world.relays()
    engine = before if lost == "the tenant" else await empty(world)
    again = await reborn_on(world, engine)
    await again.rebuilder.run_once(again.clock.now())
    (relay,) = await again.relays()
    assert (relay.id, relay.name, relay.state) == (was.id, "alice", RelayState.ACTIVE)
    (request,) = await again.requests()
    assert request.state is RequestState.SETTLED
    await come_to_an_end(again)
    assert len(again.stripe.books.customers) == len(again.stripe.books.subscriptions) == 1
    assert len(world.payer.sent) == charges(again) == 1
    await check_all(again)
    # The order is read again from the inbox relays: the name is theirs already.
    await again.orders.new(await again.command("new"), "alice", "basic")
    await come_to_an_end(again)
    assert len(again.stripe.books.invoices) == 1
    await before.close()
    await engine.close()


async def test_an_empty_database_takes_up_an_unpaid_order(make_world: MakeWorld) -> None:
    world = await make_world()
    await order(world, wallet=False)
    await world.settle_down()
    (request,) = await world.requests()
    again = await reborn_on(world, await empty(world))
    await again.rebuilder.run_once(again.clock.now())
    (relay,) = await again.relays()
    assert relay.state is RelayState.PENDING_PAYMENT
    again.payee.settle(request.payment_hash)
    await come_to_an_end(again)
    assert again.host.is_up(relay.id)
    assert len(again.payee.invoices) == 1
    await check_all(again)
    await again.store.close()


async def test_relays_that_stripe_does_not_name_are_asked_of_the_operators(
    make_world: MakeWorld,
) -> None:
    world = await make_world()
    await order(world)
    await world.settle_down()
    for sub in world.stripe.books.subscriptions.values():
        sub.metadata.pop("relay_alice", None)
    for invoice in world.stripe.books.invoices.values():
        invoice.metadata.pop("relay_alice", None)
    again = await reborn_on(world, await empty(world))
    await again.rebuilder.run_once(again.clock.now())
    alarms = [str(f["what"]) for k, f in await again.messages("0e" * 32) if k == "operator_alarm"]
    assert any("does not know: 1 on basic" in what for what in alarms)
    await again.store.close()


async def test_nothing_is_charged_until_our_wallet_has_said_what_was_paid(
    make_world: MakeWorld, tmp_path: Path
) -> None:
    world = await make_world()
    world.payer.behaviour = "pays_silently"
    await order(world)
    engine = await backup(world, tmp_path / "old.sqlite")
    await world.settle_down()
    again = await reborn_on(world, engine)
    gated = Gated(again.sync, again.rebuilder)
    again.payee.down = True
    with pytest.raises(PurserError):
        await again.rebuilder.run_once(again.clock.now())
    calls = len(again.stripe.calls)
    assert await gated.run_once(again.clock.now()) == 0
    assert len(again.stripe.calls) == calls
    again.payee.down = False
    await again.rebuilder.run_once(again.clock.now())
    assert await gated.run_once(again.clock.now()) == 1
    await engine.close()


async def test_m9_what_waits_for_another_request_is_taken_up_after_a_restart_too(
    make_world: MakeWorld, tmp_path: Path
) -> None:
    """The invoice is paid at Stripe by a later request; the one in the backup is still open there,
    and the bot stops before that is decided (simulation seed 2053)."""
    world = await make_world()
    await order(world, wallet=False)
    await world.settle_down()
    engine = await backup(world, tmp_path / "old.sqlite")
    await world.pass_time(3900, step=300)
    await world.accounts.pay(await world.command("pay"))
    await world.settle_down()
    (_, second) = await world.requests()
    world.payee.settle(second.payment_hash)
    await world.pass_time(120, step=60)
    assert (await world.invoices())[0].status == "paid"
    await world.pass_time(86_400, step=21_600)
    again = await reborn_on(world, engine)
    await again.rebuilder.run_once(again.clock.now())
    async with again.rt.unit() as unit:
        assert await taken_up_later.waiting(unit.tx)
    await again.reconciler.run_once(again.clock.now())
    await again.events.run_once(again.clock.now())
    assert (await again.invoices())[0].status == "paid"
    last = await again.reborn()
    await come_to_an_end(last)
    await last.rebuilder.run_once(last.clock.now())
    await come_to_an_end(last)
    (money,) = await last.settlements()
    assert (money.payment_hash, money.state, money.credit_minor) == (
        second.payment_hash,
        "placed",
        0,
    )
    await engine.close()


async def test_m9_money_that_our_wallet_holds_for_a_void_invoice_is_watched_after_a_restore(
    make_world: MakeWorld, tmp_path: Path
) -> None:
    """Paid in the last second, held beyond expiry and margin, and voided by hand meanwhile: the
    hash is neither settled nor open, and no rail looks at its invoice (simulation seed 5003)."""
    world = await make_world()
    engine = await backup(world, tmp_path / "old.sqlite")
    await order(world, wallet=False)
    await world.settle_down()
    (request,) = await world.requests()
    world.payee.invoices[request.payment_hash].state = "accepted"
    world.clock.advance(request.expires_at + request.margin_s + 60 - world.clock.now())
    (at_stripe,) = world.stripe.books.invoices.values()
    world.stripe.books.void(at_stripe)
    again = await reborn_on(world, engine)
    await again.rebuilder.run_once(again.clock.now())
    assert [r.payment_hash for r in await again.requests()] == [request.payment_hash]
    await come_to_an_end(again)
    again.payee.settle(request.payment_hash)
    await come_to_an_end(again)
    (money,) = await again.settlements()
    assert (money.payment_hash, money.credit_minor) == (request.payment_hash, 400)
    await engine.close()


async def test_a_whole_database_is_only_read(make_world: MakeWorld) -> None:
    world = await make_world()
    await order(world)
    await world.settle_down()
    before = len(world.stripe.calls)
    assert await world.rebuilder.run_once(world.clock.now()) == 0
    names = [name for name, _ in world.stripe.calls[before:]]
    assert set(names) == {"subscription_page", "invoice_page"}
    assert not [k for k, _ in await world.messages("0e" * 32) if k == "operator_alarm"]


@pytest.mark.parametrize("behaviour", ["pays", "silent", "refuses"])
async def test_m2_a_second_bot_on_a_copy_beside_us_never_sends_beside_our_request(
    make_world: MakeWorld, tmp_path: Path, behaviour: str
) -> None:
    """Both run, turn by turn, on the same Stripe, wallets and tenants."""
    world = await make_world()
    world.payer.behaviour = behaviour
    await order(world)
    await world.sync.run_once(world.clock.now())
    engine = await backup(world, tmp_path / "copy.sqlite")
    other = await reborn_on(world, engine)
    await other.rebuilder.run_once(other.clock.now())
    for _ in range(40):
        for bot in (world, other):
            await bot.lease.renew() or await bot.lease.take()
            await bot.settle_down()
        world.clock.advance(60)
    check_one_payer_at_a_time(world)
    assert charges(world) == (behaviour == "pays")
    if behaviour == "pays":
        for bot in (world, other):
            assert [i.status for i in await bot.invoices()] == ["paid"]
            await check_books(bot)
    await engine.close()


async def test_m2_of_two_notes_at_once_one_is_not_sent(
    make_world: MakeWorld, tmp_path: Path
) -> None:
    """The other bot issues between our look at the invoice and our note on it."""
    world = await make_world()
    await order(world)
    await world.sync.run_once(world.clock.now())
    engine = await backup(world, tmp_path / "copy.sqlite")
    other = await reborn_on(world, engine)
    ran = False

    async def before(name: str, arguments: object) -> None:
        nonlocal ran
        if name == "annotate_invoice" and not ran:
            ran = True
            await other.settle_down()

    world.stripe.before = before
    await world.lease.take()
    (invoice,) = await world.invoices()
    with pytest.raises(PurserError, match="another bot"):
        await world.collector.visit(invoice.id)
    assert ran
    assert len(world.payer.sent) == 1
    await engine.close()
    assert await world.relays(ALICE)


async def card_and_wallet(world: World, path: Path) -> World:
    """One bot has the tenant's card only; the one on the copy their wallet too."""
    await order(world, wallet=False)
    await world.deliver_events()
    await world.sync.run_once(world.clock.now())
    (customer,) = world.stripe.books.customers.values()
    world.stripe.set_card(customer.id, "ok")
    other = await reborn_on(world, await backup(world, path))
    await other.connect_wallet()
    return other


def is_charged_by_card(world: World) -> bool:
    return "pay_by_card" in [name for name, _ in world.stripe.calls]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("where", ["annotate_invoice", "pay_by_card"])
async def test_m1_m4_card_and_wallet_of_two_bots_in_the_same_second_charge_once(
    make_world: MakeWorld, tmp_path: Path, where: str, when: str
) -> None:
    """The bot on the copy does all that it can, between any two steps of our card payment."""
    world = await make_world()
    other = await card_and_wallet(world, tmp_path / "copy.sqlite")
    ran = False

    async def meanwhile(name: str, arguments: object) -> None:
        nonlocal ran
        if name == where and not ran:
            ran = True
            await other.lease.take()
            await other.settle_down()
            await world.lease.take()

    setattr(world.stripe, when, meanwhile)
    await world.lease.take()
    await world.deliver_events()
    await world.settle_down()
    assert ran
    charged = [is_charged_by_card(world), bool(world.payer.sent)]
    assert charged.count(True) == 1, charged
    for _ in range(40):
        for bot in (world, other):
            await bot.lease.renew() or await bot.lease.take()
            await bot.settle_down()
        world.clock.advance(60)
    check_one_payer_at_a_time(world)
    assert [is_charged_by_card(world), bool(world.payer.sent)].count(True) == 1
    for bot in (world, other):
        assert [i.status for i in await bot.invoices()] == ["paid"]
    await check_books(other)
    await other.store.close()


async def test_m4_a_card_noted_before_the_restore_keeps_the_wallet_away_until_its_end(
    make_world: MakeWorld, tmp_path: Path
) -> None:
    """The other life's `pay` is still on its way to Stripe, which shows nothing of it yet."""
    world = await make_world()
    again = await card_and_wallet(world, tmp_path / "old.sqlite")
    (invoice,) = world.stripe.books.invoices.values()
    invoice.metadata |= metadata_of_card("op_of_another_life", at=world.clock.now())
    await again.rebuilder.run_once(again.clock.now())
    await again.settle_down()
    (attempt,) = await again.attempts(invoice.id)
    assert (attempt.rail, attempt.state) == (Rail.CARD, AttemptState.IN_FLIGHT)
    await again.pass_time(LOST_REQUEST_S - 60, step=120)
    assert not again.payer.sent
    assert not await again.requests()
    alarms = [str(facts["what"]) for _, facts in await again.messages(OPERATOR)]
    assert len([what for what in alarms if "note of a card payment" in what]) == 1
    await again.pass_time(300, step=60)
    assert len(again.payer.sent) == 1
    assert [i.status for i in await again.invoices()] == ["paid"]
    await check_books(again)
    await again.store.close()


async def test_m9_money_by_a_hash_that_nobody_noted_finds_its_invoice(
    make_world: MakeWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The note at Stripe is gone; the wallet's list still says which invoice was paid."""
    world = await make_world()
    await order(world, wallet=False)
    await world.sync.run_once(world.clock.now())
    engine = await backup(world, tmp_path / "old.sqlite")
    await world.settle_down()
    (request,) = await world.requests()
    (at_stripe,) = world.stripe.books.invoices.values()
    at_stripe.metadata = {k: v for k, v in at_stripe.metadata.items() if "purser_ln" not in k}
    world.payee.settle(request.payment_hash)
    again = await reborn_on(world, engine)
    told = await again.payee.lookup_invoice(request.payment_hash)
    assert isinstance(told, Transaction)

    async def listed(since: int) -> list[Transaction]:
        return [replace(told, bolt11=request.bolt11)]

    again.payee.list_incoming = listed  # type: ignore[assignment,method-assign]
    decoded = again.payee.invoices[request.payment_hash].bolt11
    monkeypatch.setattr("billing.sweep.decode", lambda text: decoded)
    await again.rebuilder.run_once(again.clock.now())
    await come_to_an_end(again)
    assert [i.status for i in await again.invoices()] == ["paid"]
    assert len(again.payee.invoices) == 1
    await check_all(again)
    await engine.close()
