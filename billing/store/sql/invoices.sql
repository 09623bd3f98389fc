-- Invoices: our mirror of Stripe's, and when collection looks at them.

-- name: upsert
-- What Stripe said last; collection's own columns are not touched.
INSERT INTO invoices (id, tenant, customer_id, subscription_id, status, currency, total_minor,
    amount_due_minor, amount_remaining_minor, billing_reason, number, created_at, period_start,
    period_end, fetched_at)
VALUES (:id, :tenant, :customer_id, :subscription_id, :status, :currency, :total_minor,
    :amount_due_minor, :amount_remaining_minor, :billing_reason, :number, :created_at,
    :period_start, :period_end, :fetched_at)
ON CONFLICT (id) DO UPDATE SET
    status = excluded.status, total_minor = excluded.total_minor,
    amount_due_minor = excluded.amount_due_minor,
    amount_remaining_minor = excluded.amount_remaining_minor, number = excluded.number,
    subscription_id = excluded.subscription_id, fetched_at = excluded.fetched_at

-- name: get
-- One invoice.
SELECT * FROM invoices WHERE id = :id

-- name: of_tenant
-- All invoices of a tenant, oldest first.
SELECT * FROM invoices WHERE tenant = :tenant ORDER BY created_at, id

-- name: open_of_tenant
-- What a tenant owes, oldest first.
SELECT * FROM invoices WHERE tenant = :tenant AND status IN ('draft', 'open')
ORDER BY created_at, id

-- name: payable_by_tenant
-- What a tenant can still pay, oldest first: what is open, and what was written off at Stripe while
-- its relays are dunned for it.
SELECT * FROM invoices WHERE tenant = :tenant AND (
    status IN ('draft', 'open') OR (status = 'uncollectible' AND EXISTS (
        SELECT 1 FROM dunning_windows WHERE invoice_id = invoices.id AND closed_at IS NULL
    ))
) ORDER BY created_at, id

-- name: of_relay
-- The invoices that carry a relay, oldest first.
SELECT invoices.* FROM invoices
JOIN invoice_relays ON invoice_relays.invoice_id = invoices.id
WHERE invoice_relays.relay_id = :relay_id ORDER BY invoices.created_at, invoices.id

-- name: everything
-- All invoices, oldest first.
SELECT * FROM invoices ORDER BY created_at, id

-- name: collect_due
-- Invoices whose collection has something to do: by wire time, or a retry by billing time. Who
-- asked to pay comes before a month's turn.
SELECT * FROM invoices
WHERE collect_due_at <= :now OR nwc_retry_at <= :billing_now
ORDER BY CASE WHEN show_wanted > 0 THEN 0 ELSE 1 END,
    COALESCE(collect_due_at, nwc_retry_at), id
LIMIT :count

-- name: want_collection
-- Look at this invoice at this time, or earlier if that was already asked for.
UPDATE invoices
SET collect_due_at = CASE
        WHEN collect_due_at IS NULL OR collect_due_at > :due_at THEN :due_at ELSE collect_due_at
    END,
    collect_wishes = collect_wishes + 1
WHERE id = :id

-- name: collected
-- Looked at; the next look if one is known, unless somebody asked again meanwhile.
UPDATE invoices
SET collect_due_at = :next_at, collect_attempts = 0, nwc_retry_at = :nwc_retry_at
WHERE id = :id AND collect_wishes = :seen_wishes

-- name: collect_failed
-- Try again later, and not before: that visit sees by itself whether a wallet's retry is due.
UPDATE invoices
SET collect_due_at = :next_at, collect_attempts = collect_attempts + 1, nwc_retry_at = NULL
WHERE id = :id

-- name: collect_paced
-- It waits for its turn at a wallet, which is no failure, unless somebody asked again meanwhile.
-- That visit sees by itself whether a wallet's retry is due.
UPDATE invoices SET collect_due_at = :next_at, nwc_retry_at = NULL
WHERE id = :id AND collect_wishes = :seen_wishes

-- name: count_nwc_try
-- One more automatic try over NWC.
UPDATE invoices SET nwc_tries = nwc_tries + 1 WHERE id = :id

-- name: reset_nwc_tries
-- Another wallet was connected: its tries start anew.
UPDATE invoices SET nwc_tries = 0, collect_due_at = :now, collect_wishes = collect_wishes + 1
WHERE tenant = :tenant AND status IN ('draft', 'open')

-- name: want_show
-- The tenant asked for a payment request to pay by hand.
UPDATE invoices
SET show_wanted = :wanted, collect_due_at = :now, collect_wishes = collect_wishes + 1
WHERE id = :id

-- name: shown
-- The wish is fulfilled.
UPDATE invoices SET show_wanted = 0 WHERE id = :id

-- name: set_paid
-- Paid, and by what; once. A card attempt in flight, or credit that was being spent, is still
-- looked at until its end is known.
UPDATE invoices SET paid_at = :now, paid_by = :paid_by,
    collect_due_at = CASE WHEN EXISTS (
        SELECT 1 FROM payment_attempts
        WHERE invoice_id = :id AND rail = 'card' AND state IN ('prepared', 'in_flight')
    ) OR EXISTS (
        SELECT 1 FROM credit_spends WHERE invoice_id = :id AND ended_at IS NULL
    ) THEN CAST(:now AS BIGINT) END,
    nwc_retry_at = NULL, show_wanted = 0
WHERE id = :id AND paid_at IS NULL
