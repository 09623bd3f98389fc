"""Counts the calls to Stripe: a start with unchanged tenants, a plan change, a renewal.

The real gateway over HTTP against the embedded Stripe, whose server counts; the workers and the
store are the real ones too. `python -m tests.bench.stripe_calls` prints the table, and with
`--write` puts it into docs/stripe.md.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
import logging
import random
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from billing.catch_up import CURSOR, WHOLE_AT
from billing.inbox import parse_event
from billing.ingest import columns
from billing.store.migrate import migrate
from billing.store.open import open_engine
from billing.stripe_gateway import StripeSdkGateway
from bot.sandbox.stripe import EmbeddedStripe, SandboxClock
from bot.sandbox.stripe.app import Exchange
from tests.fakes.clock import FakeClock
from tests.world import ALICE, World

SIZES = (0, 100, 10_000)
DAY_S = 86_400
BEGIN, END = "<!-- stripe-calls -->\n", "<!-- /stripe-calls -->"
DOC = Path(__file__).parents[2] / "docs" / "stripe.md"
_ID = re.compile(r"/(?:cus|sub|in|si|pi|price|re|cn)_[A-Za-z0-9]+")


class CountedWorld(World):
    """The workers of billing on an embedded Stripe; webhooks cost no call and arrive at once."""

    stripe: Any
    embedded: EmbeddedStripe
    counted: Counter[str]
    delivered = 0

    async def deliver_events(self) -> int:
        await self.embedded.advance(0)
        events = list(self.embedded.world.table("event").values())
        new, self.delivered = events[self.delivered :], len(events)
        async with self.engine.transaction() as tx:
            for event in new:
                shown = {k: v for k, v in event.items() if not k.startswith("_")}
                row = parse_event(json.dumps(shown), self.clock.now())
                assert row is not None
                await tx.execute("ingest.insert_event", **columns(row))
        return len(new)

    def count(self, call: Exchange) -> None:
        """Calls of the API only: others on this machine may knock at a port that was theirs."""
        if call.path.startswith("/v1/"):
            self.counted[f"{call.method} {_ID.sub('/{id}', call.path)}"] += 1

    async def stand(self) -> None:
        """As after a quarter of an hour of running: the events are read up to now."""
        last = list(self.embedded.world.table("event"))[-1:]
        async with self.engine.transaction() as tx:
            for event_id in last:
                await tx.execute("leases.set_cursor", name=CURSOR, value=event_id)
            await tx.execute(
                "leases.set_cursor", name=WHOLE_AT, value=str(self.clock.billing_now())
            )

    async def start_up(self) -> None:
        """What a start asks Stripe before it is in step (bot.app.App.run)."""
        await self.stripe.account()
        assert await self.rebuilder.run_once(self.clock.now()) == 0
        assert await self.reconciler.run_once(self.clock.now()) == 0
        await self.settle_down()


@asynccontextmanager
async def counted_world() -> AsyncIterator[CountedWorld]:
    """A world with nobody in it."""
    clock = FakeClock()
    embedded = EmbeddedStripe(clock=SandboxClock(real_now=lambda: float(clock.wire)))
    # Ids decide the order of events of one second.
    embedded.world.rng = random.Random(1)
    engine = await open_engine(":memory:", driver="inline")
    await migrate(engine)
    async with embedded:
        world = CountedWorld(engine, clock)
        world.embedded, world.counted = embedded, Counter()
        embedded.app.on_exchange.append(world.count)
        gateway = StripeSdkGateway(
            embedded.api_key, world.ids, api_base=embedded.base_url, requests_per_s=100_000
        )
        world.stripe = gateway
        world._build()
        await world.start()
        try:
            yield world
        finally:
            await gateway.close()
            await engine.close()


async def order(world: World, name: str = "alice", plan: str = "basic") -> None:
    await world.orders.new(await world.command("new"), name, plan)
    await world.pass_time(120, step=30)


# --- many tenants -------------------------------------------------------------------------------


async def multiply(world: CountedWorld, count: int) -> None:
    """`count` tenants like the one that is there, at Stripe and here."""
    stripe = world.embedded.world
    (customer,) = stripe.table("customer").values()
    (sub,) = stripe.table("subscription").values()
    (invoice,) = stripe.table("invoice").values()
    (relay,) = await world.relays()
    (mirror,) = await world.invoices()
    for number in range(2, count + 1):
        pubkey = f"{number:064x}"
        names = {
            ALICE: pubkey,
            relay.id: f"rly_{number:06d}",
            f"relay_{relay.name}": f"relay_r{number}",
            customer["id"]: f"cus_{number:024d}",
            sub["id"]: f"sub_{number:024d}",
            invoice["id"]: f"in_{number:024d}",
            sub["_items"][0]["id"]: f"si_{number:024d}",
        }
        for obj in (customer, sub, invoice):
            stripe.add(_renamed(copy.deepcopy(obj), names))
        async with world.engine.transaction() as tx:
            await tx.execute(
                "tenants.insert", pubkey=pubkey, name=pubkey[:8], legacy_dm=0, created_at=1
            )
            await tx.execute(
                "tenants.set_customer", pubkey=pubkey, customer_id=names[customer["id"]]
            )
            await tx.execute(
                "tenants.set_subscription",
                pubkey=pubkey,
                subscription_id=names[sub["id"]],
                status="active",
                period_end=sub["_items"][0]["current_period_end"],
            )
            await tx.execute(
                "relays.insert",
                id=names[relay.id],
                tenant=pubkey,
                name=f"r{number}",
                plan=relay.plan,
                state="active",
                wanted_rev=0,
                sync_due_at=None,
                created_at=1,
                expires_at=None,
                activated_at=1,
            )
            await tx.execute(
                "invoices.upsert",
                **{name: getattr(mirror, name) for name in MIRRORED},
                id=names[invoice["id"]],
                tenant=pubkey,
                customer_id=names[customer["id"]],
                subscription_id=names[sub["id"]],
            )
            await tx.execute(
                "relays.link_invoice", invoice_id=names[invoice["id"]], relay_id=names[relay.id]
            )


MIRRORED = (
    "status", "currency", "total_minor", "amount_due_minor", "amount_remaining_minor",
    "billing_reason", "number", "created_at", "period_start", "period_end", "fetched_at",
)  # fmt: skip


def _renamed(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {_renamed(k, names): _renamed(v, names) for k, v in value.items()}
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    if isinstance(value, str):
        head, colon, rest = value.partition(":")
        return names.get(value) or (names.get(head, head) + colon + rest)
    return value


# --- what is counted ----------------------------------------------------------------------------


async def start_up(count: int) -> Counter[str]:
    """A start with so many tenants of whom nothing has changed."""
    async with counted_world() as world:
        if count:
            await world.connect_wallet()
            await order(world)
            await multiply(world, count)
        await world.pass_time(10 * DAY_S, step=10 * DAY_S)
        await world.stand()
        world.counted.clear()
        await world.start_up()
        return world.counted


async def first_order() -> Counter[str]:
    """A tenant's first relay, paid by the connected wallet."""
    async with counted_world() as world:
        await world.connect_wallet()
        world.counted.clear()
        await order(world)
        return world.counted


async def another_relay() -> Counter[str]:
    """A second relay on the running subscription, paid by the wallet."""
    async with counted_world() as world:
        await world.connect_wallet()
        await order(world)
        world.counted.clear()
        await order(world, "second", "pro")
        return world.counted


async def plan_change() -> Counter[str]:
    """Another plan for a running relay: the quote, the confirmation, the payment by wallet."""
    async with counted_world() as world:
        await world.connect_wallet()
        await order(world)
        await world.pass_time(10 * DAY_S, step=10 * DAY_S)
        world.counted.clear()
        await world.plan_desk.ask(await world.command("plan"), "alice", "pro")
        await world.pass_time(60, step=30)
        code = str((await world.messages())[-1][1]["code"])
        await world.plan_desk.confirm(await world.command("confirm"), code)
        await world.pass_time(120, step=30)
        assert [relay.plan for relay in await world.relays()] == ["pro"]
        return world.counted


async def renewal() -> Counter[str]:
    """From the end of a period to the paid invoice, by the wallet."""
    async with counted_world() as world:
        await world.connect_wallet()
        await order(world)
        (sub,) = world.embedded.world.table("subscription").values()
        ends = int(sub["_items"][0]["current_period_end"])
        await world.pass_time(ends - world.clock.now() - 3600, step=40 * DAY_S)
        world.counted.clear()
        await world.pass_time(3 * 3600, step=600)
        assert all(invoice.status == "paid" for invoice in await world.invoices())
        assert len(await world.invoices()) == 2
        return world.counted


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    what: str
    calls: Counter[str]

    def __str__(self) -> str:
        most = ", ".join(
            f"{count} × `{name}`" if count > 1 else f"`{name}`"
            for name, count in sorted(self.calls.items(), key=lambda row: (-row[1], row[0]))
        )
        return f"| {self.what} | {sum(self.calls.values())} | {most} |"


EVENTS: Sequence[tuple[str, Callable[[], Awaitable[Counter[str]]]]] = (
    ("a first order, paid by wallet", first_order),
    ("another relay on another plan, paid by wallet", another_relay),
    ("a plan change (upgrade) with its quote, paid by wallet", plan_change),
    ("a renewal, paid by wallet", renewal),
)


async def rows(sizes: Sequence[int]) -> list[Row]:
    """Every line, in order."""
    made = [
        Row(f"start, {f'{size:,}'.replace(',', ' ')} unchanged tenants", await start_up(size))
        for size in sizes
    ]
    return made + [Row(what, await count()) for what, count in EVENTS]


def table(lines: Sequence[Row]) -> str:
    """As it stands in docs/stripe.md."""
    return "\n".join(["| what | calls | which |", "|---|---|---|", *map(str, lines)])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=SIZES)
    parser.add_argument("--write", action="store_true", help="put it into docs/stripe.md")
    asked = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    made = table(asyncio.run(rows(asked.sizes)))
    sys.stdout.write(f"{made}\n")
    if asked.write:
        before, _, rest = DOC.read_text(encoding="utf-8").partition(BEGIN)
        old, _, after = rest.partition(END)
        kept = {_what(line): line for line in old.splitlines()}
        fresh = {_what(line): line for line in made.splitlines()}
        # What was not measured now stands as it was.
        text = "\n".join((kept | fresh).values() if kept.keys() >= fresh.keys() else fresh.values())
        DOC.write_text(f"{before}{BEGIN}{text}\n{END}{after}", encoding="utf-8")


def _what(line: str) -> str:
    return line.split("|")[1].strip()


if __name__ == "__main__":
    main()
