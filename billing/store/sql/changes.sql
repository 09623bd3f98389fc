-- Changes of a subscription, one step at a time.

-- name: insert
-- A change; the unique index refuses a second beside a running one.
INSERT INTO changes (id, tenant, kind, step, quantities, relays, items_operation_id,
    invoice_operation_id, created_at, proration_at)
VALUES (:id, :tenant, :kind, 'items', :quantities, :relays, :items_operation_id,
    :invoice_operation_id, :created_at, :proration_at)

-- name: running
-- The change of a tenant that has not ended.
SELECT * FROM changes WHERE tenant = :tenant AND done_at IS NULL

-- name: step
-- On to the next step.
UPDATE changes SET step = :step, invoice_id = :invoice_id WHERE id = :id AND done_at IS NULL

-- name: tried
-- One more try; the first one's billing time is kept: what it makes at Stripe is not older.
UPDATE changes SET attempts = attempts + 1, begun_at = COALESCE(begun_at, :billing_now)
WHERE id = :id

-- name: renew_operations
-- New keys for a new logical attempt, after Stripe was asked and had nothing of the old ones.
UPDATE changes
SET items_operation_id = :items_operation_id, invoice_operation_id = :invoice_operation_id,
    attempts = 1, created_at = :now
WHERE id = :id AND done_at IS NULL

-- name: finish
-- The change has ended.
UPDATE changes SET step = 'done', done_at = :now, outcome = :outcome
WHERE id = :id AND done_at IS NULL

-- name: of_tenant
-- All changes of a tenant, oldest first.
SELECT * FROM changes WHERE tenant = :tenant ORDER BY created_at, id

-- name: last_end
-- Whether Purser itself last had the subscription end (cancel) or run on (keep).
SELECT kind FROM changes
WHERE tenant = :tenant AND kind IN ('cancel', 'keep') AND done_at IS NOT NULL
ORDER BY done_at DESC, created_at DESC, id DESC LIMIT 1
