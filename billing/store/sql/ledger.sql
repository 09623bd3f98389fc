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

-- name: tenant_of
-- Whose an entry is.
SELECT tenant FROM ledger WHERE entry = :entry AND line = 0

-- name: of_invoice_itself
-- What an invoice's own changes booked, without the money that came for it.
SELECT * FROM ledger WHERE invoice_id = :invoice_id AND entry LIKE 'invoice:%' ORDER BY seq

-- name: between
-- The journal of a time, in the order of booking.
SELECT * FROM ledger WHERE billing_at >= :since AND billing_at < :until ORDER BY seq

-- name: sums
-- Both sides of every account by tenant.
SELECT tenant AS subject, debit AS account, unit, 'debit' AS side, SUM(amount) AS amount
FROM ledger GROUP BY tenant, debit, unit
UNION ALL
SELECT tenant AS subject, credit AS account, unit, 'credit' AS side, SUM(amount) AS amount
FROM ledger GROUP BY tenant, credit, unit

-- name: by_invoice
-- What invoices' own changes booked, by invoice.
SELECT invoice_id AS subject, debit AS account, unit, 'debit' AS side, SUM(amount) AS amount
FROM ledger WHERE entry LIKE 'invoice:%' GROUP BY invoice_id, debit, unit
UNION ALL
SELECT invoice_id AS subject, credit AS account, unit, 'credit' AS side, SUM(amount) AS amount
FROM ledger WHERE entry LIKE 'invoice:%' GROUP BY invoice_id, credit, unit

-- name: by_payment_hash
-- What money that came over Lightning booked, by payment hash.
SELECT payment_hash AS subject, debit AS account, unit, 'debit' AS side, SUM(amount) AS amount
FROM ledger WHERE entry LIKE 'money:%' GROUP BY payment_hash, debit, unit
UNION ALL
SELECT payment_hash AS subject, credit AS account, unit, 'credit' AS side, SUM(amount) AS amount
FROM ledger WHERE entry LIKE 'money:%' GROUP BY payment_hash, credit, unit

-- name: out_of_band
-- Invoices marked paid off Stripe that no money of ours backs; above zero: too little came.
SELECT invoice_id AS subject, 'out_of_band' AS account, unit, 'debit' AS side,
    SUM(CASE WHEN debit = 'out_of_band' THEN amount ELSE -amount END) AS amount
FROM ledger WHERE debit = 'out_of_band' OR credit = 'out_of_band'
GROUP BY invoice_id, unit
HAVING SUM(CASE WHEN debit = 'out_of_band' THEN amount ELSE -amount END) <> 0

-- name: settlements
-- All money that came over Lightning.
SELECT * FROM settlements ORDER BY seen_at, payment_hash

-- name: card_refunds
-- Card refunds that are booked, by Stripe's id: ours, and those made by hand (re_…, and pyr_… of a
-- bank debit), but for what came back. Lost disputes (dp_…, du_…) are booked alike and are no
-- refunds.
SELECT COALESCE(refunds.stripe_id, SUBSTR(ledger.entry, 8)) AS stripe_id, ledger.tenant,
    ledger.amount AS amount_minor, ledger.unit AS currency
FROM ledger LEFT JOIN refunds ON ledger.entry = 'refund:' || refunds.id
WHERE ledger.entry LIKE 'refund:%' AND ledger.entry NOT LIKE 'refund:d%' AND ledger.credit = 'card'
    AND NOT EXISTS (
        SELECT 1 FROM ledger AS back WHERE back.entry = ledger.entry || ':bounced' AND back.line = 0
    )
ORDER BY ledger.seq

-- name: refunds_unbooked
-- Refunds and credits that are final, without their entry.
SELECT id AS subject, tenant, amount_minor, currency FROM refunds
WHERE state = 'done' AND NOT EXISTS (
    SELECT 1 FROM ledger
    WHERE entry = 'refund:' || refunds.id OR entry = 'credit:' || refunds.operation_id
) ORDER BY created_at, id

-- name: credit_of
-- A tenant's customer balance by currency, in the books' sign: below zero it is the tenant's.
SELECT unit AS subject, 'credit' AS account, unit, 'debit' AS side,
    SUM(CASE WHEN debit = 'credit' THEN amount ELSE -amount END) AS amount
FROM ledger WHERE tenant = :tenant AND (debit = 'credit' OR credit = 'credit')
GROUP BY unit
HAVING SUM(CASE WHEN debit = 'credit' THEN amount ELSE -amount END) <> 0
