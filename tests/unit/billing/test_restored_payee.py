"""A backup from before the operator changed wallets: a hash is asked of the wallet that made it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from billing.model import Connection, RequestState
from billing.store import tenants
from billing.store.engine import MigratableEngine
from tests.books import check_all
from tests.unit.billing.conftest import MakeWorld
from tests.unit.billing.test_restored_backup import backup, order, reborn_on
from tests.world import OPERATOR, World
from wallet.ports import LookupAnswer, NotFound

LATER_KEY = "de" * 32


async def restored(world: World, engine: MigratableEngine, *, knows_the_old: bool) -> World:
    """On the backup, with another wallet configured by now; only the first one knows its hashes."""
    again = await reborn_on(world, engine)
    async with again.rt.unit() as unit:
        old = await tenants.payee(unit.tx)
        assert old is not None
        await unit.tx.execute("connections.end_payee", now=unit.now)
        later = replace(old, id="conn_later", wallet_pubkey=LATER_KEY)
        await tenants.insert_connection(unit.tx, later)
    if not knows_the_old:
        raw = again.store._driver._connection  # type: ignore[attr-defined]
        raw.execute("UPDATE connections SET wallet_pubkey = 'ab' WHERE id = ?", (old.id,))
    ask = again.lookup

    async def lookup(connection: Connection, payment_hash: str) -> LookupAnswer:
        if connection.id == "conn_later":
            return NotFound()
        return await ask(connection, payment_hash)

    again.lookup = lookup  # type: ignore[method-assign]
    return again


@pytest.mark.parametrize("paid", ["before", "later"])
async def test_m6_m9_only_the_wallet_that_made_it_says_whether_it_was_paid(
    make_world: MakeWorld, tmp_path: Path, paid: str
) -> None:
    """Simulation seeds 50083 and 50140: the new wallet's "not found" was taken for unpaid."""
    world = await make_world()
    await order(world, wallet=False)
    engine = await backup(world, tmp_path / "old.sqlite")
    await world.settle_down()
    (request,) = await world.requests()
    if paid == "before":
        world.payee.settle(request.payment_hash)
    again = await restored(world, engine, knows_the_old=True)
    await again.rebuilder.run_once(again.clock.now())
    (adopted,) = await again.requests()
    assert adopted.payee_connection_id == request.payee_connection_id
    if paid == "later":
        world.payee.settle(request.payment_hash)
    await again.pass_time(2 * 3600, step=600)
    assert [i.status for i in await again.invoices()] == ["paid"]
    await check_all(again)
    await engine.close()


async def test_m2_a_hash_of_a_wallet_that_nobody_remembers_stops_its_invoice(
    make_world: MakeWorld, tmp_path: Path
) -> None:
    world = await make_world()
    await order(world, wallet=False)
    engine = await backup(world, tmp_path / "old.sqlite")
    await world.settle_down()
    (request,) = await world.requests()
    again = await restored(world, engine, knows_the_old=False)
    await again.rebuilder.run_once(again.clock.now())
    await again.pass_time(6 * 3600, step=1800)
    assert [r for r in await again.requests() if r.state is RequestState.OPEN] == []
    told = [str(facts["what"]) for _, facts in await again.messages(OPERATOR)]
    (what,) = [text for text in told if request.payment_hash[:16] in text]
    assert "start Purser once with that wallet as payee" in what
    # As the alarm asks: then it is watched, and its money found.
    raw = again.store._driver._connection  # type: ignore[attr-defined]
    raw.execute("UPDATE connections SET wallet_pubkey = ? WHERE id = 'conn_payee'", ("cd" * 32,))
    world.payee.settle(request.payment_hash)
    await again.pass_time(2 * 3600, step=600)
    assert [i.status for i in await again.invoices()] == ["paid"]
    await engine.close()
