"""Two at once, on both engines: of every step that moves money exactly one is made.

On SQLite the two are tasks of one process (a second process is refused); on PostgreSQL they are two
connections that know nothing of each other, and both believe that they hold the lease.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from billing.model import PaymentAttempt, PaymentRequest, RequestState
from billing.rails.nwc import NwcRail
from billing.store import payments
from billing.store.engine import ConstraintViolated, MigratableEngine
from tests.books import check_all
from tests.engines import opened
from tests.world import World


@pytest.fixture
async def pair(engine: MigratableEngine, database_url: str) -> AsyncIterator[tuple[World, World]]:
    """Two lives of the bot at once, in one outside world."""
    first = World(engine)
    await first.start()
    await first.connect_wallet()
    first.payer.behaviour = "silent"
    async with contextlib.AsyncExitStack() as stack:
        other = engine
        if engine.dialect == "postgresql":
            other = await stack.enter_async_context(opened(database_url, migrated=False))
        second = World(other, first.clock, life=2)
        second.ids.count = 500_000
        second.stripe, second.payee, second.payer = first.stripe, first.payee, first.payer
        second.lease._token, second.lease._expires_at = first.lease._token, first.lease._expires_at
        second._build()
        yield first, second


async def both(pair: tuple[World, World], act: Callable[[World], Awaitable[Any]]) -> list[Any]:
    """What each of the two got: its result, or the database's refusal."""

    async def one(world: World) -> Any:
        try:
            return await act(world)
        except ConstraintViolated as refusal:
            return refusal

    return await asyncio.gather(*(one(world) for world in pair))


async def order(world: World) -> None:
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.sync.run_once(world.clock.now())


async def an_open_request(world: World) -> PaymentRequest:
    await order(world)
    await world.settle_down()
    (request,) = await world.requests()
    return request


async def test_m3_m4_two_collectors_at_once_send_one_request(pair: tuple[World, World]) -> None:
    """Alby Hub 1222: what SQLite's single writer made safe paid twice on PostgreSQL."""
    world = pair[0]
    await order(world)
    await both(pair, lambda w: w.collector.run_once(w.clock.now()))
    await both(pair, lambda w: w.collector.run_once(w.clock.now()))
    assert len(world.payer.sent) == 1
    (request,) = [r for r in await world.requests() if r.state == "open"]
    attempts = await world.attempts(request.invoice_id)
    assert [a.state.value for a in attempts] == ["in_flight"]
    assert [a.payment_hash for a in attempts] == [request.payment_hash]


async def test_m3_of_two_claims_at_once_one_is_made(
    pair: tuple[World, World], monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = NwcRail._claim
    claimed: list[Any] = []

    async def twice(self: NwcRail, attempt: PaymentAttempt) -> int | None:
        claimed.extend(await both(pair, lambda w: claim(w.collector.nwc, attempt)))
        return None

    monkeypatch.setattr(NwcRail, "_claim", twice)
    await order(pair[0])
    await pair[0].collector.run_once(pair[0].clock.now())
    assert sorted(answer is None for answer in claimed) == [False, True]


async def test_m2_of_two_payment_requests_at_once_one_is_stored(pair: tuple[World, World]) -> None:
    old = await an_open_request(pair[0])
    await pair[0].pass_time(1200, step=60)
    requests = [r for r in await pair[0].requests() if r.id != old.id]
    async with pair[0].rt.unit() as unit:
        for request in requests:
            assert await payments.move_request(unit.tx, request, RequestState.DEAD, now=unit.now)

    async def insert(world: World) -> str:
        name = f"of life {world.life}"
        async with world.rt.unit() as unit:
            new = replace(old, id=name, payment_hash=name.encode().hex(), state=RequestState.OPEN)
            await payments.insert_request(unit.tx, new)
        return name

    answers = await both(pair, insert)
    assert sorted(isinstance(answer, ConstraintViolated) for answer in answers) == [False, True]


async def test_m9_money_seen_twice_at_once_is_booked_once(pair: tuple[World, World]) -> None:
    request = await an_open_request(pair[0])
    pair[0].payee.settle(request.payment_hash)
    await both(pair, lambda w: w.resolver.resolve(request))
    assert len(await pair[0].settlements()) == 1
    await both(pair, lambda w: w.placer.run_once(w.clock.now()))
    await pair[0].settle_down()
    (invoice,) = pair[0].stripe.books.invoices.values()
    assert (invoice.status, invoice.off_stripe) == ("paid", 400)
    await check_all(pair[0])
