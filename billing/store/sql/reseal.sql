-- Secrets at rest that another key than the first has sealed, and their new form.

-- name: connections_old
-- Wallet connections; `prefix` is how what the first key seals begins.
SELECT id, tenant AS owner, sealed_uri AS sealed FROM connections
WHERE id > :after AND sealed_uri NOT LIKE :prefix ORDER BY id LIMIT :count

-- name: connections_new
-- The same secret under the first key.
UPDATE connections SET sealed_uri = :after WHERE id = :id AND sealed_uri = :before

-- name: spending_connections_old
-- The operator's spending connections.
SELECT id, NULL AS owner, sealed_uri AS sealed FROM spending_connections
WHERE id > :after AND sealed_uri NOT LIKE :prefix ORDER BY id LIMIT :count

-- name: spending_connections_new
-- The same secret under the first key.
UPDATE spending_connections SET sealed_uri = :after WHERE id = :id AND sealed_uri = :before

-- name: outbox_messages_old
-- Rendered messages.
SELECT key AS id, recipient AS owner, sealed_rumor AS sealed FROM outbox_messages
WHERE key > :after AND sealed_rumor NOT LIKE :prefix ORDER BY key LIMIT :count

-- name: outbox_messages_new
-- The same message under the first key.
UPDATE outbox_messages SET sealed_rumor = :after WHERE key = :id AND sealed_rumor = :before
