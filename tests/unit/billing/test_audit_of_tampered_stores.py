"""An audit names what the store and the ledger say differently of money over Lightning."""

from __future__ import annotations

from tests.unit.billing.test_books_audit import found, late_money, order, paid
from tests.world import ALICE, World


def tamper(world: World, sql: str, *values: object) -> None:
    """What a bug, or a hand in the database, would leave there."""
    raw = world.store._driver._connection  # type: ignore[attr-defined]
    assert raw.execute(sql, values).rowcount == 1


async def test_a_settled_request_without_its_money_is_named(world: World) -> None:
    """Money that is nowhere: its tenant would never hear of it."""
    await order(world)
    (request,) = await world.requests()
    assert await found(world) == []
    tamper(world, "UPDATE payment_requests SET state = 'settled' WHERE id = ?", request.id)
    assert await found(world) == [("money_lost", request.payment_hash)]


async def test_money_that_is_booked_with_another_amount_is_named(world: World) -> None:
    """The store says more than the ledger and the wallet."""
    await paid(world)
    (request,) = await world.requests()
    tamper(world, "UPDATE settlements SET amount_msat = amount_msat + 1000")
    assert await found(world) == [
        ("sum", "payee_wallet:msat"),
        ("money_books", request.payment_hash),
        ("wallet_amount", request.payment_hash),
    ]


async def test_an_entry_for_money_that_nobody_received_is_named(world: World) -> None:
    """The ledger would count sats that never came."""
    await paid(world)
    nobodys = "cd" * 32
    async with world.rt.unit() as unit:
        await unit.tx.execute(
            "ledger.insert",
            entry=f"money:{nobodys}:received",
            line=0,
            at=1,
            billing_at=1,
            kind="money_received",
            tenant=ALICE,
            invoice_id=None,
            payment_hash=nobodys,
            debit="payee_wallet",
            credit="conversion",
            unit="msat",
            amount=1000,
            rate="100000",
        )
    assert await found(world) == [
        ("money_books", nobodys),
        ("sum", "payee_wallet:msat"),
    ]


async def test_money_that_the_store_calls_received_and_the_ledger_placed_is_named(
    world: World,
) -> None:
    """It would be placed a second time."""
    await paid(world)
    (request,) = await world.requests()
    tamper(world, "UPDATE settlements SET state = 'received'")
    assert await found(world) == [("money_unplaced", request.payment_hash)]


async def test_credit_that_the_store_calls_unwritten_and_the_ledger_credited_is_named(
    world: World,
) -> None:
    """It would be given a second time."""
    await late_money(world)
    first = (await world.requests())[0]
    tamper(world, "UPDATE settlements SET next_try_at = 1 WHERE state = 'credited'")
    assert await found(world) == [("money_unplaced", first.payment_hash)]
