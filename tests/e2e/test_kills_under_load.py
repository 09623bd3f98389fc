"""Several tenants order and renew while the bot is killed again and again at random times."""

from __future__ import annotations

import asyncio
import functools
import random

from tests.e2e.botprocess import (
    Scene,
    check_books,
    check_nobody_paid_twice,
    check_tenant_wallet,
    eventually,
)

SEED = 20261121
KILLS_EACH = 3
TENANTS = 3
LONGEST_LIFE_S = 0.8


def unresolved(scene: Scene) -> list[str]:
    """Invoices without a live payment request behind them, and paid ones whose relays wait.

    An attempt that was claimed but perhaps not written keeps its invoice open until the bolt11
    and the margin after it are over (M7): it has a live request, and counts as resolved here.
    """
    live = scene.rows(
        "SELECT r.invoice_id FROM payment_requests r JOIN payment_attempts a ON a.request_id = r.id"
        " WHERE r.state = 'open' AND a.state = 'in_flight' AND a.writes = 0"
    )
    undecided = {row[0] for row in live}
    ended = ("paid", "void")
    bad = [
        i["id"] for i in scene.invoices() if i["status"] not in ended and i["id"] not in undecided
    ]
    waiting = scene.rows(
        "SELECT r.name FROM hosted_relays r JOIN invoice_relays c ON c.relay_id = r.id"
        " JOIN invoices i ON i.id = c.invoice_id WHERE i.status = 'paid' AND r.state <> 'active'"
    )
    return bad + [row[0] for row in waiting]


def relays_paid_for(scene: Scene) -> list[str]:
    """Names of the relays on paid invoices."""
    rows = scene.rows(
        "SELECT DISTINCT r.name FROM hosted_relays r JOIN invoice_relays c ON c.relay_id = r.id"
        " JOIN invoices i ON i.id = c.invoice_id WHERE i.status = 'paid'"
    )
    return [row[0] for row in rows]


async def all_resolved(scene: Scene) -> None:
    """Everything comes to its end, but for what nobody can know yet."""

    def look() -> bool:
        return (
            len(scene.tenants) <= len(scene.invoices())
            and not unresolved(scene)
            and scene.all_money_placed()
        )

    try:
        await eventually(look, "all is resolved")
    except AssertionError:
        raise AssertionError(f"unresolved: {unresolved(scene)}") from None


async def kill_some_times(scene: Scene, dice: random.Random) -> None:
    """Lives of random length, each ended by SIGKILL but for the last."""
    for _ in range(KILLS_EACH):
        await asyncio.sleep(dice.uniform(0.02, LONGEST_LIFE_S))
        await scene.bot.kill()
        check_nobody_paid_twice(scene)
        await scene.start()


async def test_random_kills(scene: Scene) -> None:
    dice = random.Random(SEED)
    await scene.start()
    tenants = [await scene.tenant() for _ in range(TENANTS)]
    for number, tenant in enumerate(tenants):
        await tenant.client.say(f"new relay{number} {dice.choice(['basic', 'plus'])}")
    await kill_some_times(scene, dice)
    await all_resolved(scene)
    first = len(scene.invoices("paid"))
    assert first
    await scene.advance()
    await kill_some_times(scene, dice)
    await all_resolved(scene)
    assert len(scene.invoices("paid")) > first
    check_books(scene)
    for name in relays_paid_for(scene):
        await eventually(functools.partial(scene.is_up, name), f"{name} is up")
    for tenant in tenants:
        check_tenant_wallet(tenant)
        mine = [m.rumor_id for m in tenant.client.heard if m.text.startswith("Paid")]
        payments = [p for p in scene.town.network.payments if p.payer is tenant.wallet]
        # A kill between the relay's OK and its record sends the same rumor again: one message.
        assert len(set(mine)) <= len(payments)
