-- The audit log.

-- name: insert
-- One line.
INSERT INTO activity (at, billing_at, kind, tenant, subject, facts)
VALUES (:at, :billing_at, :kind, :tenant, :subject, :facts)

-- name: alarmed
-- Whether this alarm was raised before.
SELECT MAX(seq) FROM activity WHERE subject = :subject AND kind = 'operator.alarm'

-- name: of_subject
-- The story of one thing.
SELECT * FROM activity WHERE subject = :subject ORDER BY seq

-- name: of_tenant
-- The story of a tenant.
SELECT * FROM activity WHERE tenant = :tenant ORDER BY seq

-- name: count_given_elsewhere
-- What went back to a tenant since then without an order of ours: in the Dashboard, by a dispute.
SELECT COUNT(*) FROM activity
WHERE tenant = :tenant AND at >= :since
    AND kind IN ('refund.elsewhere', 'credit_note.elsewhere', 'dispute.open', 'dispute.closed')

-- name: newest_before
-- Billing time of the last thing that this database saw before then.
SELECT billing_at FROM activity WHERE at < :before ORDER BY seq DESC LIMIT 1

-- name: after
-- Lines after a sequence number.
SELECT * FROM activity WHERE seq > :seq ORDER BY seq LIMIT :count
