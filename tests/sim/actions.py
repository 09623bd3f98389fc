"""What people do, and what goes wrong: one small function each, chosen by the seed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from billing.refunds import RefundWay
from billing.views import StripeEvent
from tests.fakes.stripe_books import Card, Invoice
from tests.sim.lightning import OutsidePayee
from tests.sim.payers import BEHAVIOURS, OutsidePayer
from tests.sim.world import SimWorld, uri_of, wallet_key

HOUR_S = 3600


def _tenant(world: SimWorld) -> str:
    return world.rng.choice(world.tenants)


def _relay_of(world: SimWorld, tenant: str, which: str = "TRUE") -> str | None:
    """The name of one of the tenant's living relays, of those that are `which`."""
    rows = world.connection.execute(
        f"SELECT name FROM hosted_relays WHERE tenant = ? AND state <> 'ended' AND ({which}) "
        "ORDER BY id",
        (tenant,),
    ).fetchall()
    return world.rng.choice(rows)[0] if rows else None


# --- tenants ------------------------------------------------------------------------------------


def order(world: SimWorld) -> None:
    tenant, name = _tenant(world), f"relay-{world.next_number()}"
    plan = world.rng.choice(("basic", "basic", "pro", "free"))
    world.command(tenant, f"new {plan}", lambda bot, c: bot.orders.new(c, name, plan))


def stop(world: SimWorld) -> None:
    tenant = _tenant(world)
    if name := _relay_of(world, tenant):
        world.command(tenant, "stop", lambda bot, c: bot.orders.stop(c, name, confirmed=True))


def change_plan(world: SimWorld) -> None:
    """A tenant asks what another plan costs; who likes the offer confirms it (`on_message`)."""
    tenant = _tenant(world)
    if name := _relay_of(world, tenant):
        plan = world.rng.choice(("basic", "pro", "pro"))
        world.count("plan_asked")
        world.command(tenant, f"plan {plan}", lambda bot, c: bot.plan_desk.ask(c, name, plan))


def resume(world: SimWorld) -> None:
    """A tenant keeps a relay that is being stopped, or orders one again that lapsed."""
    tenant = _tenant(world)
    if name := _relay_of(world, tenant, "stop_requested_at IS NOT NULL OR lapses_at IS NOT NULL"):
        world.count("resumed")
        world.command(tenant, "resume", lambda bot, c: bot.resumes.resume(c, name))


def promise(world: SimWorld) -> None:
    days = str(world.rng.randint(1, 7))
    world.command(_tenant(world), "promise", lambda bot, c: bot.promises.promise(c, days))


def connect(world: SimWorld) -> None:
    tenant, number = _tenant(world), len(world.wallets)
    if number >= world.max_wallets:
        return
    wallet = world.wallets[wallet_key(number)] = OutsidePayer(world, tenant)
    wallet.behaviour = world.rng.choice(("pays", "random", "random", *BEHAVIOURS))
    uri = uri_of(number)
    world.command(tenant, "wallet", lambda bot, c: bot.wallets.connect(c, uri))


def disconnect(world: SimWorld) -> None:
    world.command(_tenant(world), "wallet off", lambda bot, c: bot.wallets.off(c))


def pay(world: SimWorld) -> None:
    world.command(_tenant(world), "pay", lambda bot, c: bot.accounts.pay(c))


def change_wallet(world: SimWorld) -> None:
    if not world.wallets:
        return
    wallet = world.rng.choice(list(world.wallets.values()))
    kind = world.rng.choice(("behaviour", "behaviour", "asleep", "revoked"))
    if kind == "behaviour":
        wallet.behaviour = world.rng.choice(("random", *BEHAVIOURS))
    elif kind == "asleep":
        wallet.asleep_until = world.clock.now() + world.rng.choice((60, HOUR_S, 86400))
    else:
        world.count("wallet_revoked")
        wallet.revoked = True


def card(world: SimWorld) -> None:
    """A tenant gives Stripe a card, or takes it away."""
    customer = world.stripe.customer_of(_tenant(world))
    if customer is None:
        return
    kind = world.rng.choice(("ok", "ok", "decline", "processing", "requires_action", "none"))
    world.count(f"card_{kind}")
    world.stripe.gateway.set_card(customer, cast(Card, kind))
    world.stripe.books.tell("customer.updated", world.stripe.books.customers[customer])


# --- the Dashboard ------------------------------------------------------------------------------


def _open(world: SimWorld) -> Invoice | None:
    found = [i for i in world.stripe.books.invoices.values() if i.status == "open"]
    return world.rng.choice(found) if found else None


def dashboard_pay(world: SimWorld) -> None:
    invoice = _open(world)
    if invoice is not None:
        world.count("dashboard_paid")
        world.say(f"Dashboard: {invoice.id} is marked paid")
        world.dashboard_minor[invoice.id] = invoice.remaining
        world.stripe.books.mark_paid(invoice, off_stripe=True)


def dashboard_void(world: SimWorld) -> None:
    invoice = _open(world)
    if invoice is not None:
        world.count("dashboard_voided")
        world.say(f"Dashboard: {invoice.id} is voided")
        world.stripe.books.void(invoice)


def forge(world: SimWorld) -> None:
    """An event that says paid of an invoice that is not."""
    invoice, bot = _open(world), world.active()
    if invoice is None or bot is None:
        return
    world.count("forged_event")
    number = world.next_number()
    body = {
        "id": invoice.id,
        "object": "invoice",
        "customer": invoice.customer.id,
        "status": "paid",
        "remaining": 0,
    }
    now = world.clock.now()
    raw: dict[str, Any] = {
        "id": f"evt_forged_{number}",
        "object": "event",
        "type": "invoice.paid",
        "created": now,
        "livemode": False,
        "data": {"object": body},
    }
    event = StripeEvent(raw["id"], "invoice.paid", now, False, raw)
    bot.life.spawn("forged", world.ingest(bot, event))


# --- what breaks --------------------------------------------------------------------------------


WHERE = (
    "publish",
    "published",
    "commit",
    "stripe.pay",
    "stripe.annotate",
    "stripe.create",
    "stripe.update",
    "stripe.credit",
    "stripe.invoice",
    "payee.make_invoice",
    "payee.lookup",
    "on its way",
)
"""Names of points at which a process ends more interestingly than elsewhere."""


def _where(world: SimWorld) -> tuple[str, int]:
    """A name to wait for and how often, or any point."""
    if world.rng.random() < 0.5:
        return world.rng.choice(WHERE), world.rng.choice((1, 1, 2))
    return "", world.rng.choice((1, world.rng.randint(1, 20), world.rng.randint(1, 150)))


def kill(world: SimWorld) -> None:
    bot = world.active()
    if bot is not None:
        bot.life.kill_at, bot.life.kill_in = _where(world)


def freeze(world: SimWorld) -> None:
    """The process stands still at some point; often another one is started meanwhile."""
    bot = world.active()
    if bot is None:
        return
    bot.life.freeze_s = world.rng.choice((10, 40, 700, 700, 2 * HOUR_S, 9 * HOUR_S))
    bot.life.freeze_at, bot.life.freeze_in = _where(world)
    if world.rng.random() < 0.7:
        second(world)


def second(world: SimWorld) -> None:
    """A second process on the same database, by mistake."""
    if len(world.living()) < 2:
        world.count("second_process")
        world.start_bot()


def payee_down(world: SimWorld) -> None:
    world.count("payee_down")
    down_s = world.rng.choice((60, 1200, 3 * HOUR_S, 10 * HOUR_S))
    world.payee.down_until = max(world.payee.down_until, world.clock.now() + down_s)
    world.outage(down_s)


def payee_odd(world: SimWorld) -> None:
    world.payee.forgetful = world.rng.random() < 0.5
    world.payee.lag_s = world.rng.choice((0, 0, 20, 60))


def stripe_down(world: SimWorld) -> None:
    world.count("stripe_outage")
    down_s = world.rng.choice((60, 900, 3 * HOUR_S, 40 * HOUR_S))
    network = world.network
    network.stripe_down_until = max(network.stripe_down_until, world.clock.now() + down_s)
    world.outage(down_s)


def bot_away(world: SimWorld) -> None:
    """The laptop stays closed for days; what falls due meanwhile falls due."""
    world.count("bot_away")
    world.away_until = world.clock.now() + world.rng.choice((2, 5, 12)) * 24 * HOUR_S
    _end_all(world)


def away_while_owing(world: SimWorld) -> None:
    """As `bot_away`, just when somebody has been reminded: time that must not count (K7)."""
    sql = "SELECT 1 FROM dunning_windows WHERE closed_at IS NULL AND day >= 1"
    if world.connection.execute(sql).fetchone() is not None:
        bot_away(world)


def inbox_down(world: SimWorld) -> None:
    world.count("inbox_relays_down")
    world.courier.down_until = world.clock.now() + world.rng.choice((60, 2 * HOUR_S, 40 * HOUR_S))


def reconcile(world: SimWorld) -> None:
    bot = world.active()
    if bot is not None:
        bot.life.spawn("reconcile", bot.reconcile())


def refund(world: SimWorld) -> None:
    """The operator gives a paid invoice back, all or a part, sometimes twice in a hurry."""
    bot = world.active()
    paid = [i for i in world.stripe.books.invoices.values() if i.status == "paid" and i.paid]
    if bot is None or not paid:
        return
    invoice, rng = world.rng.choice(paid), world.rng
    way = rng.choice((None, None, *RefundWay))
    part = rng.choice((None, None, rng.randint(1, invoice.paid)))
    world.count(f"refund_{way.value if way else 'as_paid'}")
    for _ in range(2 if rng.random() < 0.2 else 1):
        bot.life.spawn(
            "refund",
            bot.operate(
                f"refund {invoice.id} {part} {way}",
                lambda: bot.refund_desk.refund(invoice.id, part, way, "as asked"),
            ),
        )


def credit(world: SimWorld) -> None:
    bot, tenant = world.active(), _tenant(world)
    if bot is None:
        return
    world.count("credit_given")
    amount = world.rng.choice((50, 400, 1300))
    bot.life.spawn(
        "credit",
        bot.operate(
            f"credit {tenant[:4]} {amount}",
            lambda: bot.refund_desk.credit(tenant, amount, "usd", "for the outage"),
        ),
    )


def _carded(world: SimWorld) -> Invoice | None:
    """One that a card paid and of which nothing went back: who gives back twice by hand is not
    Purser's to stop."""
    gateway = world.stripe.gateway
    gone = {r.payment_intent_id for r in gateway.refunds.values()}
    gone |= {f"pi_{note.invoice_id}" for note in gateway.notes.values()}
    gone |= {f"pi_{asked.invoice_id}" for asked in world.spender.asked.values()}
    found = [
        i
        for i in world.stripe.books.invoices.values()
        if i.status == "paid" and i.paid > i.off_stripe and f"pi_{i.id}" not in gone
    ]
    return world.rng.choice(found) if found else None


def dashboard_refund(world: SimWorld) -> None:
    invoice = _carded(world)
    if invoice is not None:
        world.count("dashboard_refunded")
        amount = world.rng.randint(1, invoice.paid - invoice.off_stripe)
        world.stripe.gateway.made_in_dashboard(invoice.id, amount)


def dispute(world: SimWorld) -> None:
    """A cardholder goes to the bank; in the end one of them is right."""
    invoice = _carded(world)
    if invoice is None:
        return
    world.count("disputed")
    opened = world.stripe.gateway.open_dispute(invoice.id)
    end = world.rng.choice(("won", "lost"))
    world.after(
        world.rng.choice((600, 3 * 24 * HOUR_S)),
        lambda: world.stripe.gateway.close_dispute(opened.id, end),
    )


def slow_refund(world: SimWorld) -> None:
    """Card refunds take their time at Stripe, and some bounce."""
    world.stripe.gateway.refund_status = world.rng.choice(("succeeded", "pending"))
    world.after(world.rng.choice((60, 24 * HOUR_S)), lambda: settle_refunds(world))


def settle_refunds(world: SimWorld) -> None:
    gateway = world.stripe.gateway
    for name, view in list(gateway.refunds.items()):
        if view.status == "pending":
            end = world.rng.choice(("succeeded", "succeeded", "failed"))
            world.count(f"card_refund_{end}")
            gateway.settle_refund(name, end)


def spender_down(world: SimWorld) -> None:
    world.count("spender_down")
    world.spender.down_until = world.clock.now() + world.rng.choice((60, 3 * HOUR_S))


def payee_replaced(world: SimWorld) -> None:
    """The operator configures another wallet, in mid-flight; the old one may be gone for good."""
    if len(world.payees) < 3:
        world.count("payee_replaced")
        if world.rng.random() < 0.3:
            world.count("payee_gone")
            world.payee.gone = True
        world.payees.append(OutsidePayee(world, len(world.payees)))
        world.outages.clear()  # which of them were of the other wallet is not kept
        _end_all(world)


def _end_all(world: SimWorld) -> None:
    for bot in [*world.living(), *world.copies]:
        bot.life.die()


def rates(world: SimWorld) -> None:
    kind = world.rng.choice(("jump", "disagree", "lie", "grow_old", "fall_silent"))
    world.count(f"rates_{kind}")
    if kind == "jump":
        world.market.jump(world.rng.choice((0.8, 0.88, 1.15, 1.4)))
    else:
        getattr(world.market, kind)(world.rng.choice((100, 900, 5 * HOUR_S)))


def backup(world: SimWorld) -> None:
    world.count("backup_made")
    world.back_up()


BACKUP_LIVES_S = 20 * 24 * HOUR_S
"""Nobody puts back a database of last month."""


def restore(world: SimWorld) -> None:
    """The disk is lost, and what there is of it is put back."""
    backup = world.backup
    if backup is not None and world.clock.now() - backup.at < BACKUP_LIVES_S:
        world.restoring = world.backup
        _end_all(world)


def copy_wakes(world: SimWorld) -> None:
    """Somebody starts a copy of the machine, while this one runs."""
    if not world.copies:
        world.count("copy_beside")
        world.start_copy()


def nothing(world: SimWorld) -> None:
    return


Action = Callable[[SimWorld], None]
PEOPLE: tuple[tuple[Action, int], ...] = (
    (order, 8),
    (connect, 6),
    (pay, 6),
    (card, 7),
    (stop, 2),
    (disconnect, 1),
    (change_plan, 3),
    (promise, 1),
    (change_wallet, 3),
    (reconcile, 3),
    (backup, 2),
    (refund, 3),
    (credit, 1),
    (nothing, 8),
)
OF_OTHER_SETTINGS: tuple[tuple[Action, int], ...] = ((resume, 2),)
"""What people also do where a seed has settings that are not the defaults."""
FAULTS: tuple[tuple[Action, int], ...] = (
    (kill, 12),
    (bot_away, 1),
    (away_while_owing, 6),
    (freeze, 4),
    (second, 1),
    (payee_down, 2),
    (payee_odd, 2),
    (stripe_down, 2),
    (inbox_down, 1),
    (payee_replaced, 1),
    (rates, 3),
    (dashboard_refund, 2),
    (dispute, 2),
    (slow_refund, 1),
    (spender_down, 1),
    (restore, 2),
    (copy_wakes, 1),
    (dashboard_pay, 1),
    (dashboard_void, 1),
    (forge, 2),
)


def choose_faults(world: SimWorld) -> list[tuple[Action, int]]:
    """A subset for each seed: what always goes wrong together hides what goes wrong alone."""
    return [fault for fault in FAULTS if world.rng.random() < 0.6]


async def settle(world: SimWorld, seconds: int) -> None:
    await world.pass_time(seconds)
    await asyncio.sleep(0)
