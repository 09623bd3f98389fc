-- Credit spends: credit on its way from a customer's balance to an open invoice (M10).

-- name: insert
-- The intent, before anything is taken; another life's stays as it is.
INSERT INTO credit_spends (id, invoice_id, tenant, customer_id, amount_minor, currency, created_at)
VALUES (:id, :invoice_id, :tenant, :customer_id, :amount_minor, :currency, :created_at)
ON CONFLICT (id) DO NOTHING

-- name: get
-- One, by its id.
SELECT * FROM credit_spends WHERE id = :id

-- name: live
-- The one that is under way for an invoice.
SELECT * FROM credit_spends WHERE invoice_id = :invoice_id AND ended_at IS NULL

-- name: count
-- How many there have been for an invoice.
SELECT COUNT(*) FROM credit_spends WHERE invoice_id = :invoice_id

-- name: move
-- From one state to the next, with what is to go back to the balance.
UPDATE credit_spends SET state = :to_state, return_minor = :return_minor, ended_at = :ended_at
WHERE id = :id AND state = :from_state

-- name: money_aimed_at
-- Whether proven money is on its way to this invoice.
SELECT 1 FROM settlements WHERE target_invoice_id = :invoice_id AND state = 'received'

-- name: of_invoice
-- All that there have been for an invoice, oldest first.
SELECT * FROM credit_spends WHERE invoice_id = :invoice_id ORDER BY created_at, id
