-- The DM inbox: gift wraps as received, never plaintext.

-- name: insert
-- One wrap or kind 4 event, once.
INSERT INTO dm_inbox (event_id, event_json, received_at)
VALUES (:event_id, :event_json, :received_at)
ON CONFLICT (event_id) DO NOTHING

-- name: open
-- What has not been handled.
SELECT * FROM dm_inbox WHERE handled_at IS NULL ORDER BY received_at, event_id LIMIT :count

-- name: claim_rumor
-- This wrap carries this rumor, unless another wrap already did (M14).
UPDATE dm_inbox SET rumor_id = :rumor_id, sender = :sender, handled_at = :now, outcome = :outcome
WHERE event_id = :event_id AND handled_at IS NULL
    AND NOT EXISTS (SELECT 1 FROM dm_inbox AS other WHERE other.rumor_id = :rumor_id)

-- name: drop
-- Handled without an effect, and why.
UPDATE dm_inbox SET handled_at = :now, outcome = :outcome
WHERE event_id = :event_id AND handled_at IS NULL

-- name: commands_since
-- How many commands a sender has given lately, for the rate limit.
SELECT COUNT(*) FROM dm_inbox WHERE sender = :sender AND received_at >= :since

-- name: watermark
-- When we last received anything: `since` of the inbox query is counted from here.
SELECT MAX(received_at) FROM dm_inbox
