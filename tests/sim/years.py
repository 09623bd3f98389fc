"""Two years of many tenants: every event type, Stripe away for a week, the bot away for 40 days.

The same world and the same checkers as in `tests.sim.run`, lived slowly: renewals month by month,
the default dunning timeline in counted time, cards and wallets that change, disputes, refunds, what
people do in the Dashboard. In the end everything converges.
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import asyncio
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from billing.dunning import Policy
from billing.handlers import EVENT_TYPES, NAMELESS
from tests.fakes.stripe_books import Subscription
from tests.sim import actions, final, ledger
from tests.sim.loop import VirtualLoop
from tests.sim.run import DRAIN, Result, calm, finish, listen
from tests.sim.world import SimWorld, wallet_key

DAY_S = 86_400
STEP_S = 3 * 3600
"""Between two looks at the world; the bot acts in between whenever something happens."""
EVENTS_KEPT_S = 30 * DAY_S
"""Stripe's `/v1/events`."""
SETTLING_DAYS = 45
"""After the last fault: longer than the dunning timeline."""
GRACE_S = 5 * DAY_S
"""Over the timeline: nights, messages on their way, one look in three hours."""
NOT_PLAYED = frozenset({"checkout.session.completed", "customer.deleted"})
"""Told of about nothing here: nobody fills in a page, and no customer is deleted; in unit tests."""
WRITES = ("credit_customer", "debit_customer", "create_credit_note")


@dataclass(frozen=True)
class Shape:
    """How many, how long, and when the great outages begin (days; None: never)."""

    tenants: int = 200
    days: int = 730
    stripe_away_at: int | None = 140
    bot_away_at: int | None = 400
    effects: bool = True
    """Whether each type of event must have been about something by the end."""


SMALL = Shape(tenants=10, days=120, stripe_away_at=40, bot_away_at=60, effects=False)


class Writes(list[Any]):
    """The gateway's log of calls, of which a world of years keeps only what its checkers read."""

    def append(self, call: Any) -> None:
        if call[0] in WRITES:
            super().append(call)


# --- what happens -------------------------------------------------------------------------------


def _living(world: SimWorld) -> Subscription | None:
    found = [s for s in world.stripe.books.subscriptions.values() if not s.is_terminal]
    return world.rng.choice(found) if found else None


def connect(world: SimWorld) -> None:
    """Most wallets do what they should, most of the time."""
    known = len(world.wallets)
    actions.connect(world)
    if len(world.wallets) > known and world.rng.random() < 0.85:
        world.wallets[wallet_key(known)].behaviour = "pays"


def dashboard_cancel(world: SimWorld) -> None:
    """Cancelled in the Dashboard, now or at the period's end."""
    sub = _living(world)
    if sub is None or sub.status == "incomplete":
        return
    if world.rng.random() < 0.5:
        world.count("dashboard_cancelled")
        world.stripe.books.cancel(sub)
    else:
        world.count("dashboard_cancels_later")
        sub.cancel_at_period_end = True
        world.stripe.books.tell("customer.subscription.updated", sub)


def dashboard_quantity(world: SimWorld) -> None:
    """Somebody changes a quantity in the Dashboard."""
    sub = _living(world)
    if sub is not None and sub.status == "active":
        world.count("dashboard_quantity")
        sub.items[0].quantity += 1
        world.stripe.books.tell("customer.subscription.updated", sub)


def dashboard_uncollectible(world: SimWorld) -> None:
    found = [i for i in world.stripe.books.invoices.values() if i.status == "open"]
    if found:
        world.count("dashboard_uncollectible")
        invoice = world.rng.choice(found)
        invoice.status = "uncollectible"
        world.stripe.books.tell("invoice.marked_uncollectible", invoice)


def inject(world: SimWorld, kind: str | None = None) -> None:
    """Any event of those that the bot listens to, about something that may not need it: whatever
    Stripe tells, the object that is fetched again decides."""
    rng, books, gateway = world.rng, world.stripe.books, world.stripe.gateway
    kind = kind or rng.choice(EVENT_TYPES)
    customers = sorted(books.customers)
    if kind.startswith("payment_method."):
        customers = [c for c in customers if books.customers[c].card != "none"]
    if not customers:
        return
    refunded = sorted({(r.payment_intent_id or "")[3:] for r in gateway.refunds.values()})
    body: dict[str, str | None] = {"id": None, "customer": rng.choice(customers)}
    pools: tuple[tuple[str, str, list[str]], ...] = (
        ("invoice.", "invoice", sorted(books.invoices)),
        ("customer.subscription.", "subscription", sorted(books.subscriptions)),
        ("customer.", "customer", customers),
        ("payment_method.", "payment_method", [f"pm_{body['customer']}"]),
        ("checkout.", "checkout.session", ["cs_unknown"]),
        ("charge.dispute.", "dispute", sorted(gateway.disputes) or ["dp_unknown"]),
        ("charge.", "charge", [f"ch_{i}" for i in refunded] or ["ch_unknown"]),
        ("refund.", "refund", sorted(gateway.refunds) or ["re_unknown"]),
        ("credit_note.", "credit_note", sorted(gateway.notes) or ["cn_unknown"]),
    )
    name, ids = next((name, ids) for prefix, name, ids in pools if kind.startswith(prefix))
    if kind in NAMELESS:
        del body["id"]
    elif ids:
        body["id"] = rng.choice(ids)
    else:
        return
    world.count("event_injected")
    books.tell_of(kind, {**body, "object": name})


Act = Callable[[SimWorld], None]
LIFE: tuple[tuple[Act, float], ...] = (
    (actions.order, 3),
    (connect, 2),
    (actions.card, 2),
    (actions.stop, 2),
    (actions.resume, 2),
    (actions.pay, 4),
    (actions.change_plan, 2),
    (actions.promise, 1),
    (actions.change_wallet, 1),
    (actions.disconnect, 0.3),
    (actions.refund, 0.5),
    (actions.credit, 0.3),
    (actions.dashboard_refund, 0.3),
    (actions.dispute, 0.2),
    (actions.slow_refund, 0.2),
    (actions.dashboard_pay, 0.3),
    (actions.dashboard_void, 0.2),
    (dashboard_cancel, 0.2),
    (dashboard_quantity, 0.2),
    (dashboard_uncollectible, 0.1),
    (inject, 6),
    (actions.kill, 1),
    (actions.rates, 0.5),
    (actions.payee_down, 0.5),
    (actions.inbox_down, 0.3),
    (actions.spender_down, 0.2),
    (actions.reconcile, 2),
)
ACTS_A_DAY = 0.1
"""For each tenant: something happens every ten days."""


# --- a run --------------------------------------------------------------------------------------


def run_years(seed: int, shape: Shape = SMALL, story: Path | None = None) -> Result:
    """Deterministic, as `tests.sim.run.run_seed`. `story`: a directory for the whole trace, and for
    the database of a run that broke a rule: the last lines seldom say why."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(_run(seed, shape, story))


async def _run(seed: int, shape: Shape, story: Path | None) -> Result:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    world = SimWorld(seed, loop, shape.tenants)
    world.timeline, world.max_wallets = Policy(), 3 * shape.tenants
    world.stripe.gateway.calls = Writes()
    world.payee.lists = False
    saved = listen(world)
    if story is not None:
        world.story = (story / f"seed-{seed}.txt").open("w", encoding="utf-8")
    try:
        await _live(world, shape)
        if not world.violations:
            await _settle(world)
        if not world.violations:
            check(world)
        if shape.effects:
            _effects(world)
        if not world.violations:
            await ledger.check_ledger(world)
    except Exception:
        world.violate("bug", traceback.format_exc())
    if story is not None and world.violations:
        world.connection.execute("VACUUM INTO ?", (str(story / f"seed-{seed}.sqlite"),))
    result = await finish(world, saved)
    if world.story is not None:
        world.story.close()
    return result


async def _live(world: SimWorld, shape: Shape) -> None:
    rng = world.rng
    world.network.rate = 0.02
    world.start_bot()
    weights = [weight for _, weight in LIFE]
    steps = shape.days * DAY_S // STEP_S
    a_step = shape.tenants * ACTS_A_DAY * STEP_S / DAY_S
    for step in range(steps):
        if step % (DAY_S // STEP_S) == 0:
            _daily(world, step * STEP_S // DAY_S, shape)
        # People come in the first two months, then they live.
        eager = 2.0 if step < 60 * DAY_S // STEP_S else 1.0
        count = int(a_step * eager) + (rng.random() < a_step * eager % 1)
        for _ in range(count):
            act = rng.choices([act for act, _ in LIFE], weights)[0]
            if eager > 1 and rng.random() < 0.5:
                act = rng.choice((actions.order, connect, actions.card))
            act(world)
        await _pass(world)
        if world.violations:
            return


def _daily(world: SimWorld, day: int, shape: Shape) -> None:
    books, now = world.stripe.books, world.clock.now()
    books.events = [e for e in books.events if e.created_at > now - EVENTS_KEPT_S]
    books.after_last_retry = ("past_due", "unpaid", "cancel")[day // 240 % 3]
    if day % 7 == 0:
        actions.reconcile(world)
        for kind in sorted({*EVENT_TYPES} - _handled(world)) if day > 30 else ():
            inject(world, kind)
    if day == shape.stripe_away_at:
        world.count("stripe_away_a_week")
        world.network.stripe_down_until = now + 7 * DAY_S
        world.outage(7 * DAY_S)
    if day == shape.bot_away_at:
        world.count("bot_away_40_days")
        world.away_until = now + 40 * DAY_S
        for bot in world.living():
            bot.life.die()


async def _pass(world: SimWorld) -> None:
    await world.pass_time(STEP_S)
    await world.bury()
    if not world.living():
        if world.clock.now() < world.away_until:
            return
        world.start_bot()
    await world.tick()
    await asyncio.sleep(1)


async def _settle(world: SimWorld) -> None:
    """The faults stop and the timeline runs its course; then nothing new begins."""
    calm(world)
    for _ in range(SETTLING_DAYS * DAY_S // STEP_S):
        await _pass(world)
        if world.violations:
            return
        await _operate(world)
    actions.reconcile(world)
    for count, seconds in DRAIN[:4]:
        for _ in range(count):
            await world.pass_time(seconds)
            await world.tick()
            await asyncio.sleep(1)


async def _operate(world: SimWorld) -> None:
    bot = world.active()
    if bot is not None and world.rng.random() < 0.1:
        bot.life.spawn("operator", bot.resolve_by_hand())
        bot.life.spawn("operator", bot.operate("refunds", bot.decide_refunds))
        actions.reconcile(world)


# --- what must hold in the end ------------------------------------------------------------------


def check(world: SimWorld) -> None:
    """The checkers of every seed, and those of a long life."""
    final.check_all(world)
    _seats(world)
    _nobody_free_for_ever(world)
    for kind in EVENT_TYPES:
        if not world.told[kind]:
            world.violate("M14", f"no event of type {kind} came in all that time")


def _effects(world: SimWorld) -> None:
    for kind in sorted({*EVENT_TYPES} - _handled(world) - NOT_PLAYED):
        world.violate("M14", f"of all events of type {kind} none was about anything")


def _handled(world: SimWorld) -> set[str]:
    """Types of which at least one event had an effect, rather than being about nothing of ours."""
    found = "SELECT DISTINCT type FROM inbox_events WHERE state = 'handled'"
    return {row[0] for row in world.connection.execute(found)}


def _seats(world: SimWorld) -> None:
    """Every living subscription has as many seats as its tenant has relays, plan by plan."""
    wanted: Counter[tuple[str, str]] = Counter()
    for tenant, plan in world.connection.execute(
        "SELECT tenant, plan FROM hosted_relays WHERE state IN ('active', 'limited', 'stopped') "
        "AND stop_requested_at IS NULL AND plan <> 'free' AND id NOT IN (SELECT relay_id "
        "FROM plan_changes WHERE state IN ('confirmed', 'ordered', 'scheduled'))"
    ):
        wanted[tenant, plan] += 1
    billed: Counter[tuple[str, str]] = Counter()
    for sub in world.stripe.books.subscriptions.values():
        if not sub.is_terminal and not sub.cancel_at_period_end:
            owner = sub.customer.metadata["purser_pubkey"]
            for item in sub.items:
                billed[owner, final.plan_of(world, item.price.amount_minor)] += item.quantity
    in_motion = {
        row[0]
        for row in world.connection.execute(
            "SELECT pubkey FROM tenants WHERE sync_due_at IS NOT NULL "
            "OR subscription_status = 'incomplete' UNION SELECT tenant FROM hosted_relays "
            "WHERE state = 'pending_payment' "
            "UNION SELECT tenant FROM changes WHERE done_at IS NULL "
            "UNION SELECT tenant FROM plan_changes "
            "WHERE state IN ('confirmed', 'ordered', 'scheduled')"
        )
    }
    for key in sorted(wanted.keys() | billed.keys()):
        if key[0] not in in_motion and wanted[key] != billed[key]:
            world.violate(
                "M12", f"{key[0][:4]} has {wanted[key]} {key[1]} relays, {billed[key]} are billed"
            )


def _is_over(world: SimWorld, relay_id: str, invoice_id: str) -> bool:
    """What was written off and will not be paid: its timeline took the relay, which a later payment
    brought back; or it was an order that gave nothing, and the relay was ordered once more."""
    ended = world.connection.execute(
        "SELECT 1 FROM dunning_windows WHERE invoice_id = ? AND outcome = 'ended'", (invoice_id,)
    ).fetchone()
    return bool(
        ended
        or world.connection.execute(
            "SELECT 1 FROM invoices o JOIN invoice_relays l ON l.relay_id = ? "
            "JOIN invoices i ON i.id = l.invoice_id WHERE o.id = ? AND i.status = 'paid' "
            "AND o.billing_reason <> 'subscription_cycle' AND i.created_at > o.created_at",
            (relay_id, invoice_id),
        ).fetchone()
    )


def _nobody_free_for_ever(world: SimWorld) -> None:
    """A relay that is up owes nothing for longer than the timeline allows."""
    limit_s = max(step.day for step in world.timeline.steps) * DAY_S + GRACE_S
    books = world.stripe.books.invoices
    for name, invoice_id, relay_id in world.connection.execute(
        "SELECT r.name, l.invoice_id, r.id FROM hosted_relays r JOIN invoice_relays l "
        "ON l.relay_id = r.id WHERE r.state IN ('active', 'limited') AND r.plan <> 'free'"
    ):
        invoice = books.get(invoice_id)
        if invoice is None or invoice.status not in ("open", "uncollectible"):
            continue
        if invoice.status == "uncollectible" and _is_over(world, relay_id, invoice_id):
            continue
        age_s = world.counted_s(world.opened_at[invoice_id])
        if age_s > limit_s:
            world.violate(
                "M12", f"relay {name} is up, and {invoice_id} unpaid for {age_s // DAY_S} days"
            )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.years")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--tenants", type=int, default=200)
    parser.add_argument("--days", type=int, default=730)
    parser.add_argument("--trace", type=int, default=60, help="lines shown of a failing run")
    parser.add_argument("--story", type=Path, help="a directory for each seed's whole trace")
    args = parser.parse_args()
    shape = Shape(args.tenants, args.days)
    if args.days < 460:
        shape = Shape(args.tenants, args.days, args.days // 4, args.days // 2, effects=False)
    failed = 0
    for seed in range(args.start, args.start + args.seeds):
        began = time.perf_counter()
        result = run_years(seed, shape, args.story)
        took = time.perf_counter() - began
        for name, count in sorted(result.counts.items()):
            print(f"  {name:28} {count:8d}")
        for line in result.trace[-args.trace :] if result.violations else ():
            print(line)
        for violation in result.violations[:20]:
            print(f"seed {seed} breaks {violation.rule}: {violation.text}")
        failed += bool(result.violations)
        verdict = "failed" if result.violations else "every rule held"
        print(
            f"seed {seed}: {args.tenants} tenants, {args.days} days, {result.commits} commits in "
            f"{took:.0f} s: {verdict}",
            flush=True,
        )
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
