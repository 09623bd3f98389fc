-- The ledger: every movement of money, appended once, never changed.

-- name: insert
-- One transfer of one entry.
INSERT INTO ledger (entry, line, at, billing_at, kind, tenant, invoice_id, payment_hash, debit,
    credit, unit, amount, rate)
VALUES (:entry, :line, :at, :billing_at, :kind, :tenant, :invoice_id, :payment_hash, :debit,
    :credit, :unit, :amount, :rate)

-- name: has
-- Whether an entry is booked.
SELECT 1 FROM ledger WHERE entry = :entry AND line = 0

-- name: of_invoice_itself
-- What an invoice's own changes booked, without the money that came for it.
SELECT * FROM ledger WHERE invoice_id = :invoice_id AND entry LIKE 'invoice:%' ORDER BY seq

-- name: between
-- The journal of a time, in the order of booking.
SELECT * FROM ledger WHERE billing_at >= :since AND billing_at < :until ORDER BY seq

-- name: sums
-- Both sides of every account by tenant.
SELECT tenant, debit AS account, unit, 'debit' AS side, SUM(amount) AS amount
FROM ledger GROUP BY tenant, debit, unit
UNION ALL
SELECT tenant, credit AS account, unit, 'credit' AS side, SUM(amount) AS amount
FROM ledger GROUP BY tenant, credit, unit
