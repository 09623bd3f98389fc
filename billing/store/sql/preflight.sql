-- Preflight: who is to be told of a renewal, and whose wallet to be asked before it.

-- name: due
-- Renewals in this window, with a wallet or of everyone, that were not looked at for this step; who
-- has not paid the one before is told of that instead.
SELECT pubkey, name, customer_id, subscription_id, subscription_status,
    period_end, legacy_dm, created_at, sync_due_at, sync_attempts, sync_wishes,
    ending_subscription_id, seats
FROM tenants
WHERE subscription_id IS NOT NULL AND subscription_status IN ('active', 'past_due')
    AND period_end > :after AND period_end <= :until
    AND NOT EXISTS (
        SELECT 1 FROM dunning_windows
        WHERE dunning_windows.tenant = tenants.pubkey AND dunning_windows.closed_at IS NULL
    )
    AND (:everyone = 1 OR EXISTS (
        SELECT 1 FROM connections
        WHERE connections.tenant = tenants.pubkey AND connections.role = 'payer'
            AND connections.state = 'active'
    ))
    AND NOT EXISTS (
        SELECT 1 FROM cursors
        WHERE cursors.name = 'preflight:' || CAST(:step AS TEXT) || ':' || tenants.pubkey
            AND cursors.value = CAST(tenants.period_end AS TEXT)
    )
ORDER BY period_end, pubkey
