-- NWC connections: the operator's payee and the tenants' payers, URIs sealed.

-- name: insert
-- A new connection.
INSERT INTO connections (id, role, tenant, sealed_uri, wallet_pubkey, masked, encryption, state,
    probe_due_at, created_at)
VALUES (:id, :role, :tenant, :sealed_uri, :wallet_pubkey, :masked, :encryption, :state,
    :probe_due_at, :created_at)

-- name: get
-- One connection.
SELECT * FROM connections WHERE id = :id

-- name: payer_of
-- The connection a tenant pays with now.
SELECT * FROM connections
WHERE role = 'payer' AND tenant = :tenant AND state IN ('probing', 'active')

-- name: payee
-- The operator's receiving connection now.
SELECT * FROM connections WHERE role = 'payee' AND state IN ('probing', 'active')

-- name: payee_by_key
-- The newest receiving connection to this wallet, ended ones too.
SELECT * FROM connections WHERE role = 'payee' AND wallet_pubkey = :wallet_pubkey
ORDER BY created_at DESC, id DESC LIMIT 1

-- name: everything
-- All connections, oldest first.
SELECT * FROM connections ORDER BY created_at, id

-- name: end_payer
-- Replaced by another, or switched off; stays resolvable.
UPDATE connections SET state = :state, ended_at = :now, probe_due_at = NULL
WHERE role = 'payer' AND tenant = :tenant AND state IN ('probing', 'active')

-- name: end_payee
-- The operator configured another payee.
UPDATE connections SET state = 'replaced', ended_at = :now, probe_due_at = NULL
WHERE role = 'payee' AND state IN ('probing', 'active')

-- name: probe_due
-- Connections to be asked for their methods now.
SELECT * FROM connections WHERE probe_due_at <= :now ORDER BY probe_due_at, id LIMIT :count

-- name: probed
-- The answer of a probe.
UPDATE connections
SET state = CASE WHEN state = 'probing' THEN 'active' ELSE state END, encryption = :encryption,
    methods = :methods, probed_at = :now, probe_due_at = NULL, problem = :problem
WHERE id = :id

-- name: probe_failed
-- No usable answer; one that was ended while it was asked is asked no more.
UPDATE connections SET problem = :problem, probe_due_at = :next_at
WHERE id = :id AND state IN ('probing', 'active')

-- name: with_open_work
-- Connections that money may still move over: open requests or attempts in flight.
SELECT DISTINCT connections.* FROM connections
WHERE EXISTS (
        SELECT 1 FROM payment_requests
        WHERE payment_requests.payee_connection_id = connections.id
            AND payment_requests.state = 'open'
    )
    OR EXISTS (
        SELECT 1 FROM payment_attempts
        WHERE payment_attempts.connection_id = connections.id
            AND payment_attempts.state = 'in_flight'
    )
