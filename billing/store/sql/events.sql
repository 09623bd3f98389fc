-- Stripe events: recorded once, handled once (M14).

-- name: due
-- Events that wait for their handler.
SELECT * FROM inbox_events WHERE next_try_at <= :now ORDER BY api_created, event_id LIMIT :count

-- name: handled
-- Its effects are committed in the same transaction; `error` says why it was ignored.
UPDATE inbox_events SET handled_at = :now, state = :state, next_try_at = NULL, error = :error
WHERE event_id = :event_id AND handled_at IS NULL

-- name: failed
-- Try again later, or give up (no next time): a dead letter.
UPDATE inbox_events
SET attempts = attempts + 1, next_try_at = :next_at, error = :error, state = :state
WHERE event_id = :event_id AND handled_at IS NULL

-- name: wait
-- Its subject is not here yet: so many times it has waited now, in a row.
UPDATE inbox_events
SET attempts = :attempts, next_try_at = :next_at, error = :error, state = 'new'
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

-- name: failed_ones
-- Dead letters, the newest first.
SELECT * FROM inbox_events WHERE state = 'failed' ORDER BY received_at DESC, event_id LIMIT :count

-- name: replay
-- Give one to its handler again.
UPDATE inbox_events
SET handled_at = NULL, state = 'new', attempts = 0, next_try_at = :now, error = NULL
WHERE event_id = :event_id

-- name: replay_since
-- Give all that were received since then to their handlers again, or only the dead letters.
UPDATE inbox_events
SET handled_at = NULL, state = 'new', attempts = 0, next_try_at = :now, error = NULL
WHERE received_at >= :since AND (:only_failed = 0 OR state = 'failed')

-- name: prune
-- Old ones that are done, a batch at a time; never what waits or has failed.
DELETE FROM inbox_events WHERE event_id IN (
    SELECT event_id FROM inbox_events
    WHERE handled_at < :before AND state IN ('handled', 'ignored')
    ORDER BY handled_at LIMIT :count
)
