-- Preflight: whose wallet is to be asked before a renewal.

-- name: due
-- Renewals in this window with a wallet that was not asked for it at this step.
SELECT pubkey, name, customer_id, subscription_id, subscription_status,
    period_end, legacy_dm, created_at, sync_due_at, sync_attempts, sync_wishes,
    ending_subscription_id
FROM tenants
WHERE subscription_id IS NOT NULL AND subscription_status IN ('active', 'past_due')
    AND period_end > :after AND period_end <= :until
    AND EXISTS (
        SELECT 1 FROM connections
        WHERE connections.tenant = tenants.pubkey AND connections.role = 'payer'
            AND connections.state = 'active'
    )
    AND NOT EXISTS (
        SELECT 1 FROM cursors
        WHERE cursors.name = 'preflight:' || CAST(:step AS TEXT) || ':' || tenants.pubkey
            AND cursors.value = CAST(tenants.period_end AS TEXT)
    )
ORDER BY period_end, pubkey
