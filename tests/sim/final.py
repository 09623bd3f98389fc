"""What must hold in the end: nothing unresolved, nothing lost, the books balance."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any

from billing.payments import MARGIN_S
from billing.rails.issue import noted_in
from tests.fakes.stripe_books import Invoice
from tests.sim.stored import check_stored
from tests.sim.told import check_told
from tests.sim.world import SimWorld

SLACK_S = 4 * 3600
"""Beyond expiry and margin: the look-ups of a payee that forgets what nobody paid (3 h)."""


def _rows(world: SimWorld, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    return world.connection.execute(sql, values).fetchall()


def unresolved(world: SimWorld) -> list[str]:
    """Everything that should have come to an end by now."""
    now = world.clock.now()
    over = now - max(MARGIN_S["lnd"], 0) - SLACK_S
    found: list[str] = []
    queries = (
        (
            "attempt {0} of {1} is still {2}",
            "SELECT a.id, a.invoice_id, a.state FROM payment_attempts a "
            "LEFT JOIN payment_requests r ON r.id = a.request_id "
            "WHERE a.state IN ('prepared', 'in_flight') "
            f"AND COALESCE(r.expires_at, a.prepared_at + 7200) < {over}",
        ),
        (
            "payment request {0} of {1} is open beyond its death",
            f"SELECT id, invoice_id FROM payment_requests WHERE state = 'open' "
            f"AND expires_at < {over}",
        ),
        (
            "money {0} of {1} has no home ({2})",
            "SELECT substr(payment_hash, 1, 8), invoice_id, state FROM settlements "
            "WHERE state = 'received' OR next_try_at IS NOT NULL",
        ),
        (
            "refund {0} by {1} is {2}",
            "SELECT id, way, state FROM refunds WHERE state IN ('pending', 'in_flight') "
            f"AND created_at < {now - 2 * 86400}",
        ),
        (
            "change {0} of {1} ({2}) is not done",
            f"SELECT id, substr(tenant, 1, 4), kind FROM changes WHERE done_at IS NULL "
            f"AND created_at < {now - 7200}",
        ),
        (
            "event {0} ({1}) is {2}, not acted on",
            "SELECT event_id, type, state FROM inbox_events WHERE handled_at IS NULL "
            f"AND received_at < {now - 7200}",
        ),
        (
            "message {0} is {1}",
            "SELECT key, state FROM outbox_messages WHERE state NOT IN ('delivered', 'replaced', "
            f"'undeliverable') AND created_at < {now - 86400}",
        ),
        (
            "credit {0} for {1} is {2}",
            "SELECT id, invoice_id, state FROM credit_spends WHERE ended_at IS NULL "
            f"AND created_at < {now - 7200}",
        ),
        (
            # An offer until it is taken or has run out; what is taken until it is paid or due.
            "plan change {0} of {1} is {2}",
            "SELECT id, substr(tenant, 1, 4), state FROM plan_changes WHERE CASE state "
            f"WHEN 'wanted' THEN created_at < {now - 7200} "
            f"WHEN 'quoted' THEN quote_expires_at < {now - 7200} "
            "WHEN 'confirmed' THEN COALESCE(due_until, confirmed_at + 86400) "
            f"< {now - 7200} "
            f"WHEN 'ordered' THEN due_until IS NULL OR due_until < {now - 7200} "
            f"WHEN 'scheduled' THEN next_at IS NULL OR next_at < {now - 7200} END",
        ),
        (
            "relay {0} is {1} and not so at the host",
            "SELECT name, state FROM hosted_relays WHERE wanted_rev <> applied_rev "
            f"AND created_at < {now - 7200}",
        ),
    )
    for text, sql in queries:
        found += [text.format(*row) for row in _rows(world, sql)]
    return found


def _refunds(world: SimWorld) -> None:
    """What is done was paid, what failed was not, and no more went back than had come (M3, V1)."""
    truth = world.spender.asked
    for refund_id, state, payment_hash in _rows(
        world, "SELECT id, state, payment_hash FROM refunds WHERE way = 'lightning' ORDER BY id"
    ):
        paid = payment_hash in truth and truth[payment_hash].paid_at is not None
        if paid != (state == "done"):
            world.violate("M5", f"refund {refund_id} is {state}, and paid={paid}")
    back: Counter[str] = Counter()
    for asked in truth.values():
        back[asked.invoice_id] += asked.amount_minor if asked.paid_at is not None else 0
    gateway = world.stripe.gateway
    for view in gateway.refunds.values():
        if not _is_of_a_lost_call(world, view.id, view.operation_id):
            lasting = view.status not in ("failed", "canceled")
            back[(view.payment_intent_id or "").removeprefix("pi_")] += lasting * view.amount_minor
    written = {note.operation_id: note for note in gateway.notes.values()}
    for name, arguments in gateway.calls:
        if name == "create_credit_note" and arguments["part"] == "credit":
            note = written.pop(arguments["operation_id"], None)
            if note is not None and not _is_of_a_lost_call(world, note.id, note.operation_id):
                back[note.invoice_id] += note.amount_minor
    for invoice in world.stripe.books.invoices.values():
        if back[invoice.id] > invoice.paid:
            world.violate(
                "M3", f"{back[invoice.id]} of {invoice.id} went back, {invoice.paid} had come"
            )


def _is_of_a_lost_call(world: SimWorld, name: str, operation_id: str | None) -> bool:
    """A call that only a lost database knew, and that reached Stripe once the older one was back:
    what was decided meanwhile could not know of it (operations.md). What stood at Stripe by then,
    whoever had put it there, had to be seen."""
    if world.restored_at is None or operation_id is None:
        return False
    known = _rows(
        world, "SELECT 1 FROM refunds WHERE ? IN (operation_id, note_operation_id)", operation_id
    )
    return not known and world.stripe.gateway.made_at[name] >= world.restored_at


def check_all(world: SimWorld) -> None:
    for text in unresolved(world):
        world.violate("M7", f"in the end {text}")
    _refunds(world)
    _events(world)
    _books(world)
    _doubles(world)
    _relays(world)
    _never_invoiced(world)
    _nights(world)
    _objects(world)
    check_stored(world)
    check_told(world)
    check_cards(world)


def check_cards(world: SimWorld) -> None:
    """Nobody is dunned who has a good card that was never tried, since a wallet was and failed:
    once its request is dead beyond its margin, the next rail is due (choice.py)."""
    over = world.clock.now() - SLACK_S
    known = {row[0] for row in _rows(world, "SELECT payment_hash FROM payment_requests")}
    for (invoice_id,) in _rows(
        world,
        "SELECT i.id FROM invoices i WHERE i.status = 'open' AND i.show_wanted = 0 AND EXISTS "
        "(SELECT 1 FROM payment_attempts a WHERE a.invoice_id = i.id AND a.rail = 'nwc') "
        "AND NOT EXISTS (SELECT 1 FROM payment_attempts a WHERE a.invoice_id = i.id "
        f"AND (a.rail = 'card' OR a.state IN ('prepared', 'in_flight') OR a.ended_at > {over})) "
        "AND NOT EXISTS (SELECT 1 FROM payment_requests r WHERE r.invoice_id = i.id "
        "AND (r.state = 'open' OR r.claimed_at IS NOT NULL OR r.unpaid_since IS NULL "
        f"OR r.expires_at + r.margin_s > {over} "
        # Our own wallet has not said since that nothing came: the card waits for the operator.
        "OR COALESCE(r.last_lookup_at, 0) < r.expires_at + r.margin_s)) ORDER BY i.id",
    ):
        invoice = world.stripe.books.invoices[invoice_id]
        if {noted.payment_hash for noted in noted_in(invoice.metadata)} - known:
            continue  # of another life; the audit judges those
        if invoice.status == "open" and invoice.remaining > 0 and invoice.customer.card == "ok":
            world.violate("M7", f"{invoice_id} waits: a wallet failed, and the card is not tried")


def check_orders(world: SimWorld) -> None:
    """What was ordered and waits for payment has an invoice that can be paid (M12); while a
    subscription waits for its first payment, what is ordered after it waits too."""
    books = world.stripe.books
    for relay_id, name in _rows(
        world,
        "SELECT r.id, r.name FROM hosted_relays r JOIN tenants t ON t.pubkey = r.tenant "
        "WHERE r.state = 'pending_payment' AND r.lapses_at IS NULL "
        # Who took it back waits for nothing (seed 2585).
        "AND r.stop_requested_at IS NULL "
        "AND COALESCE(t.subscription_status, '') <> 'incomplete' "
        f"AND r.created_at < {world.clock.now() - 7200} AND r.expires_at > {world.clock.now()} "
        # Where only the operator can say whether older money comes, new orders wait for that.
        "AND NOT EXISTS (SELECT 1 FROM payment_requests p WHERE p.tenant = r.tenant "
        "AND p.state = 'open' AND p.escalated_at IS NOT NULL) ORDER BY r.id",
    ):
        carriers = [
            books.invoices[row[0]].status
            for row in _rows(
                world, "SELECT invoice_id FROM invoice_relays WHERE relay_id = ?", relay_id
            )
        ]
        if not {"draft", "open"} & set(carriers):
            world.violate("M12", f"order {name} has no invoice that could be paid: {carriers}")


def _events(world: SimWorld) -> None:
    handled = {row[0] for row in _rows(world, "SELECT event_id FROM inbox_events")}
    for event_id in sorted(world.acknowledged - handled):
        world.violate("M14", f"event {event_id} was acknowledged and is lost")


def _books(world: SimWorld) -> None:
    """Every msat that the payee received is a paid invoice, credit, or a liability (M9, M10)."""
    received: Counter[str] = Counter()
    placed: Counter[str] = Counter()
    books = world.stripe.books
    for money in world.ln.values():
        if money.state != "settled":
            continue
        invoice = books.invoices[money.invoice_id]
        received[invoice.customer.metadata["purser_pubkey"]] += money.value_minor
    for invoice in books.invoices.values():
        theirs = invoice.off_stripe - world.dashboard_minor.get(invoice.id, 0)
        placed[invoice.customer.metadata["purser_pubkey"]] += theirs
    for name, arguments in world.credits:
        customer = books.customers[arguments["customer_id"]]
        sign = {"credit_customer": 1, "debit_customer": -1}[name]
        placed[customer.metadata["purser_pubkey"]] += sign * arguments["amount_minor"]
    for tenant, value in _rows(
        world, "SELECT tenant, value_minor FROM settlements WHERE state = 'liability'"
    ):
        placed[tenant] += value
    for tenant in world.tenants:
        if received[tenant] != placed[tenant]:
            world.violate(
                "M9",
                f"tenant {tenant[:4]} paid {received[tenant]} over Lightning and "
                f"{placed[tenant]} have a home",
            )


def _doubles(world: SimWorld) -> None:
    """No invoice is settled twice by rails that nobody asked (M4)."""
    for invoice in world.stripe.books.invoices.values():
        over_ln = [
            m
            for m in world.payee.of_invoice(invoice.id)
            if m.state == "settled" and m.paid_by == "nwc" and m.tainted is None
        ]
        by_card = 1 if invoice.card == "paid" else 0
        if len(over_ln) + by_card > 1:
            world.violate(
                "M4", f"{invoice.id} was paid {len(over_ln)} times by wallet, {by_card} by card"
            )


def _relays(world: SimWorld) -> None:
    """Up if paid (M13), and nobody is free for ever (M12)."""
    books = world.stripe.books
    seats: Counter[tuple[str, str]] = Counter()
    for sub in books.subscriptions.values():
        if not sub.is_terminal:
            owner = sub.customer.metadata["purser_pubkey"]
            for item in sub.items:
                seats[owner, plan_of(world, item.price.amount_minor)] += item.quantity
    used: Counter[tuple[str, str]] = Counter()
    for relay_id, name, tenant, plan, state, stop, lapses_at in _rows(
        world,
        "SELECT id, name, tenant, plan, state, stop_requested_at, lapses_at FROM hosted_relays "
        "ORDER BY id",
    ):
        at_host = world.host.relays.get(relay_id)
        is_up = at_host is not None and at_host.active
        if is_up != (state in ("active", "limited")):
            world.violate("M13", f"relay {name} is {state} and the host has up={is_up}")
        if plan == "free" or stop is not None:
            continue
        coming = _rows(
            world,
            "SELECT to_plan FROM plan_changes WHERE relay_id = ? AND state = 'scheduled'",
            relay_id,
        )
        if is_up and not coming:
            used[tenant, plan] += 1
        carriers = [
            books.invoices[row[0]]
            for row in _rows(
                world,
                "SELECT l.invoice_id FROM invoice_relays l JOIN invoices i ON i.id = l.invoice_id "
                "WHERE l.relay_id = ? ORDER BY i.created_at, i.id",
                relay_id,
            )
        ]
        # By policy a relay comes back once all that is owed for it is paid.
        owes = {"open", "uncollectible", "draft"} & {carrier.status for carrier in carriers}
        if state == "ended" and carriers and _has_share_back(world, carriers[-1]):
            continue
        if lapses_at is not None and carriers and _has_run_out(world, carriers[-1]):
            continue
        if carriers and carriers[-1].status == "paid" and not owes and not is_up:
            world.violate("M13", f"relay {name} ({state}) is paid and not up")
    for key, count in sorted(used.items()):
        if count > seats[key] and not _is_unsettled(world, key[0]):
            world.violate(
                "M12", f"{key[0][:4]} has {count} {key[1]} relays up and {seats[key]} are billed"
            )


def _never_invoiced(world: SimWorld) -> None:
    for sub in world.stripe.books.subscriptions.values():
        if sub.is_terminal and sum(sub.pending) > 0:
            world.count("provided_never_invoiced")
            world.say(f"never invoiced: {sub.id} {sub.pending}")


def _nights(world: SimWorld) -> None:
    """Nobody is dunned while the operator wants it quiet."""
    quiet = world.settings.quiet
    if quiet.zone is None:
        return
    hours = (quiet.until_hour - quiet.from_hour) % 24
    night = {(quiet.from_hour + hour) % 24 for hour in range(hours)}
    for kind, subject, at in _rows(
        world,
        "SELECT kind, subject, billing_at FROM activity WHERE kind IN ('dunning.due', "
        "'dunning.remind', 'dunning.limit', 'dunning.stop', 'dunning.end') ORDER BY seq",
    ):
        local = datetime.fromtimestamp(at, quiet.zone)
        world.count("step_with_quiet_hours")
        if local.hour in night:
            world.violate("quiet", f"{kind} of {subject} is taken at {local:%H:%M}, at night")


def _has_run_out(world: SimWorld, paid: Invoice) -> bool:
    """The time that it paid for is over: what was not renewed waits for its tenant (seed 73)."""
    subscription = paid.subscription
    if subscription is None or subscription.is_terminal:
        return subscription is None or subscription.period_end <= world.stripe.books.now
    return paid.created_at < subscription.period_start - 3600


def _has_share_back(world: SimWorld, paid: Invoice) -> bool:
    """What it paid for a relay that had ended is credit at Stripe (billing.comebacks)."""
    return any(
        name == "credit_customer" and arguments["operation_id"] == f"op_unused_{paid.id}"
        for name, arguments in world.stripe.gateway.calls
    )


def _is_unsettled(world: SimWorld, tenant: str) -> bool:
    """Its subscription waits for a first payment, or ended under its relays: a sync is due."""
    return bool(
        _rows(
            world,
            "SELECT 1 FROM tenants WHERE pubkey = ? AND (sync_due_at IS NOT NULL "
            "OR subscription_status = 'incomplete')",
            tenant,
        )
    )


def plan_of(world: SimWorld, amount_minor: int) -> str:
    return next(plan.id for plan in world.catalogue if plan.amount_minor == amount_minor)


def _objects(world: SimWorld) -> None:
    """One customer for a tenant, one living subscription for a customer (M11)."""
    books = world.stripe.books
    owners = Counter(c.metadata["purser_pubkey"] for c in books.customers.values())
    living = Counter(s.customer.id for s in books.subscriptions.values() if not s.is_terminal)
    for owner, count in sorted(owners.items()):
        if count > 1:
            world.violate("M11", f"tenant {owner[:4]} has {count} customers")
    for customer, count in sorted(living.items()):
        if count > 1:
            world.violate("M11", f"customer {customer} has {count} living subscriptions")
