"""A backup that names a subscription which another has followed: that one is it (M11)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.books import check_all
from tests.unit.billing.conftest import MakeWorld
from tests.unit.billing.test_restored_backup import backup, order, reborn_on
from tests.world import ALICE


@pytest.mark.parametrize("rebuilt", [True, False])
async def test_m11_a_subscription_that_came_after_the_backup_is_not_made_again(
    make_world: MakeWorld, tmp_path: Path, rebuilt: bool
) -> None:
    """Simulation seed 50385: the one that the backup names was over, so a second was made beside
    the living one. Without the rebuild it is the comparison that must look."""
    world = await make_world()
    world.payer.behaviour = "silent"
    await order(world)
    await world.settle_down()
    await world.pass_time(3600, step=600)
    engine = await backup(world, tmp_path / "old.sqlite")
    await world.pass_time(26 * 3600, step=1800)
    world.payer.behaviour = "pays"
    await world.orders.new(await world.command("new"), "second", "basic")
    await world.settle_down()
    await world.pass_time(600, step=60)
    statuses = [sub.status for sub in world.stripe.books.subscriptions.values()]
    assert statuses == ["incomplete_expired", "active"]
    again = await reborn_on(world, engine)
    if rebuilt:
        await again.rebuilder.run_once(again.clock.now())
        assert [r.name for r in await again.relays() if r.state == "active"] == ["second"]
    async with again.rt.unit() as unit:
        await unit.tx.execute("tenants.want_sync", pubkey=ALICE, due_at=unit.now, fresh=1)
    await again.settle_down()
    await again.pass_time(2 * 3600, step=600)
    statuses = [sub.status for sub in world.stripe.books.subscriptions.values()]
    assert statuses == ["incomplete_expired", "active"]
    if rebuilt:
        await check_all(again)
    await engine.close()
