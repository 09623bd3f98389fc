"""M1, M3, M9 below the model: what a power loss leaves, a full disk and I/O errors anywhere."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Any

import apsw
import pytest

from billing.store.engine import StoreError
from billing.store.migrate import migrate
from billing.store.sqlite import InlineDriver, SqliteEngine
from tests.books import check_all
from tests.store.disk import BadDisk, Connection, Disk
from tests.unit.billing.test_m01_crashes import is_over, pay_by_hand
from tests.world import World

STRIDE = 23
"""Every how many-th operation is tried; `PURSER_ALL_FAULTS=1`, as `.ci/run` says, tries each."""


async def world_on(path: Path, vfs: str) -> World:
    connection: Any = Connection(path, vfs=vfs)
    engine = SqliteEngine(InlineDriver(connection))
    await migrate(engine)
    world = World(engine)
    await world.start()
    await world.connect_wallet()
    return world


def scalar(path: Path, sql: str, *values: str) -> Any:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        row = connection.execute(sql, values).fetchone()
        return None if row is None else row[0]


async def test_m1_at_every_effect_a_power_loss_leaves_its_intent(tmp_path: Path) -> None:
    """K9: the provider's invoice was made before any row, and a crash made two."""
    disk = Disk()
    world = await world_on(tmp_path / "purser.db", "disk")
    boots = 0

    def boot() -> Path:
        nonlocal boots
        boots += 1
        return disk.lose_power(tmp_path / f"boot_{boots}")

    effects: list[str] = []

    def before(name: str, arguments: Any) -> None:
        operation = arguments.get("operation_id")
        if operation is None or name == "ensure_price":
            return
        effects.append(name)
        after = boot()
        stored = scalar(after, "SELECT id FROM operations WHERE id = ?", operation) or scalar(
            after,
            "SELECT id FROM changes WHERE ? IN (items_operation_id, invoice_operation_id)",
            operation,
        )
        assert stored, f"{name} was called before its intent was on the disk"

    publish = world.payer.publish_pay

    async def publish_pay(request: Any, *, permit: Any) -> Any:
        effects.append("publish_pay")
        state = "SELECT state FROM payment_attempts WHERE event_id = ?"
        after = boot()
        assert scalar(after, state, request.event_id) == "in_flight"
        noted = "SELECT count(*) FROM payment_requests WHERE noted_at IS NOT NULL"
        assert scalar(after, noted) == 1
        return await publish(request, permit=permit)

    def call(name: str, arguments: Any) -> None:
        before(name, {"operation_id": None} | dict(arguments))

    world.stripe.before = call
    write = world.stripe._write

    async def seen_write(name: str, key: str, arguments: Any, body: Any) -> Any:
        before(name, {"operation_id": key})
        return await write(name, key, arguments, body)

    world.stripe._write = seen_write  # type: ignore[method-assign]
    world.payer.publish_pay = publish_pay  # type: ignore[method-assign]
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    assert {"create_subscription", "annotate_invoice", "publish_pay", "pay_out_of_band"} <= set(
        effects
    )
    await world.store.close()
    disk.unregister()


async def tolerant_round(world: World) -> None:
    """One turn of every worker, each kept running by its supervisor."""
    steps: list[Any] = [world.lease.renew, world.deliver_events]
    for worker in (
        world.events,
        world.sync,
        world.collector,
        world.resolver,
        world.placer,
        world.keeper,
        world.outbox,
    ):
        steps.append(lambda worker=worker: worker.run_once(world.clock.now()))
    for step in steps:
        with contextlib.suppress(StoreError):
            await step()


async def story(path: Path, disk: BadDisk) -> World:
    """An order paid by a wallet while the disk fails, then time to come to an end."""
    world = await world_on(path, "bad")
    disk.is_armed = True
    with contextlib.suppress(StoreError):
        await world.orders.new(await world.command("new"), "alice", "basic")
    for _ in range(8):
        await tolerant_round(world)
        world.clock.advance(3)
    disk.is_armed = False
    if not await world.relays():
        # The tenant was not answered, and writes again.
        await world.orders.new(await world.command("new"), "alice", "basic")
    for seconds in (10, 60, 600, 300, 300, 300, 120, 120, 120, 120, 60, 60, 60):
        await world.pass_time(seconds, step=seconds)
        if await is_over(world):
            break
        await pay_by_hand(world)
    return world


@pytest.mark.parametrize("error", [apsw.FullError, apsw.IOError])
async def test_a_disk_that_fails_anywhere_charges_nobody_twice_and_loses_nothing(
    tmp_path: Path, error: type[apsw.Error]
) -> None:
    disk = BadDisk(error, None, 0)
    world = await story(tmp_path / "whole.db", disk)
    count = disk.operations
    await world.store.close()
    disk.unregister()
    assert count > 200
    stride = 1 if os.environ.get("PURSER_ALL_FAULTS") else STRIDE
    for first in range(0, count, stride):
        disk = BadDisk(error, first, 4)
        world = await story(tmp_path / f"{first}.db", disk)
        try:
            assert disk.failed, "this run had its fault"
            assert len(world.payer.sent) == len(set(world.payer.sent)) <= 1
            settled = [i for i in world.payee.invoices.values() if i.state == "settled"]
            assert len(settled) == 1
            assert [i.status for i in await world.invoices()] == ["paid"]
            (relay,) = await world.relays()
            assert world.host.is_up(relay.id)
            await check_all(world)
        except BaseException as problem:
            raise AssertionError(f"after a fault at operation {first} of {count}") from problem
        finally:
            await world.store.close()
            disk.unregister()
