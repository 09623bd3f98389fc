-- The webhook hot path: what `billing/ingest.py` and `billing/inbox.py` write.

-- name: insert_event
-- M14: one row per Stripe event id; a delivery of one we have affects no row.
INSERT INTO inbox_events (
    event_id, type, object_id, api_created, livemode, account, payload, received_at, next_try_at
) VALUES (
    :event_id, :type, :object_id, :api_created, :livemode, :account, :payload, :received_at,
    :received_at
)
ON CONFLICT (event_id) DO NOTHING;

-- name: insert_rejection
-- A delivery that was not believed, kept apart from the events and without its body.
INSERT INTO rejected_deliveries (at, reason, remote, headers, body_bytes)
VALUES (:at, :reason, :remote, :headers, :body_bytes);

-- name: prune_rejections
-- Rejected deliveries are kept for a short time only, and deleted a batch at a time.
DELETE FROM rejected_deliveries WHERE seq IN (
    SELECT seq FROM rejected_deliveries WHERE at < :before ORDER BY at LIMIT :count
);

-- name: rejected
-- Deliveries that were not believed, the newest first.
SELECT seq, at, reason, remote, headers, body_bytes FROM rejected_deliveries
ORDER BY seq DESC LIMIT :count;
