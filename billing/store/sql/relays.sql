-- Hosted relays: the product, its state and whether the relay host has caught up.

-- name: insert
-- A new relay; the unique index refuses a name that is taken.
INSERT INTO hosted_relays (id, tenant, name, plan, state, wanted_rev, sync_due_at, created_at,
    expires_at, activated_at)
VALUES (:id, :tenant, :name, :plan, :state, :wanted_rev, :sync_due_at, :created_at,
    :expires_at, :activated_at)

-- name: get
-- One relay.
SELECT * FROM hosted_relays WHERE id = :id

-- name: living_by_name
-- The relay that holds this name now.
SELECT * FROM hosted_relays WHERE name = :name AND state <> 'ended'

-- name: of_tenant
-- All relays of a tenant, oldest first, ended ones too.
SELECT * FROM hosted_relays WHERE tenant = :tenant ORDER BY created_at, id

-- name: everything
-- All relays, oldest first.
SELECT * FROM hosted_relays ORDER BY created_at, id

-- name: count_pending
-- Unpaid relays of a tenant.
SELECT COUNT(*) FROM hosted_relays WHERE tenant = :tenant AND state = 'pending_payment'

-- name: of_invoice
-- The relays that an invoice carries.
SELECT hosted_relays.* FROM hosted_relays
JOIN invoice_relays ON invoice_relays.relay_id = hosted_relays.id
WHERE invoice_relays.invoice_id = :invoice_id ORDER BY hosted_relays.created_at, hosted_relays.id

-- name: link_invoice
-- This invoice carries this relay.
INSERT INTO invoice_relays (invoice_id, relay_id) VALUES (:invoice_id, :relay_id)
ON CONFLICT (invoice_id, relay_id) DO NOTHING

-- name: uncarried
-- Relays of a tenant that wait for payment and that no payable invoice carries. A paid one brought
-- its relays up: where one waits again, that was for a time before.
SELECT id FROM hosted_relays
WHERE tenant = :tenant AND state = 'pending_payment' AND NOT EXISTS (
    SELECT 1 FROM invoice_relays
    JOIN invoices ON invoices.id = invoice_relays.invoice_id
    WHERE invoice_relays.relay_id = hosted_relays.id
        AND invoices.status IN ('draft', 'open')
)

-- name: move
-- Compare-and-set to another state; the relay host is told (a new revision).
UPDATE hosted_relays
SET state = :to_state, wanted_rev = wanted_rev + 1, sync_due_at = :now, sync_attempts = 0,
    activated_at = CASE
        WHEN :to_state = 'active' AND activated_at IS NULL THEN CAST(:now AS BIGINT) ELSE activated_at
    END,
    expires_at = CASE WHEN :to_state = 'pending_payment' THEN CAST(:expires_at AS BIGINT) ELSE NULL END,
    lapses_at = CASE
        WHEN :to_state = 'ended' THEN lapses_at
        WHEN :from_state = 'pending_payment' OR :to_state = 'pending_payment' THEN NULL
        ELSE lapses_at
    END,
    resumes = 0
WHERE id = :id AND state = :from_state

-- name: request_lapse
-- Its subscription ended without its tenant saying so: not renewed, and at stops_at not ended but
-- waiting for `resume`. The date may come later.
UPDATE hosted_relays
SET stop_requested_at = :now, stops_at = :stops_at, lapses_at = :billing_now, resumes = 0
WHERE id = :id AND stop_requested_at IS NULL AND state <> 'ended'

-- name: lapse
-- Nothing pays for it any more: it waits for `resume`, and keeps its name until expires_at.
UPDATE hosted_relays
SET state = 'pending_payment', stop_requested_at = NULL, stops_at = NULL, resumes = 0,
    lapses_at = COALESCE(lapses_at, :billing_now), expires_at = :expires_at,
    wanted_rev = CASE WHEN activated_at IS NULL THEN wanted_rev ELSE wanted_rev + 1 END,
    sync_due_at = CASE WHEN activated_at IS NULL THEN sync_due_at ELSE :now END, sync_attempts = 0
WHERE id = :id AND state = :from_state AND state <> 'ended'

-- name: order_again
-- A lapsed relay is an order again, to be paid until expires_at (billing time).
UPDATE hosted_relays SET lapses_at = NULL, resumes = 0, expires_at = :expires_at
WHERE id = :id AND state = 'pending_payment' AND lapses_at IS NOT NULL

-- name: keep
-- A stop is taken back before it took effect.
UPDATE hosted_relays SET stop_requested_at = NULL, stops_at = NULL, lapses_at = NULL, resumes = 0
WHERE id = :id AND state IN ('active', 'limited', 'stopped')

-- name: take_back_stop
-- An order that was to end with its unpaid invoice is an order again.
UPDATE hosted_relays SET stop_requested_at = NULL, stops_at = NULL
WHERE id = :id AND state = 'pending_payment' AND lapses_at IS NULL

-- name: resume_later
-- When what was paid has run out it is ordered again by itself.
UPDATE hosted_relays SET resumes = 1, lapses_at = COALESCE(lapses_at, :billing_now)
WHERE id = :id AND stop_requested_at IS NOT NULL AND state IN ('active', 'limited', 'stopped')

-- name: stop_for_good
-- What was to lapse ends: its tenant said stop.
UPDATE hosted_relays SET lapses_at = NULL, resumes = 0 WHERE id = :id AND lapses_at IS NOT NULL

-- name: request_stop
-- Stop at the end of the period; once.
UPDATE hosted_relays SET stop_requested_at = :now, stops_at = :stops_at
WHERE id = :id AND stop_requested_at IS NULL AND state <> 'ended'

-- name: date_open_stops
-- Relays that came up after their stop was asked for run to the end of what was paid. Not those that
-- lapse: theirs is the date of the invoice that is owed for them, of a subscription before.
UPDATE hosted_relays SET stops_at = :stops_at
WHERE tenant = :tenant AND stop_requested_at IS NOT NULL AND stops_at IS NULL
    AND lapses_at IS NULL AND state IN ('active', 'limited', 'stopped')

-- name: date_stop
-- One that is not renewed and has no date yet runs until then.
UPDATE hosted_relays SET stops_at = :stops_at
WHERE id = :id AND stop_requested_at IS NOT NULL AND stops_at IS NULL
    AND state IN ('active', 'limited', 'stopped')

-- name: stops_due
-- Relays whose paid time has run out after a stop was asked for (billing time).
SELECT * FROM hosted_relays WHERE stops_at <= :billing_now AND state <> 'ended' ORDER BY id

-- name: expires_due
-- Unpaid relays whose time to be paid has run out (billing time).
SELECT * FROM hosted_relays
WHERE expires_at <= :billing_now AND state = 'pending_payment' ORDER BY id

-- name: sync_due
-- Relays that the relay host is to be told about now.
SELECT * FROM hosted_relays WHERE sync_due_at <= :now ORDER BY sync_due_at, id LIMIT :count

-- name: applied
-- The relay host has made this revision true; done if nothing changed meanwhile.
UPDATE hosted_relays
SET applied_rev = :rev, sync_error = NULL, sync_attempts = 0,
    sync_due_at = CASE WHEN wanted_rev = :rev THEN NULL ELSE sync_due_at END
WHERE id = :id AND applied_rev < :rev

-- name: tell_again
-- The relay host, or this database, has lost its state: everything that runs, or was cut off, is
-- told once more. The revision stays, so that nobody hears of it twice.
UPDATE hosted_relays
SET applied_rev = wanted_rev - 1, sync_due_at = :now, sync_attempts = 0
WHERE state IN ('active', 'limited', 'stopped') AND wanted_rev = applied_rev

-- name: tell_again_one
-- The same for one relay, by its id or by its name while it lives.
UPDATE hosted_relays
SET applied_rev = wanted_rev - 1, sync_due_at = :now, sync_attempts = 0
WHERE (id = :relay OR name = :relay) AND state IN ('active', 'limited', 'stopped')
    AND wanted_rev = applied_rev

-- name: sync_failed
-- Try again later.
UPDATE hosted_relays
SET sync_due_at = :next_at, sync_attempts = sync_attempts + 1, sync_error = :error
WHERE id = :id

-- name: in_step
-- The relay host needs no telling, unless something changed meanwhile.
UPDATE hosted_relays SET sync_due_at = NULL WHERE id = :id AND wanted_rev = applied_rev

-- name: set_plan
-- Compare-and-set to another plan; the relay host is told (a new revision).
UPDATE hosted_relays
SET plan = :to_plan, wanted_rev = wanted_rev + 1, sync_due_at = :now, sync_attempts = 0
WHERE id = :id AND plan = :from_plan AND state <> 'ended'

-- name: on_invoice
-- The relays that an invoice names: those it carries, and those whose change of plan it pays for.
SELECT * FROM hosted_relays WHERE id IN (
    SELECT relay_id FROM invoice_relays WHERE invoice_id = :invoice_id
    UNION SELECT relay_id FROM plan_changes WHERE invoice_id = :invoice_id
) ORDER BY created_at, id
