-- Changes of a relay's plan: offers, and what was confirmed, until they are applied or over.

-- name: insert
-- A wish; the unique index refuses a second offer for the relay.
INSERT INTO plan_changes (id, tenant, relay_id, kind, from_plan, to_plan, state, currency,
    next_try_at, created_at)
VALUES (:id, :tenant, :relay_id, :kind, :from_plan, :to_plan, 'wanted', :currency, :now, :now)

-- name: get
-- One change.
SELECT * FROM plan_changes WHERE id = :id

-- name: offer_of_relay
-- The offer for a relay, if there is one.
SELECT * FROM plan_changes WHERE relay_id = :relay_id AND state IN ('wanted', 'quoted')

-- name: live_of_relay
-- The confirmed change of a relay, if there is one.
SELECT * FROM plan_changes
WHERE relay_id = :relay_id AND state IN ('confirmed', 'ordered', 'scheduled')

-- name: live_of_tenant
-- The confirmed changes of a tenant's relays, oldest first.
SELECT * FROM plan_changes
WHERE tenant = :tenant AND state IN ('confirmed', 'ordered', 'scheduled')
ORDER BY confirmed_at, id

-- name: by_code
-- The newest change of a tenant that was offered under this code.
SELECT * FROM plan_changes WHERE tenant = :tenant AND code = :code
ORDER BY created_at DESC, id DESC LIMIT 1

-- name: of_invoice
-- The changes that an invoice pays for.
SELECT * FROM plan_changes WHERE invoice_id = :invoice_id ORDER BY created_at, id

-- name: applied_by
-- The change that this revision of a relay made true.
SELECT * FROM plan_changes
WHERE relay_id = :relay_id AND state = 'applied' AND applied_rev = :rev

-- name: quotes_due
-- Wishes whose price is to be asked for now.
SELECT * FROM plan_changes WHERE state = 'wanted' AND next_try_at <= :now
ORDER BY next_try_at, id LIMIT :count

-- name: offers_over
-- Offers that nobody confirmed in time.
SELECT * FROM plan_changes WHERE state = 'quoted' AND quote_expires_at <= :now ORDER BY id

-- name: due
-- Confirmed changes whose time has come: to be applied, or given up as unpaid (billing time), or
-- whose invoice can be paid no more.
SELECT * FROM plan_changes
WHERE (state = 'scheduled' AND next_at <= :billing_now)
    OR (state IN ('confirmed', 'ordered') AND due_until <= :billing_now)
    OR (state = 'ordered' AND invoice_id IN (
        SELECT id FROM invoices WHERE status IN ('void', 'deleted')
    ))
ORDER BY id

-- name: quote_failed
-- Ask again later.
UPDATE plan_changes SET next_try_at = :next_at, attempts = attempts + 1
WHERE id = :id AND state = 'wanted'

-- name: quote
-- The price is known and offered under a code.
UPDATE plan_changes
SET state = 'quoted', code = :code, now_minor = :now_minor, next_minor = :next_minor,
    next_at = :next_at, proration_at = :proration_at, quote_expires_at = :expires_at,
    next_try_at = NULL, attempts = 0
WHERE id = :id AND state = 'wanted'

-- name: quote_again
-- What was confirmed is not what it would cost now: it is offered anew.
UPDATE plan_changes
SET state = 'wanted', code = NULL, confirmed_at = NULL, due_until = NULL, next_try_at = :now
WHERE id = :id AND state IN ('quoted', 'confirmed')

-- name: confirm
-- The tenant said yes; an upgrade has until then (billing time) to be paid.
UPDATE plan_changes SET state = :state, confirmed_at = :now, due_until = :due_until
WHERE id = :id AND state = 'quoted'

-- name: order
-- It goes into the subscription.
UPDATE plan_changes SET state = 'ordered' WHERE id = :id AND state = 'confirmed'

-- name: unorder
-- Stripe did not take it: it is as if it had only been confirmed.
UPDATE plan_changes SET state = 'confirmed'
WHERE id = :id AND state = 'ordered' AND invoice_id IS NULL

-- name: set_invoice
-- This invoice pays for it; once.
UPDATE plan_changes SET invoice_id = :invoice_id
WHERE id = :id AND state = 'ordered' AND invoice_id IS NULL

-- name: apply
-- The relay has its new plan from this revision on; what was given up is applied too when its
-- invoice was paid after all (M9).
UPDATE plan_changes
SET state = 'applied', applied_rev = :rev, ended_at = :now
WHERE id = :id AND state IN ('ordered', 'scheduled', 'undone')

-- name: end
-- Over without being applied: undone, cancelled, replaced or expired.
UPDATE plan_changes SET state = :state, ended_at = :now, problem = :problem, next_try_at = NULL
WHERE id = :id AND state IN ('wanted', 'quoted', 'confirmed', 'ordered', 'scheduled')

-- name: of_relay
-- All changes of a relay, oldest first.
SELECT * FROM plan_changes WHERE relay_id = :relay_id ORDER BY created_at, id
