-- How much is due now, by kind of work: for metrics.

-- name: events
-- Stripe events that wait for their handler.
SELECT COUNT(*) FROM inbox_events WHERE next_try_at <= :now

-- name: subscriptions
-- Tenants whose subscription is to be brought in step.
SELECT COUNT(*) FROM tenants WHERE sync_due_at <= :now

-- name: collections
-- Invoices that collection is to look at.
SELECT COUNT(*) FROM invoices WHERE collect_due_at <= :now

-- name: lookups
-- Payment requests our wallet is to be asked about.
SELECT COUNT(*) FROM payment_requests WHERE next_lookup_at <= :now

-- name: settlements
-- Money that has no home yet.
SELECT COUNT(*) FROM settlements WHERE next_try_at <= :now

-- name: relays
-- Relays that the relay host is to be told about.
SELECT COUNT(*) FROM hosted_relays WHERE sync_due_at <= :now

-- name: messages
-- Messages to send.
SELECT COUNT(*) FROM outbox_messages WHERE next_try_at <= :now

-- name: dead_letters
-- Stripe events that were given up.
SELECT COUNT(*) FROM inbox_events WHERE state = 'failed'
