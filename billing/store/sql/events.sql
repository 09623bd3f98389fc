-- Stripe events: recorded once, handled once (M14).

-- name: due
-- Events that wait for their handler.
SELECT * FROM inbox_events WHERE next_try_at <= :now ORDER BY api_created, event_id LIMIT :count

-- name: handled
-- Its effects are committed in the same transaction.
UPDATE inbox_events SET handled_at = :now, state = :state, next_try_at = NULL, error = NULL
WHERE event_id = :event_id AND handled_at IS NULL

-- name: failed
-- Try again later, or give up (no next time): a dead letter.
UPDATE inbox_events
SET attempts = attempts + 1, next_try_at = :next_at, error = :error, state = :state
WHERE event_id = :event_id AND handled_at IS NULL

-- name: get
-- One event.
SELECT * FROM inbox_events WHERE event_id = :event_id

-- name: newest
-- The newest events.
SELECT * FROM inbox_events ORDER BY received_at DESC, event_id LIMIT :count

-- name: about
-- Events about one object, oldest first.
SELECT * FROM inbox_events WHERE object_id = :object_id ORDER BY api_created, event_id
