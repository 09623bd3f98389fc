-- Refunds and credits, and the connections that pay them; states move by compare-and-set only.

-- name: insert
-- An intent (M1); a second live one for the invoice is refused.
INSERT INTO refunds (id, tenant, invoice_id, way, amount_minor, currency, reason, created_at,
    operation_id, note_operation_id, amount_msat, rate, next_try_at)
VALUES (:id, :tenant, :invoice_id, :way, :amount_minor, :currency, :reason, :created_at,
    :operation_id, :note_operation_id, :amount_msat, :rate, :created_at)

-- name: get
-- One refund.
SELECT * FROM refunds WHERE id = :id

-- name: by_event
-- The refund whose signed request this is.
SELECT * FROM refunds WHERE event_id = :event_id

-- name: by_hash
-- The refund that pays this hash.
SELECT * FROM refunds WHERE payment_hash = :payment_hash

-- name: by_stripe
-- Ours by the object's id, or by an operation of ours in its metadata.
SELECT * FROM refunds
WHERE stripe_id = :stripe_id OR note_id = :stripe_id OR operation_id = :operation_id
    OR note_operation_id = :operation_id

-- name: of_invoice
-- All refunds of an invoice, oldest first.
SELECT * FROM refunds WHERE invoice_id = :invoice_id ORDER BY created_at, id

-- name: of_tenant
-- All refunds and credits of a tenant, oldest first.
SELECT * FROM refunds WHERE tenant = :tenant ORDER BY created_at, id

-- name: everything
-- All, newest first.
SELECT * FROM refunds ORDER BY created_at DESC, id LIMIT :count

-- name: due
-- What has something to do now.
SELECT * FROM refunds WHERE next_try_at <= :now ORDER BY next_try_at, id LIMIT :count

-- name: twin
-- The same refund, asked for a moment ago.
SELECT * FROM refunds
WHERE tenant = :tenant AND amount_minor = :amount_minor AND created_at > :since
    AND state <> 'failed' AND COALESCE(invoice_id, '') = :invoice_id
ORDER BY created_at DESC, id LIMIT 1

-- name: prepare
-- What the tenant's wallet asks for: stored before its hash is noted at Stripe, and before it can
-- be paid.
UPDATE refunds
SET payment_hash = :payment_hash, bolt11 = :bolt11, expires_at = :expires_at
WHERE id = :id AND state = 'pending'

-- name: claim
-- The payment request of the tenant's wallet and our signed pay request, in flight with all that
-- recovery needs before anything is published (M1), once.
UPDATE refunds
SET state = 'in_flight', in_flight_at = :now, payer_connection_id = :payer_connection_id,
    spender_id = :spender_id, payment_hash = :payment_hash, bolt11 = :bolt11,
    amount_msat = :amount_msat, expires_at = :expires_at, event_id = :event_id,
    event_json = :event_json, encryption = :encryption, expiration = :expiration, fence = :fence,
    tries = 0, next_try_at = :next_try_at, problem = NULL
WHERE id = :id AND state = 'pending'

-- name: move
-- Compare-and-set to another state.
UPDATE refunds
SET state = :to_state, outcome = COALESCE(:outcome, outcome), problem = :problem,
    preimage = COALESCE(:preimage, preimage), next_try_at = :next_try_at,
    in_flight_at = CASE WHEN :to_state = 'in_flight' THEN CAST(:now AS BIGINT) ELSE in_flight_at END,
    ended_at = CASE WHEN :to_state = 'in_flight' THEN ended_at ELSE CAST(:now AS BIGINT) END
WHERE id = :id AND state = :from_state

-- name: written
-- The request went out, to this relay.
UPDATE refunds SET writes = writes + 1, relay_url = :relay_url WHERE id = :id

-- name: store_outcome
-- What our spending wallet said, without a change of state.
UPDATE refunds SET outcome = :outcome, problem = :problem WHERE id = :id

-- name: store_reading
-- What the last look said, and when to look again.
UPDATE refunds
SET tries = tries + 1, unpaid_since = :unpaid_since, unpaid_lookups = :unpaid_lookups,
    next_try_at = :next_try_at
WHERE id = :id AND state = 'in_flight'

-- name: again
-- Not now: the reason, and when next.
UPDATE refunds SET tries = tries + 1, problem = :problem, next_try_at = :next_try_at
WHERE id = :id

-- name: look_now
-- Something hints at its end: look at once, unless nothing can change any more.
UPDATE refunds SET next_try_at = :now
WHERE id = :id AND (
    state IN ('pending', 'in_flight')
    OR (state = 'done' AND note_operation_id IS NOT NULL AND noted_at IS NULL)
)

-- name: set_stripe
-- Stripe's own refund or balance transaction.
UPDATE refunds SET stripe_id = :stripe_id WHERE id = :id AND stripe_id IS NULL

-- name: noted
-- Stripe's credit note stands, or never can (`note_id` NULL): nothing is left to do.
UPDATE refunds SET noted_at = :now, note_id = :note_id, next_try_at = NULL
WHERE id = :id AND noted_at IS NULL

-- name: escalated
-- Operators were told that this cannot be decided; once.
UPDATE refunds SET escalated_at = :now WHERE id = :id AND escalated_at IS NULL

-- name: control_hash
-- A hash this spending wallet surely knows: the control for a NOT_FOUND.
SELECT payment_hash FROM refunds
WHERE spender_id = :spender_id AND state = 'done' AND payment_hash IS NOT NULL
ORDER BY created_at DESC, id LIMIT 1

-- name: spender
-- The operator's spending connection now.
SELECT id, 'spender' AS role, NULL AS tenant, sealed_uri, wallet_pubkey, masked, encryption,
    state, NULL AS methods, NULL AS probed_at, NULL AS probe_due_at, NULL AS problem, created_at,
    ended_at
FROM spending_connections WHERE state = 'active'

-- name: spender_by_id
-- One spending connection, replaced ones too.
SELECT id, 'spender' AS role, NULL AS tenant, sealed_uri, wallet_pubkey, masked, encryption,
    state, NULL AS methods, NULL AS probed_at, NULL AS probe_due_at, NULL AS problem, created_at,
    ended_at
FROM spending_connections WHERE id = :id

-- name: spender_by_wallet
-- The newest spending connection of this wallet, replaced ones too.
SELECT id, 'spender' AS role, NULL AS tenant, sealed_uri, wallet_pubkey, masked, encryption,
    state, NULL AS methods, NULL AS probed_at, NULL AS probe_due_at, NULL AS problem, created_at,
    ended_at
FROM spending_connections WHERE wallet_pubkey = :wallet_pubkey
ORDER BY created_at DESC, id DESC LIMIT 1

-- name: spenders_at_work
-- Spending connections over which money may be under way.
SELECT id, 'spender' AS role, NULL AS tenant, sealed_uri, wallet_pubkey, masked, encryption,
    state, NULL AS methods, NULL AS probed_at, NULL AS probe_due_at, NULL AS problem, created_at,
    ended_at
FROM spending_connections
WHERE EXISTS (
    SELECT 1 FROM refunds
    WHERE refunds.spender_id = spending_connections.id AND refunds.state = 'in_flight'
)

-- name: insert_spender
-- A configured spending connection.
INSERT INTO spending_connections (id, sealed_uri, wallet_pubkey, masked, state, created_at)
VALUES (:id, :sealed_uri, :wallet_pubkey, :masked, 'active', :created_at)

-- name: end_spender
-- Another is configured, or none; what is under way stays resolvable.
UPDATE spending_connections SET state = 'replaced', ended_at = :now WHERE state = 'active'
