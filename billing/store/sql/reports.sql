-- Reports: what only people ask for.

-- name: attempts
-- The newest payment attempts.
SELECT * FROM payment_attempts ORDER BY prepared_at DESC, id LIMIT :count

-- name: settlements_of_invoice
-- Money that came for an invoice, or went to it.
SELECT * FROM settlements
WHERE invoice_id = :invoice_id OR target_invoice_id = :invoice_id ORDER BY seen_at, payment_hash

-- name: relay_by_name
-- The newest relay that has, or had, this name.
SELECT * FROM hosted_relays WHERE name = :name ORDER BY created_at DESC, id LIMIT 1
