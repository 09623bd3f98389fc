-- Outbox: what we have to say to somebody, one message per key (M14).

-- name: insert
-- A message; a repeat changes nothing.
INSERT INTO outbox_messages (key, seq, recipient, kind, facts, request_id, next_try_at, created_at)
VALUES (:key, (SELECT COALESCE(MAX(seq), 0) + 1 FROM outbox_messages), :recipient, :kind, :facts,
    :request_id, :created_at, :created_at)
ON CONFLICT (key) DO NOTHING

-- name: due
-- Messages to send now.
SELECT * FROM outbox_messages WHERE next_try_at <= :now ORDER BY seq LIMIT :count

-- name: get
-- One message.
SELECT * FROM outbox_messages WHERE key = :key

-- name: keep_rumor
-- The sealed rumor, so that every retry wraps the same one.
UPDATE outbox_messages SET sealed_rumor = :sealed_rumor
WHERE key = :key AND sealed_rumor IS NULL

-- name: delivered
-- A relay said OK.
UPDATE outbox_messages
SET state = 'delivered', delivered_at = :now, next_try_at = NULL, answers = :answers,
    attempts = attempts + 1
WHERE key = :key AND state IN ('due', 'undeliverable')

-- name: failed
-- No relay said OK: try again, or show it to the operator as undeliverable.
UPDATE outbox_messages
SET attempts = attempts + 1, next_try_at = :next_at, answers = :answers, state = :state
WHERE key = :key AND state IN ('due', 'undeliverable')

-- name: replaced
-- Its payment request is no longer open: it must not be sent.
UPDATE outbox_messages SET state = 'replaced', next_try_at = NULL
WHERE key = :key AND state IN ('due', 'undeliverable')

-- name: newest
-- The newest messages.
SELECT * FROM outbox_messages ORDER BY seq DESC LIMIT :count

-- name: to_recipient
-- Messages to somebody, oldest first.
SELECT * FROM outbox_messages WHERE recipient = :recipient ORDER BY seq
