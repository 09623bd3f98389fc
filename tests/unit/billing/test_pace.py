"""Our own wallet is asked at a pace: a month's turn of many tenants, and a wallet with limits."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from billing.model import Purpose
from billing.pace import BURST, PER_SECOND, REST_S, Pace
from billing.store import invoices, payments
from tests.world import ALICE, World
from wallet.ports import LookupAnswer, WalletError

TENANTS = 150


async def a_months_turn(world: World) -> None:
    """So many requests were shown in the same minute, and are due at the same second."""
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    (view,) = [invoice.view() for invoice in world.stripe.books.invoices.values()]
    (first,) = await world.requests()
    async with world.rt.unit() as unit:
        for number in range(TENANTS):
            name = f"in_turn_{number:03}"
            await invoices.upsert(unit.tx, ALICE, replace(view, id=name), now=unit.now)
            bolt11 = await world.payee.make_invoice(4_000_000, f"({name})", 3600)
            new = payments.new_request(
                request_id=f"req_turn_{number:03}",
                invoice_id=name,
                tenant=ALICE,
                payee_connection_id="conn_payee",
                purpose=Purpose.SHOWN,
                payment_hash=bolt11.payment_hash,  # type: ignore[union-attr]
                bolt11="lnbcrt",
                amount_msat=4_000_000,
                amount_minor=400,
                currency="usd",
                rate=first.rate,
                rate_sources="[]",
                rate_at=unit.now,
                now=unit.now,
                expires_at=unit.now + 3600,
                margin_s=300,
            )
            await payments.insert_request(unit.tx, new)


async def seconds_of_looks(world: World, seconds: int) -> list[list[str]]:
    """Which hashes were asked about in each second, the workers awake all the time."""
    found: list[list[str]] = []
    lookup = world.payee.lookup_invoice

    async def counted(payment_hash: str) -> LookupAnswer:
        found[-1].append(payment_hash)
        return await lookup(payment_hash)

    world.payee.lookup_invoice = counted  # type: ignore[method-assign]
    for _ in range(seconds):
        found.append([])
        while await world.resolver.run_once(world.clock.now()):
            pass
        world.clock.advance(1)
        await world.lease.renew()
    world.payee.lookup_invoice = lookup  # type: ignore[method-assign]
    return found


async def test_a_months_turn_is_asked_about_at_a_pace_and_nobody_is_forgotten(
    world: World,
) -> None:
    await a_months_turn(world)
    world.clock.advance(10)
    looks = await seconds_of_looks(world, 30)
    assert len(looks[0]) <= BURST
    assert all(len(asked) <= PER_SECOND for asked in looks[1:])
    everyone = {i.bolt11.payment_hash for i in world.payee.invoices.values()}
    assert {payment_hash for asked in looks for payment_hash in asked} == everyone


async def test_a_notification_is_faster_than_the_queue(world: World) -> None:
    await a_months_turn(world)
    world.clock.advance(10)
    await seconds_of_looks(world, 1)
    late = (await world.requests())[-1]
    world.payee.settle(late.payment_hash)
    told = await world.payee.lookup_invoice(late.payment_hash)
    await world.witness.notification(told)  # type: ignore[arg-type]
    looks = await seconds_of_looks(world, 20)
    assert late.payment_hash in {h for asked in looks for h in asked}
    assert {s.payment_hash for s in await world.settlements()} == {late.payment_hash}


async def test_a_wallet_that_says_too_many_is_let_rest_longer_each_time(world: World) -> None:
    await a_months_turn(world)
    asked: list[int] = []
    limited = True
    lookup = world.payee.lookup_invoice

    async def answer(payment_hash: str) -> LookupAnswer:
        asked.append(world.clock.now())
        if limited:
            return WalletError("RATE_LIMITED", "slower")
        return await lookup(payment_hash)

    world.payee.lookup_invoice = answer  # type: ignore[method-assign]
    world.clock.advance(10)
    began = world.clock.now()
    for _ in range(REST_S[0] + REST_S[1] + 1):
        while await world.resolver.run_once(world.clock.now()):
            pass
        world.clock.advance(1)
        await world.lease.renew()
    assert sorted({at - began for at in asked}) == [0, REST_S[0], REST_S[0] + REST_S[1]]
    assert all(r.state == "open" for r in await world.requests())
    limited = False
    await world.pass_time(240, step=1)
    assert all(r.lookups > 0 for r in await world.requests())


@given(st.lists(st.tuples(st.integers(-5, 100), st.integers(0, 80)), max_size=50))
def test_no_clock_makes_it_faster_than_its_rate(moves: list[tuple[int, int]]) -> None:
    pace, now, put, forward = Pace(), 1_800_000_000, 0, 0
    pace.allowance(now)
    for seconds, wanted in moves:
        now += seconds
        forward += max(0, seconds)
        count = min(wanted, pace.allowance(now))
        pace.asked(count)
        put += count
        assert put <= BURST + forward * PER_SECOND
