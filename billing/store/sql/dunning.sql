-- Dunning: windows of unpaid invoices, and the clock that counts their time.

-- name: to_open
-- Renewals that are owed, carry a relay that was up, and have no window yet.
SELECT invoices.* FROM invoices
WHERE invoices.status IN ('open', 'uncollectible') AND invoices.billing_reason = 'subscription_cycle'
    AND NOT EXISTS (SELECT 1 FROM dunning_windows WHERE invoice_id = invoices.id)
    AND EXISTS (
        SELECT 1 FROM invoice_relays
        JOIN hosted_relays ON hosted_relays.id = invoice_relays.relay_id
        WHERE invoice_relays.invoice_id = invoices.id AND hosted_relays.activated_at IS NOT NULL
            AND hosted_relays.state IN ('active', 'limited', 'stopped')
    )
ORDER BY invoices.created_at, invoices.id LIMIT :count

-- name: open
-- The one window of this invoice.
INSERT INTO dunning_windows (invoice_id, tenant, due_at, opened_at, told_at, told_clock, next_look_at)
VALUES (:invoice_id, :tenant, :due_at, :now, :billing_now, :elapsed_s, :now)
ON CONFLICT (invoice_id) DO NOTHING

-- name: get
-- One window.
SELECT * FROM dunning_windows WHERE invoice_id = :invoice_id

-- name: everything_open
-- All that are open, oldest first.
SELECT * FROM dunning_windows WHERE closed_at IS NULL ORDER BY due_at, invoice_id

-- name: count_open
-- How many are open.
SELECT COUNT(*) FROM dunning_windows WHERE closed_at IS NULL

-- name: open_of_tenant
-- The open ones of a tenant, oldest first.
SELECT * FROM dunning_windows WHERE tenant = :tenant AND closed_at IS NULL
ORDER BY due_at, invoice_id

-- name: due
-- Open windows to look at now, oldest first.
SELECT * FROM dunning_windows WHERE closed_at IS NULL AND next_look_at <= :now
ORDER BY due_at, invoice_id LIMIT :count

-- name: over
-- Open windows of invoices that are paid or gone.
SELECT dunning_windows.* FROM dunning_windows
JOIN invoices ON invoices.id = dunning_windows.invoice_id
WHERE dunning_windows.closed_at IS NULL AND invoices.status IN ('paid', 'void', 'deleted')
ORDER BY dunning_windows.due_at, dunning_windows.invoice_id

-- name: delivered
-- Open windows whose last message has reached a relay, which nobody has noted yet.
SELECT dunning_windows.* FROM dunning_windows
JOIN outbox_messages ON outbox_messages.key = dunning_windows.message_key
WHERE dunning_windows.closed_at IS NULL AND dunning_windows.told_clock IS NULL
    AND outbox_messages.state = 'delivered'
ORDER BY dunning_windows.due_at, dunning_windows.invoice_id

-- name: told
-- The message of its last step was delivered: the next interval begins.
UPDATE dunning_windows
SET told_at = :billing_now, told_clock = :elapsed_s, next_look_at = :now
WHERE invoice_id = :invoice_id AND closed_at IS NULL AND told_clock IS NULL

-- name: wait
-- Nothing now: why, since when a step that is due is held up, and when to look again.
UPDATE dunning_windows
SET waits_since = CAST(:since AS BIGINT), waits_for = :why, next_look_at = :next_look_at
WHERE invoice_id = :invoice_id AND closed_at IS NULL

-- name: set_due
-- Stripe gives it a due date of its own.
UPDATE dunning_windows SET due_at = :due_at WHERE invoice_id = :invoice_id AND closed_at IS NULL

-- name: look_now
-- Billing time has jumped: all are looked at again.
UPDATE dunning_windows SET next_look_at = :now WHERE closed_at IS NULL

-- name: take
-- Compare-and-set to the next step; its message must be delivered before the one after it.
UPDATE dunning_windows
SET day = :day, message_key = :message_key, taken_at = :billing_now, told_at = NULL,
    told_clock = NULL, extra_s = 0, pause_clock = NULL, pause_s = 0, waits_for = NULL,
    waits_since = NULL, next_look_at = :next_look_at
WHERE invoice_id = :invoice_id AND closed_at IS NULL AND COALESCE(day, -1) = :from_day

-- name: close
-- Its end, once.
UPDATE dunning_windows
SET closed_at = :now, outcome = :outcome, waits_for = NULL,
    next_look_at = CASE
        WHEN CAST(:end_subscription_id AS TEXT) IS NULL THEN NULL ELSE CAST(:now AS BIGINT)
    END,
    end_subscription_id = :end_subscription_id
WHERE invoice_id = :invoice_id AND closed_at IS NULL

-- name: subscriptions_to_end
-- Windows whose end is still to be told to Stripe.
SELECT * FROM dunning_windows WHERE end_subscription_id IS NOT NULL AND next_look_at <= :now
ORDER BY invoice_id LIMIT :count

-- name: end_later
-- Stripe is away: again then.
UPDATE dunning_windows SET next_look_at = :next_at WHERE invoice_id = :invoice_id

-- name: subscription_ended
-- Stripe was told, or there is nothing to tell any more.
UPDATE dunning_windows SET end_subscription_id = NULL, next_look_at = NULL
WHERE invoice_id = :invoice_id

-- name: has_ended
-- Whether dunning of this invoice ran to its end, or of another one by which its subscription
-- lapsed: a renewal that Stripe drew up before it heard of the end.
SELECT MAX(1) FROM dunning_windows
JOIN invoices ON invoices.id = dunning_windows.invoice_id
JOIN invoices AS mine ON mine.id = :invoice_id
WHERE dunning_windows.outcome = 'ended' AND dunning_windows.tenant = mine.tenant AND (
    dunning_windows.invoice_id = mine.id
    OR (mine.billing_reason = 'subscription_cycle' AND invoices.subscription_id = mine.subscription_id)
)

-- name: pause
-- A pause of the present step, on top of what was paused before.
UPDATE dunning_windows
SET pause_clock = :elapsed_s, pause_s = :pause_s,
    extra_s = :extra_s, promised_at = CASE
        WHEN :is_promise = 1 THEN CAST(:now AS BIGINT) ELSE promised_at
    END,
    next_look_at = :now
WHERE invoice_id = :invoice_id AND closed_at IS NULL

-- name: resume
-- The pause ends now; what it has lasted stays.
UPDATE dunning_windows
SET pause_clock = NULL, pause_s = 0, extra_s = :extra_s, next_look_at = :now
WHERE invoice_id = :invoice_id AND closed_at IS NULL

-- name: clock
-- Counted time.
SELECT elapsed_s, beat_at, beat_billing_at, down, down_since, paused_at, paused_why, count_from
FROM dunning_clock WHERE id = 'clock'

-- name: set_clock
-- A look at the clock.
INSERT INTO dunning_clock (id, elapsed_s, beat_at, beat_billing_at, down, down_since, paused_at,
    paused_why, count_from)
VALUES ('clock', :elapsed_s, :beat_at, :beat_billing_at, :down, :down_since, :paused_at,
    :paused_why, :count_from)
ON CONFLICT (id) DO UPDATE SET
    elapsed_s = excluded.elapsed_s, beat_at = excluded.beat_at,
    beat_billing_at = excluded.beat_billing_at, down = excluded.down,
    down_since = excluded.down_since, paused_at = excluded.paused_at,
    paused_why = excluded.paused_why, count_from = excluded.count_from

-- name: tried
-- How automatic payments ended since then.
SELECT DISTINCT tenant, kind, facts FROM activity
WHERE at >= :since AND tenant IS NOT NULL
    AND kind IN ('attempt.settled', 'attempt.refused', 'attempt.dead', 'nwc.skipped')
ORDER BY tenant, kind, facts
