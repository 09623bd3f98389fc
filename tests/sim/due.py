"""When each worker of a simulated life has something to do, so that idle rounds are skipped."""

from __future__ import annotations

import sqlite3

from billing.preflight import steps_of

IS_DUE = {
    "events": "SELECT 1 FROM inbox_events WHERE next_try_at <= :now",
    "subscriptions": "SELECT 1 FROM tenants WHERE sync_due_at <= :now",
    "plans": "SELECT 1 FROM plan_changes WHERE (state = 'wanted' AND next_try_at <= :now) "
    "OR (state = 'quoted' AND quote_expires_at <= :now) "
    "OR (state = 'scheduled' AND next_at <= :now) "
    "OR (state IN ('confirmed', 'ordered') AND (due_until <= :now OR invoice_id IN "
    "(SELECT id FROM invoices WHERE status IN ('void', 'deleted'))))",
    "cards": "SELECT 1 FROM cards WHERE look_due_at <= :now OR warn_at <= :now",
    "collection": "SELECT 1 FROM invoices WHERE collect_due_at <= :now OR nwc_retry_at <= :now",
    "resolver": "SELECT 1 FROM payment_requests WHERE next_lookup_at <= :now",
    "payer look-ups": "SELECT 1 FROM payment_attempts AS a "
    "JOIN payment_requests AS r ON r.id = a.request_id WHERE a.state = 'in_flight' "
    "AND r.state = 'open' AND r.claimed_at IS NULL AND a.in_flight_at + 60 <= :now",
    "settlements": "SELECT 1 FROM settlements WHERE next_try_at <= :now",
    "outbox": "SELECT 1 FROM outbox_messages WHERE next_try_at <= :now",
    "refunds": "SELECT 1 FROM refunds WHERE next_try_at <= :now",
    "prober": "SELECT 1 FROM connections WHERE probe_due_at <= :now",
    "relays": "SELECT 1 FROM hosted_relays WHERE sync_due_at <= :now "
    "OR (stops_at <= :now AND state <> 'ended') "
    "OR (expires_at <= :now AND state = 'pending_payment')",
    "dunning": "SELECT 1 FROM dunning_windows AS w "
    "JOIN invoices AS i ON i.id = w.invoice_id "
    "LEFT JOIN outbox_messages AS m ON m.key = w.message_key "
    "WHERE w.closed_at IS NULL AND (w.next_look_at <= :now "
    "OR i.status IN ('paid', 'void', 'deleted') "
    "OR (w.told_clock IS NULL AND m.state = 'delivered')) "
    "UNION ALL SELECT 1 FROM dunning_windows "
    "WHERE end_subscription_id IS NOT NULL AND next_look_at <= :now "
    "UNION ALL SELECT 1 FROM dunning_clock WHERE beat_at <= :now - 300 "
    "OR paused_at <= :now - 3600 "
    "UNION ALL SELECT 1 FROM invoices AS i JOIN invoice_relays AS l ON l.invoice_id = i.id "
    "JOIN hosted_relays AS r ON r.id = l.relay_id "
    "WHERE i.status IN ('open', 'uncollectible') AND i.billing_reason = 'subscription_cycle' "
    "AND r.activated_at IS NOT NULL AND r.state IN ('active', 'limited', 'stopped') "
    "AND NOT EXISTS (SELECT 1 FROM dunning_windows WHERE invoice_id = i.id)",
}
"""SQL with `:now`. A round that would find nothing is skipped: most of a simulation's time would
go there."""


def is_preflight_due(
    connection: sqlite3.Connection, now: int, notice_days: tuple[int, ...]
) -> bool:
    """Whether some renewal's step has come and was not looked at; a silent wallet's retry has its
    time."""
    rows = connection.execute(
        "SELECT pubkey, period_end FROM tenants WHERE subscription_id IS NOT NULL "
        "AND subscription_status IN ('active', 'past_due') AND period_end > ?",
        (now,),
    ).fetchall()
    for tenant, ends_at in rows:
        for step in steps_of(notice_days):
            if not now + step.after_s < ends_at <= now + step.until_s:
                continue
            mark = connection.execute(
                "SELECT value FROM cursors WHERE name = ?", (f"preflight:{step.name}:{tenant}",)
            ).fetchone()
            period, *rest = ("",) if mark is None else str(mark[0]).split("?")
            if period != str(ends_at) or (rest and int(rest[-1]) <= now):
                return True
    return False
