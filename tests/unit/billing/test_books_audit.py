"""The books: every change of money is in the ledger (C20), and an audit names what disagrees."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from billing.adopt_balance import AdoptRefused, BalanceAdopter
from billing.audit import Auditor, Report
from billing.ledger import MSAT, Account, LedgerRow
from billing.model import Activity
from billing.refunds import RefundWay
from billing.store import ledger
from billing.unit import facts_of
from tests import engines
from tests.books import ListingPayee
from tests.fakes.stripe_books import Invoice
from tests.unit.billing.conftest import MakeWorld
from tests.unit.billing.test_c18_refunds import paid_by_card
from tests.unit.billing.test_restored_backup import empty
from tests.world import ALICE, World
from wallet.ports import Transaction

BOB = "b0" * 32


async def audit(world: World, payee: Any = None) -> Report:
    return await Auditor(world.engine, world.stripe, payee or ListingPayee(world.payee)).audit()


async def found(world: World, payee: Any = None) -> list[tuple[str, str]]:
    return [(row.what, row.subject) for row in (await audit(world, payee)).differences]


async def order(world: World, name: str = "alice", tenant: str = ALICE) -> None:
    await world.orders.new(await world.command("new", tenant), name, "basic")
    await world.settle_down()


async def paid(world: World) -> World:
    await world.connect_wallet()
    await order(world)
    await world.pass_time(10, step=2)
    return world


async def late_money(world: World) -> None:
    """One invoice, two payments: the second is credit."""
    await world.connect_wallet()
    world.payer.behaviour = "silent"
    await order(world)
    await world.pass_time(1800, step=60)
    first, second = await world.requests()
    world.payee.settle(second.payment_hash)
    await world.pass_time(120, step=30)
    world.payee.settle(first.payment_hash)
    await world.pass_time(2 * 86400, step=7200)


async def by_hand(world: World) -> None:
    await order(world)
    (request,) = await world.requests()
    await world.pass_time(600, step=30)
    world.payee.settle(request.payment_hash)
    await world.pass_time(60, step=30)


async def refused(world: World) -> None:
    await world.connect_wallet()
    world.payer.behaviour = "refuses"
    await order(world)
    (request,) = await world.requests()
    world.payee.settle(request.payment_hash)
    await world.pass_time(60, step=10)


async def never_paid(world: World) -> None:
    await order(world)
    await world.pass_time(26 * 3600, step=1800)


async def months(world: World) -> None:
    await world.connect_wallet()
    await order(world)
    await world.pass_time(65 * 86400, step=6 * 3600)


async def credit_is_spent(world: World) -> None:
    """The credit of late money pays the renewal."""
    await late_money(world)
    await world.pass_time(35 * 86400, step=6 * 3600)


async def by_card(world: World) -> None:
    await order(world)
    (customer,) = world.stripe.books.customers
    world.stripe.set_card(customer, "ok")
    world.payer.behaviour = "silent"
    await world.pass_time(33 * 86400, step=6 * 3600)


async def two_tenants(world: World) -> None:
    await paid(world)
    await order(world, "bobs", BOB)


STORIES: tuple[Callable[[World], Awaitable[object]], ...] = (
    paid,
    by_hand,
    refused,
    late_money,
    never_paid,
    months,
    credit_is_spent,
    by_card,
    two_tenants,
)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
async def test_c20_after_each_story_books_stripe_and_wallet_agree(
    make_world: MakeWorld, story: Callable[[World], Awaitable[object]]
) -> None:
    world = await make_world()
    await story(world)
    report = await audit(world)
    assert report.differences == ()
    await rest_of_the_books(world, report)


async def rest_of_the_books(world: World, report: Report) -> None:
    """Beside the auditor: what the outside world has, by hand."""
    total: dict[tuple[Account, str], int] = {}
    for held in report.sums.values():
        for place, amount in held.of.items():
            total[place] = total.get(place, 0) + amount
    for unit in {unit for _, unit in total}:
        assert sum(amount for (_, u), amount in total.items() if u == unit) == 0
    settled = [i for i in world.payee.invoices.values() if i.state == "settled"]
    assert total.get((Account.PAYEE_WALLET, MSAT), 0) == sum(i.bolt11.amount_msat for i in settled)
    there = world.stripe.books
    assert total.get((Account.CREDIT, "usd"), 0) == sum(
        c.balance_minor for c in there.customers.values()
    )
    open_ones = [i for i in there.invoices.values() if i.status == "open"]
    assert total.get((Account.RECEIVABLE, "usd"), 0) == sum(i.remaining for i in open_ones)
    final = [i for i in there.invoices.values() if i.status in ("open", "paid")]
    assert total.get((Account.REVENUE, "usd"), 0) == -sum(i.total for i in final)
    cards = sum(i.paid - i.off_stripe for i in final)
    assert total.get((Account.CARD, "usd"), 0) == cards
    assert total.get((Account.OUT_OF_BAND, "usd"), 0) == 0
    assert total.get((Account.UNPLACED, "usd"), 0) == 0


async def test_a_card_story_is_really_paid_by_card(make_world: MakeWorld) -> None:
    world = await make_world()
    await by_card(world)
    assert "card" in {invoice.paid_by for invoice in await world.invoices()}


# --- a difference is named ----------------------------------------------------------------------


def only_invoice(world: World) -> Invoice:
    (invoice,) = world.stripe.books.invoices.values()
    return invoice


async def test_money_that_the_wallet_does_not_show_is_named(world: World) -> None:
    await paid(world)
    (request,) = await world.requests()
    world.payee.invoices[request.payment_hash].state = "pending"
    assert await found(world) == [("wallet_has_less", request.payment_hash)]


async def test_money_that_was_never_booked_is_named(world: World) -> None:
    """The wallet has it, and nobody was told: a look-up that is still to come, or a bug."""
    await order(world)
    (request,) = await world.requests()
    world.payee.settle(request.payment_hash)
    assert await found(world) == [("wallet_has_more", request.payment_hash)]


async def test_another_amount_in_the_wallet_is_named(world: World) -> None:
    await paid(world)
    stub = next(iter(world.payee.invoices.values()))
    stub.bolt11 = replace(stub.bolt11, amount_msat=stub.bolt11.amount_msat + 1000)
    (row,) = (await audit(world)).differences
    assert row.what == "wallet_amount"
    assert row.tenant == ALICE


async def test_a_balance_changed_at_stripe_is_named(world: World) -> None:
    await paid(world)
    (customer,) = world.stripe.books.customers.values()
    customer.balance_minor -= 250
    (row,) = (await audit(world)).differences
    assert (row.what, row.subject, row.tenant) == ("customer_balance", customer.id, ALICE)
    assert "$2.50" in row.text


@pytest.mark.parametrize("change", [-250, 130])
async def test_c20_a_balance_changed_at_stripe_is_booked_when_an_operator_says_so(
    world: World, change: int
) -> None:
    await late_money(world)  # $4.00 of credit stand there
    (customer,) = world.stripe.books.customers.values()
    adopter = BalanceAdopter(world.rt, world.stripe)
    with pytest.raises(AdoptRefused, match="agree"):
        await adopter.adopt(ALICE, "nothing")
    customer.balance_minor += change
    calls = len(world.stripe.calls)
    made = await adopter.adopt(ALICE, "a gift")
    assert (made.credit_minor, made.currency) == (-change, "usd")
    written = {name for name, _ in world.stripe.calls[calls:]}
    assert written == {"customer", "all_invoices", "all_customers", "all_refunds"}
    assert await found(world) == []
    sums = (await audit(world)).sums[ALICE]
    assert sums.get(Account.GOODWILL, "usd") == -change
    line = (await world.all(Activity, "activity.of_subject", subject=customer.id))[-1]
    assert (line.kind, facts_of(line.facts)["reason"]) == ("operator.balance_adopted", "a gift")
    with pytest.raises(AdoptRefused, match="agree"):
        await adopter.adopt(ALICE, "again")


async def test_c20_nothing_is_adopted_while_something_else_differs_or_moves(world: World) -> None:
    await paid(world)
    (customer,) = world.stripe.books.customers.values()
    customer.balance_minor -= 250
    adopter = BalanceAdopter(world.rt, world.stripe)
    invoice = only_invoice(world)
    invoice.status, invoice.remaining, invoice.paid, invoice.off_stripe = "open", 400, 0, 0
    with pytest.raises(AdoptRefused, match="something else differs"):
        await adopter.adopt(ALICE, "too early")
    invoice.status, invoice.remaining, invoice.paid, invoice.off_stripe = "paid", 0, 400, 400

    def moves(name: str, arguments: object) -> None:
        if name == "all_refunds":
            customer.balance_minor -= 1

    world.stripe.after = moves
    with pytest.raises(AdoptRefused, match="this very moment"):
        await adopter.adopt(ALICE, "while it moves")
    world.stripe.after = lambda name, arguments: None
    with pytest.raises(AdoptRefused, match="no tenant"):
        await adopter.adopt(BOB, "who?")


async def test_c18_card_refunds_are_compared_with_stripes_list(world: World) -> None:
    invoice_id = await paid_by_card(world)
    await world.refund_desk.refund(invoice_id, 100, None, "ours")
    await world.settle_down()
    theirs = world.stripe.made_in_dashboard(invoice_id, 50)
    await world.settle_down()
    assert await found(world) == []
    (ours,) = [r for r in world.stripe.refunds.values() if r.id != theirs.id]
    unseen = world.stripe.made_in_dashboard(invoice_id, 25)
    world.stripe.refunds[theirs.id] = replace(theirs, status="failed")
    world.stripe.refunds[ours.id] = replace(ours, amount_minor=99)
    assert sorted(await found(world)) == sorted(
        [
            ("refund_unbooked", unseen.id),
            ("refund_bounced", theirs.id),
            ("refund_amount", ours.id),
        ]
    )
    del world.stripe.refunds[ours.id], world.stripe.refunds[theirs.id]
    await world.settle_down()
    assert sorted(await found(world)) == sorted(
        [("refund_missing", ours.id), ("refund_missing", theirs.id)]
    )


async def test_an_invoice_that_stripe_unpaid_is_named_everywhere_it_shows(world: World) -> None:
    await paid(world)
    invoice = only_invoice(world)
    invoice.status, invoice.remaining, invoice.paid, invoice.off_stripe = "open", 400, 0, 0
    assert await found(world) == [
        ("sum", "receivable:usd"),
        ("invoice_books", invoice.id),
        ("invoice_stale", invoice.id),
    ]


async def test_an_invoice_that_nobody_took_up_is_named(world: World) -> None:
    await paid(world)
    books = world.stripe.books
    known = only_invoice(world)
    fresh = books.draft(known.customer, None, [700], "manual", False)
    books.finalize(fresh)
    assert await found(world) == [("sum", "receivable:usd"), ("invoice_unknown", fresh.id)]


async def test_an_invoice_that_is_gone_is_named(world: World) -> None:
    await paid(world)
    gone = only_invoice(world).id
    del world.stripe.books.invoices[gone]
    assert ("invoice_missing", gone) in await found(world)


async def test_m10_an_invoice_marked_paid_by_us_without_money_is_named(world: World) -> None:
    await order(world)
    invoice = only_invoice(world)
    invoice.metadata["purser_paid_by"] = "ab" * 32
    world.stripe.books.mark_paid(invoice, off_stripe=True)
    await world.pass_time(60, step=30)
    assert await found(world) == [("paid_without_money", invoice.id)]


async def test_an_invoice_marked_paid_in_the_dashboard_is_their_word(world: World) -> None:
    await order(world)
    world.stripe.books.mark_paid(only_invoice(world), off_stripe=True)
    await world.pass_time(60, step=30)
    report = await audit(world)
    assert report.differences == ()
    assert report.sums[ALICE].get(Account.OUT_OF_BAND, "usd") == 400


async def test_money_that_a_hand_was_faster_than_becomes_credit_and_nothing_differs(
    world: World,
) -> None:
    """Simulation seed 546: our mark stood there when somebody marked it paid in the Dashboard."""
    await order(world)
    (request,) = await world.requests()
    world.stripe.after = lambda *_: faster(world)
    world.payee.settle(request.payment_hash)
    await world.pass_time(300, step=30)
    assert [s.state for s in await world.settlements()] == ["credited"]
    report = await audit(world)
    assert report.differences == ()
    assert report.sums[ALICE].get(Account.OUT_OF_BAND, "usd") == 400


def faster(world: World) -> None:
    """The hand in the Dashboard, right after our note."""
    invoice = only_invoice(world)
    if invoice.status == "open" and "purser_paid_by" in invoice.metadata:
        world.stripe.books.mark_paid(invoice, off_stripe=True)


async def test_a_hash_that_only_stripe_knows_is_named(world: World) -> None:
    """A restored backup, or a second bot (M1)."""
    await paid(world)
    invoice = only_invoice(world)
    other = "cd" * 32
    invoice.metadata[f"purser_ln_{other[:24]}"] = f"{other}:1700000000:300:4000000:400:100000"
    assert await found(world) == [("hash_unknown", invoice.id)]


async def test_a_second_customer_with_a_tenants_key_is_named(world: World) -> None:
    await paid(world)
    made = await world.stripe.create_customer("op_x", pubkey=ALICE, name="a", email=None)
    assert await found(world) == [("customer_twice", made.id)]


@pytest.mark.parametrize("balance_minor", [0, -500])
async def test_a_customer_whose_making_was_cut_short_is_named_for_its_balance_only(
    world: World, balance_minor: int
) -> None:
    """Simulation seeds 50571 and 50606: its tenant finds it at the next order, by its key."""
    await paid(world)
    made = await world.stripe.create_customer("op_x", pubkey="cd" * 32, name="c", email=None)
    world.stripe.books.customers[made.id].balance_minor = balance_minor
    async with world.rt.unit() as unit:
        await world.desk.ensure_tenant(unit, await world.command("new", "cd" * 32, unit.tx))
    assert await found(world) == ([("customer_unknown", made.id)] if balance_minor else [])


@pytest.mark.parametrize("noted", [False, True])
async def test_a_void_invoice_that_a_restore_forgot_is_named_if_it_may_hold_money(
    world: World, noted: bool
) -> None:
    """Simulation seed 360: voided unpaid, before its tenant's next order it is nobody's."""
    await paid(world)
    fresh = copy.deepcopy(only_invoice(world))
    fresh.id, fresh.status, fresh.metadata = "in_forgotten", "void", {}
    if noted:
        other = "cd" * 32
        fresh.metadata = {f"purser_ln_{other[:24]}": f"{other}:1700000000:300:4000000:400:100000"}
    world.stripe.books.invoices[fresh.id] = fresh
    assert await found(world) == ([("invoice_unknown", fresh.id)] if noted else [])


async def test_entries_about_nothing_show_in_the_sum(world: World) -> None:
    await paid(world)
    async with world.rt.unit() as unit:
        await unit.tx.execute(
            "ledger.insert",
            entry="planted",
            line=0,
            at=1,
            billing_at=1,
            kind="planted",
            tenant=ALICE,
            invoice_id=None,
            payment_hash=None,
            debit="receivable",
            credit="revenue",
            unit="usd",
            amount=5,
            rate=None,
        )
    assert await found(world) == [("sum", "receivable:usd")]


async def test_money_beyond_the_end_of_the_wallets_list_is_asked_for(world: World) -> None:
    """Wallets list the newest only, some one page whatever is asked: that is no difference."""
    await paid(world)
    payee = ListingPayee(world.payee)

    async def one_page(since: int) -> list[Transaction]:
        return []

    payee.list_incoming = one_page  # type: ignore[method-assign]
    assert await found(world, payee) == []
    (request,) = await world.requests()
    world.payee.invoices[request.payment_hash].state = "pending"
    assert await found(world, payee) == [("wallet_has_less", request.payment_hash)]


async def test_foreign_money_of_the_operator_is_no_difference(world: World) -> None:
    await paid(world)
    payee = ListingPayee(world.payee)
    payee.foreign = [
        Transaction("ef" * 32, "incoming", "settled", 5000, 1, 1, None),
    ]
    report = await audit(world, payee)
    assert report.differences == ()
    assert report.compared[-1] == "2 payments to our wallet"


async def test_a_wallet_without_a_list_is_asked_for_each_payment(world: World) -> None:
    await paid(world)
    (request,) = await world.requests()
    assert await found(world, world.payee) == []
    world.payee.forgets.add(request.payment_hash)
    assert await found(world, world.payee) == [("wallet_has_less", request.payment_hash)]


async def test_a_wallet_that_is_away_is_said_and_convicts_nobody(world: World) -> None:
    await paid(world)
    world.payee.down = True
    for payee in (ListingPayee(world.payee), world.payee):
        report = await audit(world, payee)
        assert report.differences == ()
        assert report.compared[-1] == "not our wallet: silent"


async def test_what_is_under_way_while_we_look_is_no_difference(world: World) -> None:
    """The first picture of Stripe is older than the store's; the second look clears it."""
    await paid(world)
    books, looks = world.stripe.books, 0
    invoice = only_invoice(world)

    class Late:
        async def all_invoices(self) -> Any:
            nonlocal looks
            looks += 1
            views = await world.stripe.all_invoices()
            return [] if looks == 1 else views

        async def all_customers(self) -> Any:
            return await world.stripe.all_customers()

        async def all_refunds(self) -> Any:
            return await world.stripe.all_refunds()

    assert invoice.id in books.invoices
    report = await Auditor(world.engine, Late(), ListingPayee(world.payee)).audit()
    assert report.differences == ()
    assert looks == 2


# --- both engines -------------------------------------------------------------------------------


@pytest.fixture
async def any_world(database_url: str) -> AsyncIterator[World]:
    async with engines.opened(database_url) as engine:
        made = World(engine)
        await made.start()
        yield made


async def test_the_sums_are_the_same_on_both_engines(any_world: World) -> None:
    await late_money(any_world)
    report = await audit(any_world)
    assert report.differences == ()
    assert {
        f"{account.value} {unit}": amount
        for (account, unit), amount in report.sums[ALICE].of.items()
    } == {
        "conversion msat": -8_000_000,
        "conversion usd": 800,
        "credit usd": -400,
        "payee_wallet msat": 8_000_000,
        "revenue usd": -400,
    }


async def test_an_entry_is_booked_once(any_world: World) -> None:
    await paid(any_world)
    async with any_world.rt.unit() as unit:
        rows: list[LedgerRow] = await ledger.rows(unit.tx)
        first = await ledger.post_credit(unit, "op_1", ALICE, 100, "usd")
        again = await ledger.post_credit(unit, "op_1", ALICE, 100, "usd")
        after = await ledger.rows(unit.tx)
    assert (first, again) == (True, False)
    assert len(after) == len(rows) + 1


# --- what goes back -----------------------------------------------------------------------------


async def card_payment(world: World) -> str:
    await order(world)
    (customer,) = world.stripe.books.customers
    world.stripe.set_card(customer, "ok")
    await world.pass_time(33 * 86400, step=6 * 3600)
    return next(i.id for i in await world.invoices() if i.paid_by == "card")


async def test_c18_a_lost_dispute_is_booked_once(world: World) -> None:
    dispute = world.stripe.open_dispute(await card_payment(world))
    world.stripe.close_dispute(dispute.id, "lost")
    await world.settle_down()
    await world.pass_time(3600)
    report = await audit(world)
    assert report.differences == ()
    assert report.sums[ALICE].get(Account.REFUNDS, "usd") == dispute.amount_minor


async def test_a_refund_without_its_entry_is_named(world: World) -> None:
    await paid(world)
    (invoice,) = await world.invoices()
    refund = await world.refund_desk.refund(invoice.id, 100, RefundWay.BALANCE, "r")
    await world.settle_down()
    assert await found(world) == []
    async with world.rt.unit() as unit:
        rows = await ledger.rows(unit.tx)
    entries = [row for row in rows if row.entry == f"refund:{refund.id}"]
    assert [(row.debit, row.credit, row.amount) for row in entries] == [
        (Account.REFUNDS, Account.CREDIT, 100)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("billing.refund_end.ledger.post_refund", _forgets)
        second = await world.refund_desk.refund(invoice.id, 50, RefundWay.BALANCE, "r")
        await world.settle_down()
    customer = next(iter(world.stripe.books.customers))
    assert await found(world) == [("customer_balance", customer), ("refund_books", second.id)]


async def _forgets(*_: object, **__: object) -> bool:
    return False


async def test_a_refund_of_a_bank_debit_is_booked_and_seen(world: World) -> None:
    """Stripe calls refunds of other methods than cards pyr_…."""
    invoice_id = await paid_by_card(world)
    new_id = world.stripe.books.new_id
    world.stripe.books.new_id = lambda kind: new_id("pyr" if kind == "re" else kind)  # type: ignore[method-assign]
    made = world.stripe.made_in_dashboard(invoice_id, 150)
    assert made.id.startswith("pyr_")
    await world.settle_down()
    assert await found(world) == []


async def test_c20_an_empty_database_books_the_refund_of_days_before(world: World) -> None:
    """Simulation seed 8686: events are read a day back where none was ever read, and the refund
    was older, so that it was in no book for ever."""
    invoice_id = await paid_by_card(world)
    await world.reconciler.run_once(world.clock.now())
    refund = world.stripe.made_in_dashboard(invoice_id, 399)
    await world.pass_time(5 * 86400, step=86400)
    assert await found(world) == []
    again = await world.reborn(await empty(world), rebuild=False)
    await again.start()
    # Its webhooks came while there was another database.
    again.deliver_events = _none  # type: ignore[method-assign]
    await again.rebuilder.run_once(again.clock.now())
    await again.reconciler.run_once(again.clock.now())
    await again.settle_down()
    assert await found(again) == []
    since = {"since": 0, "until": again.clock.billing_now() + 1}
    rows = await again.all(LedgerRow, "ledger.between", **since)
    booked = [(row.amount, row.unit) for row in rows if row.entry == f"refund:{refund.id}"]
    assert booked == [(399, "usd")]


async def _none() -> int:
    return 0
