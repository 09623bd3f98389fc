"""Several tenants order and renew while the bot is killed again and again at random times, or under
a flood of webhooks."""

from __future__ import annotations

import asyncio
import functools
import json
import random
import time
from dataclasses import dataclass, field

import httpx

from bot.sandbox.stripe.delivery import sign
from tests.e2e.botprocess import (
    LOOK_EVERY_S,
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
FLOOD = 120
"""Webhooks in all: each costs the bot two commits."""
KILLS_AT = (30, 75)
"""Acknowledged webhooks at which it is killed."""
SENDERS = 6


def unresolved(scene: Scene) -> list[str]:
    """Invoices without a live payment request behind them, and paid ones whose relays wait.

    An attempt that was claimed but perhaps not written keeps its invoice open until the bolt11
    and the margin after it are over (M7), and so does a request that a life made and did not come
    to send (M3): it has a live request, and counts as resolved here.
    """
    live = scene.rows(
        "SELECT r.invoice_id FROM payment_requests r LEFT JOIN payment_attempts a"
        " ON a.request_id = r.id WHERE r.state = 'open' AND"
        " (a.id IS NULL OR a.state = 'prepared' OR a.state = 'in_flight' AND a.writes = 0)"
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


async def paid_more_than(scene: Scene, count: int) -> None:
    """Undisturbed, an order is paid."""
    await eventually(lambda: len(scene.invoices("paid")) > count, f"more than {count} are paid")


async def test_random_kills(scene: Scene) -> None:
    dice = random.Random(SEED)
    await scene.start()
    tenants = [await scene.tenant() for _ in range(TENANTS)]
    for number, tenant in enumerate(tenants):
        await tenant.client.say(f"new relay{number} {dice.choice(['basic', 'plus'])}")
    await paid_more_than(scene, TENANTS - 1)
    await scene.advance()
    await kill_some_times(scene, dice)
    await all_resolved(scene)
    # Orders come after the month's jump: one that a kill left to die would run out in it.
    for number, tenant in enumerate(tenants):
        await tenant.client.say(f"new more{number} {dice.choice(['basic', 'plus'])}")
    await kill_some_times(scene, dice)
    await all_resolved(scene)
    # What the kills left to die may be all of it; whoever comes now is served.
    tenants.append(await scene.tenant())
    before = len(scene.invoices("paid"))
    await tenants[-1].client.say("new afterwards basic")
    await paid_more_than(scene, before)
    await all_resolved(scene)
    check_books(scene)
    for name in relays_paid_for(scene):
        await eventually(functools.partial(scene.is_up, name), f"{name} is up")
    for tenant in tenants:
        check_tenant_wallet(tenant)
        mine = [m.rumor_id for m in tenant.client.heard if m.text.startswith("Paid")]
        payments = [p for p in scene.town.network.payments if p.payer is tenant.wallet]
        # A kill between the relay's OK and its record sends the same rumor again: one message.
        assert len(set(mine)) <= len(payments)


@dataclass(slots=True)
class Flood:
    """Signed webhooks from many senders; each is sent until it is acknowledged, as Stripe does."""

    scene: Scene
    invoice_id: str
    """Every tenth is about this invoice; nobody handles the others' type."""
    acknowledged: set[str] = field(default_factory=set)
    _count: int = 0

    async def send(self) -> None:
        """One sender, until the flood is over."""
        while self._count < FLOOD:
            self._count += 1
            event_id = f"evt_flood{self._count}"
            body = json.dumps(self._event(event_id, self._count % 10 == 0)).encode()
            while not await self._is_taken(body):
                await asyncio.sleep(LOOK_EVERY_S)
            self.acknowledged.add(event_id)

    def _event(self, event_id: str, is_ours: bool) -> dict[str, object]:
        kind, thing = ("invoice", self.invoice_id) if is_ours else ("topup", "tu_nobody")
        return {
            "id": event_id,
            "object": "event",
            "type": f"{kind}.updated" if is_ours else f"{kind}.created",
            "created": int(time.time()),
            "livemode": False,
            "data": {"object": {"id": thing, "object": kind}},
        }

    async def _is_taken(self, body: bytes) -> bool:
        town = self.scene.town
        signature = sign(body, town.webhook_secret, int(time.time()))
        try:
            answer = await self.scene.http.post(
                f"{town.bot_url}/webhooks/stripe",
                content=body,
                headers={"Stripe-Signature": signature},
            )
        except httpx.TransportError:
            return False
        assert answer.status_code in (200, 503), answer
        return answer.status_code == 200

    def lost(self) -> set[str]:
        """What was acknowledged and is not on the disk."""
        stored = self.scene.rows("SELECT event_id FROM inbox_events")
        return self.acknowledged - {row[0] for row in stored}

    def unhandled(self) -> list[str]:
        """What waits for its handler, or was given up."""
        rows = self.scene.rows(
            "SELECT event_id, state, object_id FROM inbox_events WHERE event_id LIKE 'evt_flood%'"
        )
        ends = {self.invoice_id: "handled", "tu_nobody": "ignored"}
        return [event_id for event_id, state, about in rows if state != ends[about]]


async def kill_in_the_flood(scene: Scene, flood: Flood) -> None:
    """Lives that end by SIGKILL once they have acknowledged enough, ready or not; then one more."""
    for enough in KILLS_AT:
        await eventually(lambda: len(flood.acknowledged) >= enough, f"{enough} acknowledged")
        await scene.bot.kill()
        assert flood.lost() == set()
        scene.spawn()
    await scene.ready()


async def test_c6_m14_acknowledged_webhooks_outlive_kills_in_a_flood(scene: Scene) -> None:
    """Stripe never sends again what was acknowledged: what is not on the disk by then is lost."""
    await scene.start()
    tenant = await scene.tenant()
    await tenant.ask("new relay0 basic", "Ordered")
    await tenant.hear("relay0 is up")
    flood = Flood(scene, scene.invoices("paid")[0]["id"])
    async with asyncio.TaskGroup() as senders:
        for _ in range(SENDERS):
            senders.create_task(flood.send())
        await kill_in_the_flood(scene, flood)
    assert len(flood.acknowledged) == FLOOD
    assert flood.lost() == set()
    await eventually(lambda: flood.unhandled() == [], "all of the flood is handled")
    await eventually(scene.all_money_placed, "the money has its home")
    check_books(scene)
