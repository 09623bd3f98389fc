"""Lag: what a queue turned away, or a sleep left behind, is looked for before its turn."""

from __future__ import annotations

import pytest

from billing.catch_up import WHOLE_AT
from billing.lag import AGAIN_AFTER_S, BEHIND_S, LagWatch
from tests.world import World


class Lost:
    def __init__(self) -> None:
        self.count = 0
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1


@pytest.fixture
def lost() -> Lost:
    return Lost()


def watch(world: World, lost: Lost) -> LagWatch:
    return LagWatch(world.rt, lambda: lost.count, lost.wake)


async def test_a_queue_that_ran_over_wakes_reconcile_once(world: World, lost: Lost) -> None:
    lag = watch(world, lost)
    assert await lag.run_once(world.clock.now()) == 0
    lost.count = 3
    assert await lag.run_once(world.clock.now()) == 1
    assert await lag.run_once(world.clock.now()) == 0
    assert lost.woken == 1


async def test_a_machine_that_slept_looks_at_once_and_then_at_a_pace(
    world: World, lost: Lost
) -> None:
    lag = watch(world, lost)
    await world.reconciler.run_once(world.clock.now())
    assert await lag.run_once(world.clock.now()) == 0
    world.clock.advance(BEHIND_S + 1)
    await world.lease.take()
    assert await lag.run_once(world.clock.now()) == 1
    # Stripe is away: the cursor stays, and it is asked again after a while only.
    assert await lag.run_once(world.clock.now()) == 0
    world.clock.advance(AGAIN_AFTER_S)
    await world.lease.take()
    assert await lag.run_once(world.clock.now()) == 1
    await world.reconciler.run_once(world.clock.now())
    assert await lag.run_once(world.clock.now()) == 0


async def test_before_the_first_reconcile_nothing_is_behind(world: World, lost: Lost) -> None:
    async with world.store.transaction() as tx:
        assert await tx.scalar("leases.cursor", name=WHOLE_AT) is None
    assert await watch(world, lost).run_once(world.clock.now()) == 0
