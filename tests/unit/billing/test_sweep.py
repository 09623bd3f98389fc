"""M9: a sweep of the payee's incoming transactions notices money that no look-up is due for."""

from __future__ import annotations

from billing.model import RequestState
from billing.sweep import EVERY_S, Sweeper
from tests.world import World
from wallet.ports import Transaction


async def test_m9_late_money_is_swept_up_long_before_the_next_daily_lookup(world: World) -> None:
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    await world.pass_time(5 * 86400, step=6 * 3600)
    request = (await world.requests())[0]
    assert request.state is RequestState.DEAD
    sweeper = Sweeper(world.rt, world.wallets)
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
