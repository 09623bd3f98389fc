-- Payment requests and payment attempts; states move by compare-and-set only.

-- name: insert_request
-- What our wallet issued, before anybody sees it (M1); M2's index refuses a second live one.
INSERT INTO payment_requests (id, invoice_id, tenant, payee_connection_id, purpose, payment_hash,
    bolt11, amount_msat, amount_minor, currency, rate, rate_sources, rate_at, created_at,
    expires_at, margin_s, next_lookup_at, watch_until)
VALUES (:id, :invoice_id, :tenant, :payee_connection_id, :purpose, :payment_hash, :bolt11,
    :amount_msat, :amount_minor, :currency, :rate, :rate_sources, :rate_at, :created_at,
    :expires_at, :margin_s, :next_lookup_at, :watch_until)

-- name: request
-- One payment request.
SELECT * FROM payment_requests WHERE id = :id

-- name: request_by_hash
-- The payment request with this hash.
SELECT * FROM payment_requests WHERE payment_hash = :payment_hash

-- name: requests_of
-- All payment requests of an invoice, oldest first.
SELECT * FROM payment_requests WHERE invoice_id = :invoice_id ORDER BY created_at, id

-- name: everything
-- All payment requests, newest first.
SELECT * FROM payment_requests ORDER BY created_at DESC, id LIMIT :count

-- name: lookups_due
-- Requests our wallet is to be asked about now; those that money hangs on first.
SELECT * FROM payment_requests WHERE next_lookup_at <= :now
ORDER BY CASE WHEN state = 'open' THEN 0 ELSE 1 END, next_lookup_at, id LIMIT :count

-- name: another_hash
-- A hash our wallet surely knows: the control for a NOT_FOUND (M2). Wallets that forget invoices
-- forget the unpaid ones.
SELECT payment_hash FROM payment_requests
WHERE payee_connection_id = :payee_connection_id AND id <> :id AND purpose <> 'adopted'
ORDER BY CASE state WHEN 'settled' THEN 0 WHEN 'open' THEN 1 ELSE 2 END, created_at DESC, id
LIMIT 1

-- name: note_request
-- The hash stands in the Stripe invoice's metadata (M1).
UPDATE payment_requests SET noted_at = :now WHERE id = :id AND noted_at IS NULL

-- name: show_request
-- A person has been shown it: it is never sent to a wallet any more (M4).
UPDATE payment_requests SET shown_at = :now
WHERE id = :id AND state = 'open' AND noted_at IS NOT NULL AND shown_at IS NULL

-- name: move_request
-- Compare-and-set to another state.
UPDATE payment_requests SET state = :to_state, ended_at = :now
WHERE id = :id AND state = :from_state

-- name: store_reading
-- What the last look-up said, and when to look again: at once after a hint that came meanwhile.
UPDATE payment_requests
SET lookups = lookups + 1, last_lookup_at = :asked_at,
    next_lookup_at = CASE
        WHEN hints = :seen_hints THEN CAST(:next_lookup_at AS BIGINT) ELSE CAST(:now AS BIGINT)
    END,
    unpaid_since = :unpaid_since, unpaid_lookups = :unpaid_lookups,
    not_found_lookups = :not_found_lookups, failed_lookups_since = :failed_lookups_since
WHERE id = :id

-- name: store_silence
-- Our wallet gave no answer: nothing moves, but since when is remembered.
UPDATE payment_requests
SET next_lookup_at = :next_lookup_at,
    failed_lookups_since = COALESCE(failed_lookups_since, CAST(:now AS BIGINT))
WHERE id = :id

-- name: escalated
-- Operators were told that this cannot be decided; once.
UPDATE payment_requests SET escalated_at = :now WHERE id = :id AND escalated_at IS NULL

-- name: look_up_now
-- Something hints at money: ask our wallet now.
UPDATE payment_requests
SET hints = hints + 1,
    next_lookup_at = CASE
        WHEN next_lookup_at IS NULL OR next_lookup_at > :now THEN :now ELSE next_lookup_at
    END
WHERE id = :id AND state <> 'settled'

-- name: claim_request
-- The payer's wallet showed a valid preimage: no other charge may start (M6).
UPDATE payment_requests SET claimed_at = :now WHERE id = :id AND claimed_at IS NULL

-- name: operator_dead
-- The operator vouches that no money came and none will.
UPDATE payment_requests SET unpaid_since = :now, last_lookup_at = :looked_at, claimed_at = NULL
WHERE id = :id AND state = 'dead'

-- name: insert_attempt
-- An intent (M1); M4's index refuses a second live one.
INSERT INTO payment_attempts (id, invoice_id, request_id, tenant, rail, connection_id,
    operation_id, payment_hash, event_id, event_json, encryption, expiration, fence, prepared_at)
VALUES (:id, :invoice_id, :request_id, :tenant, :rail, :connection_id, :operation_id,
    :payment_hash, :event_id, :event_json, :encryption, :expiration, :fence, :prepared_at)

-- name: attempt
-- One attempt.
SELECT * FROM payment_attempts WHERE id = :id

-- name: attempt_by_event
-- The attempt whose signed request this is.
SELECT * FROM payment_attempts WHERE event_id = :event_id

-- name: attempts_of
-- All attempts of an invoice, oldest first.
SELECT * FROM payment_attempts WHERE invoice_id = :invoice_id ORDER BY prepared_at, id

-- name: attempts_of_request
-- All attempts on a payment request, oldest first.
SELECT * FROM payment_attempts WHERE request_id = :request_id ORDER BY prepared_at, id

-- name: live_attempts
-- Everything that may still move money.
SELECT * FROM payment_attempts WHERE state IN ('prepared', 'in_flight') ORDER BY prepared_at, id

-- name: move_attempt
-- Compare-and-set to another state.
UPDATE payment_attempts
SET state = :to_state, outcome = COALESCE(:outcome, outcome), reason = COALESCE(:reason, reason),
    in_flight_at = CASE WHEN :to_state = 'in_flight' THEN CAST(:now AS BIGINT) ELSE in_flight_at END,
    ended_at = CASE WHEN :to_state = 'in_flight' THEN ended_at ELSE CAST(:now AS BIGINT) END
WHERE id = :id AND state = :from_state

-- name: written
-- The request went out, to this relay.
UPDATE payment_attempts SET writes = writes + 1, relay_url = :relay_url WHERE id = :id

-- name: resending
-- Its second copy is about to be written, unless it has an end or an answer: from here on a refusal
-- of one copy ends nothing (M5).
UPDATE payment_attempts SET writes = 2
WHERE id = :id AND state = 'in_flight' AND writes = 1 AND outcome IS NULL

-- name: not_resent
-- Not a byte of the second copy left us.
UPDATE payment_attempts SET writes = 1 WHERE id = :id AND writes = 2

-- name: store_outcome
-- What the payer said, without a change of state.
UPDATE payment_attempts
SET outcome = :outcome, reason = :reason, preimage = COALESCE(:preimage, preimage)
WHERE id = :id

-- name: payer_lookups_due
-- Attempts in flight whose payer's wallet has not been asked since the last step of its schedule that
-- has passed. Our own wallet has had its turn (nothing of it is due), and the payer has not proven it
-- yet. A connection that was switched off stays asked about what went out over it.
SELECT a.* FROM payment_attempts AS a
JOIN payment_requests AS r ON r.id = a.request_id
JOIN connections AS c ON c.id = a.connection_id
WHERE a.state = 'in_flight' AND a.rail = 'nwc'
    AND r.state = 'open' AND r.claimed_at IS NULL AND r.next_lookup_at > :now
    AND ' ' || c.methods || ' ' LIKE :lists
    AND (
        (a.in_flight_at + :first_s <= :now
            AND COALESCE(a.payer_asked_at, 0) < a.in_flight_at + :first_s)
        OR (a.in_flight_at + :second_s <= :now
            AND COALESCE(a.payer_asked_at, 0) < a.in_flight_at + :second_s)
        OR (a.in_flight_at + :third_s <= :now
            AND COALESCE(a.payer_asked_at, 0) < a.in_flight_at + :third_s)
        OR (r.expires_at + r.margin_s <= :now
            AND COALESCE(a.payer_asked_at, 0) < r.expires_at + r.margin_s)
    )
ORDER BY COALESCE(a.payer_asked_at, 0), a.in_flight_at, a.id LIMIT :count

-- name: payer_asked
-- Where its schedule stands, whatever was answered.
UPDATE payment_attempts SET payer_asked_at = :asked_at WHERE id = :id

-- name: insert_settlement
-- Money proven by our own wallet; a repeat changes nothing.
INSERT INTO settlements (payment_hash, request_id, tenant, invoice_id, amount_msat, value_minor,
    currency, state, seen_at, settled_at, next_try_at)
VALUES (:payment_hash, :request_id, :tenant, :invoice_id, :amount_msat, :value_minor, :currency,
    'received', :seen_at, :settled_at, :seen_at)
ON CONFLICT (payment_hash) DO NOTHING

-- name: settlement
-- One settlement.
SELECT * FROM settlements WHERE payment_hash = :payment_hash

-- name: settlements_due
-- Money that has no home yet.
SELECT * FROM settlements WHERE next_try_at <= :now ORDER BY seen_at, payment_hash LIMIT :count

-- name: count_undecided
-- Open payment requests of a tenant, and money on its way to its home.
SELECT (SELECT COUNT(*) FROM payment_requests WHERE tenant = :tenant AND state = 'open')
    + (SELECT COUNT(*) FROM settlements WHERE tenant = :tenant AND next_try_at IS NOT NULL)

-- name: settlements_of_tenant
-- All money of a tenant, oldest first.
SELECT * FROM settlements WHERE tenant = :tenant ORDER BY seen_at, payment_hash

-- name: aim_settlement
-- Which invoice this money pays, and with which operation; committed before the call (M10).
UPDATE settlements
SET target_invoice_id = :target_invoice_id, pay_operation_id = :pay_operation_id
WHERE payment_hash = :payment_hash AND state = 'received'

-- name: place_settlement
-- It paid its target; the rest becomes credit.
UPDATE settlements
SET state = :to_state, credit_minor = :credit_minor, credit_operation_id = :credit_operation_id,
    next_try_at = :next_try_at, target_invoice_id = :target_invoice_id
WHERE payment_hash = :payment_hash AND state = :from_state

-- name: settlement_failed
-- Try again later.
UPDATE settlements SET next_try_at = :next_at, attempts = attempts + 1
WHERE payment_hash = :payment_hash
