"""M9: a sweep of the payee's incoming transactions notices money that no look-up is due for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from billing.model import RequestState
from billing.sweep import EVERY_S, Sweeper
from bot.sandbox.bolt11_encode import encode
from tests.world import OPERATOR, World
from wallet.bolt11 import Bolt11
from wallet.ports import Transaction, Unreachable


async def test_m9_late_money_is_swept_up_long_before_the_next_daily_lookup(world: World) -> None:
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    await world.pass_time(5 * 86400, step=6 * 3600)
    request = (await world.requests())[0]
    assert request.state is RequestState.DEAD
    sweeper = Sweeper(world.rt, world.wallets, world.quoter)
    assert await sweeper.run_once(world.clock.now()) == 0
    world.payee.settle(request.payment_hash)

    async def listed(since: int) -> list[Transaction]:
        assert since <= world.clock.now() - 86400
        answer = await world.payee.lookup_invoice(request.payment_hash)
        assert isinstance(answer, Transaction)
        return [answer]

    world.payee.list_incoming = listed  # type: ignore[assignment,method-assign]
    assert await sweeper.run_once(world.clock.now()) == 0, "not before its time"
    world.clock.advance(EVERY_S)
    assert await sweeper.run_once(world.clock.now()) == 1
    await world.lease.renew() or await world.lease.take()
    await world.settle_down()
    assert (await world.requests())[0].state is RequestState.SETTLED
    world.clock.advance(EVERY_S)
    assert await sweeper.run_once(world.clock.now()) == 0


@pytest.mark.parametrize(("sats", "is_paid"), [(1, False), (3_000, False), (4_000, True)])
async def test_c27_money_that_only_names_an_invoice_pays_it_at_a_believable_rate(
    world: World, sats: int, is_paid: bool
) -> None:
    """Whoever may write a memo to our wallet (a donation page) can name an invoice: one sat for
    all of it would be a rate of billions, made up by the payer."""
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    await world.pass_time(6 * 3600)
    (invoice,) = [i for i in await world.invoices() if i.status == "open"]
    made = await world.payee.make_invoice(sats * 1000, f"thanks ({invoice.id})", 3600)
    assert isinstance(made, Bolt11)
    world.payee.settle(made.payment_hash)
    text = encode(
        "bcrt", sats * 1000, made.payment_hash, b"\x07" * 32, made.timestamp, 3600,
        f"thanks ({invoice.id})", "cd" * 32,
    )  # fmt: skip

    async def listed(since: int) -> list[Transaction]:
        answer = await world.payee.lookup_invoice(made.payment_hash)
        assert isinstance(answer, Transaction)
        return [replace(answer, bolt11=text)]

    world.payee.list_incoming = listed  # type: ignore[assignment,method-assign]
    sweeper = Sweeper(world.rt, world.wallets, world.quoter)
    await sweeper.run_once(world.clock.now())
    await world.lease.renew() or await world.lease.take()
    await world.settle_down()
    after = {i.id: i.status for i in await world.invoices()}
    assert (after[invoice.id] == "paid") is is_paid
    told = [f for k, f in await world.messages(OPERATOR) if "arrived for invoice" in str(f)]
    assert bool(told) is not is_paid


async def memo_money(world: World) -> Transaction:
    """4 000 sats came, whose description names the open invoice."""
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    await world.pass_time(6 * 3600)
    (invoice,) = [i for i in await world.invoices() if i.status == "open"]
    memo = f"thanks ({invoice.id})"
    made = await world.payee.make_invoice(4_000_000, memo, 3600)
    assert isinstance(made, Bolt11)
    world.payee.settle(made.payment_hash)
    answer = await world.payee.lookup_invoice(made.payment_hash)
    assert isinstance(answer, Transaction)
    text = encode(
        "bcrt", 4_000_000, made.payment_hash, b"\x07" * 32, made.timestamp, 3600, memo, "cd" * 32
    )
    return replace(answer, bolt11=text)


@pytest.mark.parametrize("away", ["the wallet", "the rates"])
async def test_m9_a_look_back_of_a_month_is_not_over_before_all_of_it_could_be_valued(
    world: World, away: str
) -> None:
    """After a lost database: the next sweep went back two days only, and the rest was lost."""
    money, asked, is_away = await memo_money(world), list[int](), True

    async def listed(since: int) -> list[Transaction] | Unreachable:
        asked.append(since)
        return Unreachable("silent") if is_away and away == "the wallet" else [money]

    world.payee.list_incoming = listed  # type: ignore[assignment,method-assign]
    world.quoter.down = away == "the rates"
    sweeper = Sweeper(world.rt, world.wallets, world.quoter)
    await sweeper.run_once(world.clock.now())
    await sweeper.run_once(world.clock.now() + 1)
    assert len(asked) == 1
    is_away = world.quoter.down = False
    for _ in range(2):
        world.clock.advance(EVERY_S)
        await sweeper.run_once(world.clock.now())
    assert asked[1] - asked[0] == EVERY_S, "a month again"
    assert asked[2] - asked[1] > 20 * 86_400
    await world.lease.renew() or await world.lease.take()
    await world.settle_down()
    assert {i.status for i in await world.invoices()} == {"paid"}


async def test_m9_a_clock_that_was_ahead_stops_no_sweep(world: World) -> None:
    asked: list[int] = []

    async def listed(since: int) -> list[Transaction]:
        asked.append(since)
        return []

    world.payee.list_incoming = listed  # type: ignore[assignment,method-assign]
    sweeper = Sweeper(world.rt, world.wallets, world.quoter)
    await sweeper.run_once(world.clock.now() + 30 * 86_400)
    await sweeper.run_once(world.clock.now())
    assert len(asked) == 2
    assert asked[1] < world.clock.now()
