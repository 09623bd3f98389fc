-- Leases and cursors.

-- name: ensure
-- The row exists.
INSERT INTO leases (name, owner, fence, expires_at) VALUES (:name, '', 0, 0)
ON CONFLICT (name) DO NOTHING

-- name: take
-- Free or expired: ours now, with a higher fence.
UPDATE leases SET owner = :owner, fence = fence + 1, expires_at = :expires_at
WHERE name = :name AND (owner = '' OR expires_at <= :now)

-- name: expire
-- Its holder is known to be dead.
UPDATE leases SET expires_at = 0 WHERE name = :name

-- name: renew
-- Still ours.
UPDATE leases SET expires_at = :expires_at
WHERE name = :name AND owner = :owner AND fence = :fence

-- name: release
-- Given back on a graceful stop.
UPDATE leases SET owner = '', expires_at = 0
WHERE name = :name AND owner = :owner AND fence = :fence

-- name: fence
-- The fence that writes must carry.
SELECT fence FROM leases WHERE name = :name

-- name: cursor
-- Where a sweep stands.
SELECT value FROM cursors WHERE name = :name

-- name: set_cursor
-- Move it.
INSERT INTO cursors (name, value) VALUES (:name, :value)
ON CONFLICT (name) DO UPDATE SET value = excluded.value
