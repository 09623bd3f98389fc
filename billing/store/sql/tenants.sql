-- Tenants: who owns hosted relays, and where Stripe keeps their customer and subscription.

-- name: insert
-- A new tenant; a second command of the same sender changes nothing.
INSERT INTO tenants (pubkey, name, legacy_dm, created_at)
VALUES (:pubkey, :name, :legacy_dm, :created_at)
ON CONFLICT (pubkey) DO NOTHING

-- name: get
-- One tenant.
SELECT pubkey, name, customer_id, subscription_id, subscription_status,
    period_end, legacy_dm, created_at, sync_due_at, sync_attempts, sync_wishes,
    ending_subscription_id, seats
FROM tenants WHERE pubkey = :pubkey

-- name: by_customer
-- The tenant whose Stripe customer this is.
SELECT pubkey, name, customer_id, subscription_id, subscription_status,
    period_end, legacy_dm, created_at, sync_due_at, sync_attempts, sync_wishes,
    ending_subscription_id, seats
FROM tenants WHERE customer_id = :customer_id

-- name: everyone
-- All tenants, oldest first.
SELECT pubkey, name, customer_id, subscription_id, subscription_status,
    period_end, legacy_dm, created_at, sync_due_at, sync_attempts, sync_wishes,
    ending_subscription_id, seats
FROM tenants ORDER BY created_at, pubkey

-- name: sync_due
-- Tenants whose subscription is to be compared with their relays now.
SELECT pubkey, name, customer_id, subscription_id, subscription_status,
    period_end, legacy_dm, created_at, sync_due_at, sync_attempts, sync_wishes,
    ending_subscription_id, seats
FROM tenants WHERE sync_due_at <= :now ORDER BY sync_due_at, pubkey LIMIT :count

-- name: want_sync
-- Ask for a comparison at this time, or earlier if one was already asked for.
UPDATE tenants
SET sync_due_at = CASE
        WHEN sync_due_at IS NULL OR sync_due_at > :due_at THEN :due_at ELSE sync_due_at
    END,
    sync_attempts = CASE WHEN :fresh = 1 THEN 0 ELSE sync_attempts END,
    sync_wishes = sync_wishes + 1
WHERE pubkey = :pubkey

-- name: synced
-- Done, unless somebody asked again meanwhile.
UPDATE tenants SET sync_due_at = NULL, sync_attempts = 0
WHERE pubkey = :pubkey AND sync_wishes = :seen_wishes

-- name: sync_failed
-- Try again later.
UPDATE tenants SET sync_due_at = :next_at, sync_attempts = sync_attempts + 1
WHERE pubkey = :pubkey

-- name: set_customer
-- The Stripe customer, once.
UPDATE tenants SET customer_id = :customer_id WHERE pubkey = :pubkey AND customer_id IS NULL

-- name: forget_customer
-- The customer was deleted at Stripe; its subscription ended with it.
UPDATE tenants
SET customer_id = NULL, subscription_id = NULL, subscription_status = 'canceled', period_end = NULL
WHERE pubkey = :pubkey AND customer_id = :customer_id

-- name: set_subscription
-- The subscription as last seen; compares ids, so that a late event of an old one changes nothing.
UPDATE tenants
SET subscription_id = :subscription_id, subscription_status = :status, period_end = :period_end
WHERE pubkey = :pubkey AND (subscription_id IS NULL OR subscription_id = :subscription_id)

-- name: clear_subscription
-- The subscription reached a terminal state.
UPDATE tenants
SET subscription_id = NULL, subscription_status = :status, period_end = NULL,
    ending_subscription_id = NULL, seats = NULL
WHERE pubkey = :pubkey AND subscription_id = :subscription_id

-- name: set_ending
-- It is known here that this subscription ends with its period; NULL: it runs on.
UPDATE tenants SET ending_subscription_id = :subscription_id WHERE pubkey = :pubkey

-- name: set_seats
-- The subscription's quantities as they are known here.
UPDATE tenants SET seats = :seats WHERE pubkey = :pubkey AND subscription_id = :subscription_id

-- name: set_legacy_dm
-- The kind of message the tenant last wrote with: 1 is kind 4.
UPDATE tenants SET legacy_dm = :legacy_dm WHERE pubkey = :pubkey
