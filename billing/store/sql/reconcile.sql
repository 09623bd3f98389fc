-- Reconcile: one page of Stripe's objects against what stands here. Ids come as a JSON list.

-- name: tenants_of_customers
-- Whose the subscriptions of a page are.
SELECT pubkey, name, customer_id, subscription_id, subscription_status, period_end, sync_due_at
FROM tenants WHERE customer_id IN (SELECT value FROM json_each(:ids))

-- name: tenants_of_customers [postgresql]
-- The same, in its own words for a JSON list.
SELECT pubkey, name, customer_id, subscription_id, subscription_status, period_end, sync_due_at
FROM tenants WHERE customer_id IN (SELECT jsonb_array_elements_text(CAST(CAST(:ids AS TEXT) AS JSONB)))

-- name: tenants_without_customer
-- Tenants that a restored backup knows without their customer.
SELECT pubkey, name, customer_id, subscription_id, subscription_status, period_end, sync_due_at
FROM tenants
WHERE customer_id IS NULL AND pubkey IN (SELECT value FROM json_each(:ids))

-- name: tenants_without_customer [postgresql]
-- The same, in its own words for a JSON list.
SELECT pubkey, name, customer_id, subscription_id, subscription_status, period_end, sync_due_at
FROM tenants
WHERE customer_id IS NULL AND pubkey IN (SELECT jsonb_array_elements_text(CAST(CAST(:ids AS TEXT) AS JSONB)))

-- name: relays_of_tenants
-- Their living relays.
SELECT * FROM hosted_relays
WHERE state <> 'ended' AND tenant IN (SELECT value FROM json_each(:ids)) ORDER BY created_at, id

-- name: relays_of_tenants [postgresql]
-- The same, in its own words for a JSON list.
SELECT * FROM hosted_relays
WHERE state <> 'ended'
    AND tenant IN (SELECT jsonb_array_elements_text(CAST(CAST(:ids AS TEXT) AS JSONB)))
ORDER BY created_at, id

-- name: live_changes_of_tenants
-- The confirmed changes of plan of their relays, as `plan_changes.live_of_tenant`.
SELECT * FROM plan_changes
WHERE state IN ('confirmed', 'ordered', 'scheduled')
    AND tenant IN (SELECT value FROM json_each(:ids))
ORDER BY confirmed_at, id

-- name: live_changes_of_tenants [postgresql]
-- The same, in its own words for a JSON list.
SELECT * FROM plan_changes
WHERE state IN ('confirmed', 'ordered', 'scheduled')
    AND tenant IN (SELECT jsonb_array_elements_text(CAST(CAST(:ids AS TEXT) AS JSONB)))
ORDER BY confirmed_at, id

-- name: uncarried_of_tenants
-- Relays that wait for payment and that no payable invoice carries, as `relays.uncarried`.
SELECT tenant, id AS name FROM hosted_relays
WHERE state = 'pending_payment' AND tenant IN (SELECT value FROM json_each(:ids))
    AND NOT EXISTS (
        SELECT 1 FROM invoice_relays
        JOIN invoices ON invoices.id = invoice_relays.invoice_id
        WHERE invoice_relays.relay_id = hosted_relays.id
            AND invoices.status IN ('draft', 'open')
    )

-- name: uncarried_of_tenants [postgresql]
-- The same, in its own words for a JSON list.
SELECT tenant, id AS name FROM hosted_relays
WHERE state = 'pending_payment'
    AND tenant IN (SELECT jsonb_array_elements_text(CAST(CAST(:ids AS TEXT) AS JSONB)))
    AND NOT EXISTS (
        SELECT 1 FROM invoice_relays
        JOIN invoices ON invoices.id = invoice_relays.invoice_id
        WHERE invoice_relays.relay_id = hosted_relays.id
            AND invoices.status IN ('draft', 'open')
    )

-- name: mark_seen
-- This sweep has met these subscriptions at Stripe.
UPDATE tenants SET seen_sweep = :sweep
WHERE subscription_id IN (SELECT value FROM json_each(:ids))

-- name: mark_seen [postgresql]
-- The same, in its own words for a JSON list.
UPDATE tenants SET seen_sweep = :sweep
WHERE subscription_id IN (SELECT jsonb_array_elements_text(CAST(CAST(:ids AS TEXT) AS JSONB)))

-- name: next_sweep
-- A number that no tenant is marked with: two sweeps may begin in one second.
SELECT COALESCE(MAX(seen_sweep), 0) + 1 FROM tenants

-- name: unseen
-- Tenants whose subscription this sweep has not met, by pubkey.
SELECT pubkey, name, customer_id, subscription_id, subscription_status, period_end, sync_due_at
FROM tenants
WHERE subscription_id IS NOT NULL AND (seen_sweep IS NULL OR seen_sweep <> :sweep)
    AND pubkey > :after
ORDER BY pubkey LIMIT :count

-- name: unsubscribed
-- Tenants without a subscription and with relays that want one; nobody is at it.
SELECT tenants.pubkey, tenants.name, COUNT(*) AS relays FROM tenants
JOIN hosted_relays ON hosted_relays.tenant = tenants.pubkey
WHERE tenants.subscription_id IS NULL AND tenants.sync_due_at IS NULL
    AND hosted_relays.state <> 'ended' AND hosted_relays.stop_requested_at IS NULL
    AND hosted_relays.lapses_at IS NULL
    AND hosted_relays.plan NOT IN (SELECT value FROM json_each(:free))
    AND tenants.pubkey > :after
GROUP BY tenants.pubkey, tenants.name ORDER BY tenants.pubkey LIMIT :count

-- name: unsubscribed [postgresql]
-- The same, in its own words for a JSON list.
SELECT tenants.pubkey, tenants.name, COUNT(*) AS relays FROM tenants
JOIN hosted_relays ON hosted_relays.tenant = tenants.pubkey
WHERE tenants.subscription_id IS NULL AND tenants.sync_due_at IS NULL
    AND hosted_relays.state <> 'ended' AND hosted_relays.stop_requested_at IS NULL
    AND hosted_relays.lapses_at IS NULL
    AND hosted_relays.plan NOT IN (SELECT jsonb_array_elements_text(CAST(CAST(:free AS TEXT) AS JSONB)))
    AND tenants.pubkey > :after
GROUP BY tenants.pubkey, tenants.name ORDER BY tenants.pubkey LIMIT :count

-- name: count_subscribed
-- How many subscriptions a sweep expects to meet.
SELECT COUNT(*) FROM tenants WHERE subscription_id IS NOT NULL

-- name: invoices_by_id
-- Our mirror of one page of invoices.
SELECT * FROM invoices WHERE id IN (SELECT value FROM json_each(:ids))

-- name: invoices_by_id [postgresql]
-- The same, in its own words for a JSON list.
SELECT * FROM invoices WHERE id IN (SELECT jsonb_array_elements_text(CAST(CAST(:ids AS TEXT) AS JSONB)))

-- name: open_here
-- What can still be paid here, as far as we know, by id.
SELECT * FROM invoices WHERE status IN ('draft', 'open', 'uncollectible') AND id > :after
ORDER BY id LIMIT :count

-- name: unended_here
-- What can still be paid here, as far as we know.
SELECT * FROM invoices WHERE status IN ('draft', 'open', 'uncollectible') ORDER BY id

-- name: known_relays
-- Which of these relays have a row.
SELECT id AS name FROM hosted_relays WHERE id IN (SELECT value FROM json_each(:ids))

-- name: known_relays [postgresql]
-- The same, in its own words for a JSON list.
SELECT id AS name FROM hosted_relays
WHERE id IN (SELECT jsonb_array_elements_text(CAST(CAST(:ids AS TEXT) AS JSONB)))

-- name: known_refunds
-- Which of these refunds have a row.
SELECT id AS name FROM refunds WHERE id IN (SELECT value FROM json_each(:ids))

-- name: known_refunds [postgresql]
-- The same, in its own words for a JSON list.
SELECT id AS name FROM refunds
WHERE id IN (SELECT jsonb_array_elements_text(CAST(CAST(:ids AS TEXT) AS JSONB)))

-- name: known_hashes
-- Which of these payment hashes have a payment request.
SELECT payment_hash AS name FROM payment_requests
WHERE payment_hash IN (SELECT value FROM json_each(:ids))

-- name: known_hashes [postgresql]
-- The same, in its own words for a JSON list.
SELECT payment_hash AS name FROM payment_requests
WHERE payment_hash IN (SELECT jsonb_array_elements_text(CAST(CAST(:ids AS TEXT) AS JSONB)))

-- name: waiting_event
-- Whether an event of this type about this object waits for its handler.
SELECT COUNT(*) FROM inbox_events
WHERE object_id = :object_id AND type = :type AND handled_at IS NULL AND next_try_at IS NOT NULL

-- name: collect_all_open
-- After a long absence: a card may have come, a balance may have grown.
UPDATE invoices
SET collect_due_at = CASE
        WHEN collect_due_at IS NULL OR collect_due_at > :now THEN CAST(:now AS BIGINT)
        ELSE collect_due_at
    END,
    collect_wishes = collect_wishes + 1
WHERE status IN ('draft', 'open')

-- name: customers_here
-- Every customer that a tenant has.
SELECT customer_id AS name FROM tenants WHERE customer_id IS NOT NULL ORDER BY customer_id
