-- What is older than it may get: counted, and taken up where nobody would look at it again.

-- name: invoices
-- Open for long, and not read again for as long (K2).
SELECT id AS subject, tenant FROM invoices
WHERE status IN ('draft', 'open') AND created_at <= :before AND fetched_at <= :before
ORDER BY fetched_at, id LIMIT :count

-- name: count_invoices
-- Open for long.
SELECT COUNT(*) FROM invoices WHERE status IN ('draft', 'open') AND created_at <= :before

-- name: first_payments
-- Subscriptions that wait for a first payment longer than Stripe lets them.
SELECT subscription_id AS subject, pubkey AS tenant FROM tenants
WHERE subscription_status = 'incomplete' AND subscription_id IS NOT NULL AND EXISTS (
    SELECT 1 FROM invoices
    WHERE invoices.tenant = tenants.pubkey AND invoices.subscription_id = tenants.subscription_id
        AND invoices.billing_reason = 'subscription_create' AND invoices.created_at <= :before
)
ORDER BY pubkey LIMIT :count

-- name: count_first_payments
-- How many those are.
SELECT COUNT(*) FROM tenants
WHERE subscription_status = 'incomplete' AND subscription_id IS NOT NULL AND EXISTS (
    SELECT 1 FROM invoices
    WHERE invoices.tenant = tenants.pubkey AND invoices.subscription_id = tenants.subscription_id
        AND invoices.billing_reason = 'subscription_create' AND invoices.created_at <= :before
)

-- name: refunds
-- Refunds that are not at their end, and that nobody would look at again (V1).
SELECT id AS subject, tenant FROM refunds
WHERE state IN ('pending', 'in_flight') AND created_at <= :before AND next_try_at IS NULL
ORDER BY created_at, id LIMIT :count

-- name: count_refunds
-- Refunds that are not at their end.
SELECT COUNT(*) FROM refunds WHERE state IN ('pending', 'in_flight') AND created_at <= :before

-- name: take_refunds
-- Have the worker look at it; it asks Stripe or our wallet before it decides anything.
UPDATE refunds SET next_try_at = :now
WHERE id = :subject AND next_try_at IS NULL AND state IN ('pending', 'in_flight')

-- name: requests
-- Payment requests undecided long after they should be, and that nobody would look up again (M7).
SELECT id AS subject, tenant FROM payment_requests
WHERE state = 'open' AND expires_at + margin_s <= :before AND next_lookup_at IS NULL
ORDER BY expires_at, id LIMIT :count

-- name: count_requests
-- Payment requests undecided long after they should be.
SELECT COUNT(*) FROM payment_requests WHERE state = 'open' AND expires_at + margin_s <= :before

-- name: take_requests
-- Have our wallet asked.
UPDATE payment_requests SET next_lookup_at = :now
WHERE id = :subject AND next_lookup_at IS NULL AND state = 'open'

-- name: settlements
-- Proven money without a home, and that nobody would place (M9).
SELECT payment_hash AS subject, tenant FROM settlements
WHERE state = 'received' AND seen_at <= :before AND next_try_at IS NULL
ORDER BY seen_at, payment_hash LIMIT :count

-- name: count_settlements
-- Proven money without a home.
SELECT COUNT(*) FROM settlements WHERE state = 'received' AND seen_at <= :before

-- name: take_settlements
-- Have it placed.
UPDATE settlements SET next_try_at = :now
WHERE payment_hash = :subject AND next_try_at IS NULL AND state = 'received'

-- name: changes
-- Changes of a subscription under way whose tenant nobody would visit.
SELECT changes.id AS subject, changes.tenant FROM changes
JOIN tenants ON tenants.pubkey = changes.tenant
WHERE changes.done_at IS NULL AND changes.created_at <= :before AND tenants.sync_due_at IS NULL
ORDER BY changes.created_at, changes.id LIMIT :count

-- name: count_changes
-- Changes of a subscription that do not come to their end.
SELECT COUNT(*) FROM changes WHERE done_at IS NULL AND created_at <= :before

-- name: take_changes
-- Have the tenant visited.
UPDATE tenants SET sync_due_at = :now, sync_wishes = sync_wishes + 1
WHERE sync_due_at IS NULL
    AND pubkey = (SELECT tenant FROM changes WHERE id = :subject AND done_at IS NULL)

-- name: relays
-- Relays the relay host has not caught up with, and that it would not be told about again.
SELECT id AS subject, tenant FROM hosted_relays
WHERE wanted_rev <> applied_rev AND sync_due_at IS NULL AND created_at <= :before
ORDER BY id LIMIT :count

-- name: count_relays
-- Relays the relay host does not catch up with: forgotten, or tried five times and more.
SELECT COUNT(*) FROM hosted_relays
WHERE wanted_rev <> applied_rev AND (sync_due_at IS NULL OR sync_attempts >= 5)
    AND created_at <= :before

-- name: take_relays
-- Have the relay host told.
UPDATE hosted_relays SET sync_due_at = :now
WHERE id = :subject AND sync_due_at IS NULL AND wanted_rev <> applied_rev

-- name: messages
-- Messages that nobody would send.
SELECT key AS subject, recipient AS tenant FROM outbox_messages
WHERE state IN ('due', 'undeliverable') AND created_at <= :before AND next_try_at IS NULL
ORDER BY seq LIMIT :count

-- name: count_messages
-- Messages that have not arrived.
SELECT COUNT(*) FROM outbox_messages
WHERE state IN ('due', 'undeliverable') AND created_at <= :before

-- name: take_messages
-- Have it sent.
UPDATE outbox_messages SET next_try_at = :now
WHERE key = :subject AND next_try_at IS NULL AND state IN ('due', 'undeliverable')

-- name: events
-- Stripe events that nobody would handle.
SELECT event_id AS subject, NULL AS tenant FROM inbox_events
WHERE state = 'new' AND received_at <= :before AND next_try_at IS NULL
ORDER BY received_at, event_id LIMIT :count

-- name: count_events
-- Stripe events that were not handled: they wait for long, or are dead letters.
SELECT COUNT(*) FROM inbox_events
WHERE state IN ('new', 'failed') AND received_at <= :before

-- name: take_events
-- Have it handled.
UPDATE inbox_events SET next_try_at = :now
WHERE event_id = :subject AND next_try_at IS NULL AND state = 'new'
