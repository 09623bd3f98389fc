-- Money that goes back: refunds and credits, and the connection that pays them. The receiving
-- connection can not pay, so this is another one with a budget of its own.

CREATE TABLE spending_connections (
    id TEXT PRIMARY KEY,
    sealed_uri TEXT NOT NULL,
    wallet_pubkey TEXT NOT NULL,
    masked TEXT NOT NULL,
    encryption TEXT,
    state TEXT NOT NULL CHECK (state IN ('active', 'replaced')),
    created_at INTEGER NOT NULL,
    ended_at INTEGER
) STRICT;
CREATE UNIQUE INDEX spending_connections_one ON spending_connections (state)
    WHERE state = 'active';

CREATE TABLE refunds (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenants (pubkey),
    invoice_id TEXT,
    way TEXT NOT NULL CHECK (way IN ('lightning', 'card', 'balance')),
    amount_minor INTEGER NOT NULL CHECK (amount_minor > 0),
    currency TEXT NOT NULL,
    reason TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending'
        CHECK (state IN ('pending', 'in_flight', 'done', 'failed')),
    created_at INTEGER NOT NULL,
    operation_id TEXT NOT NULL UNIQUE,
    stripe_id TEXT UNIQUE,
    note_operation_id TEXT UNIQUE,
    note_id TEXT,
    noted_at INTEGER,
    payer_connection_id TEXT REFERENCES connections (id),
    spender_id TEXT REFERENCES spending_connections (id),
    -- M3: one pay request per payment hash, ever.
    payment_hash TEXT UNIQUE,
    bolt11 TEXT,
    amount_msat INTEGER,
    rate TEXT,
    expires_at INTEGER,
    event_id TEXT UNIQUE,
    event_json TEXT,
    encryption TEXT,
    expiration INTEGER,
    fence INTEGER,
    in_flight_at INTEGER,
    writes INTEGER NOT NULL DEFAULT 0,
    relay_url TEXT,
    outcome TEXT,
    problem TEXT,
    preimage TEXT,
    unpaid_since INTEGER,
    unpaid_lookups INTEGER NOT NULL DEFAULT 0,
    tries INTEGER NOT NULL DEFAULT 0,
    next_try_at INTEGER,
    escalated_at INTEGER,
    ended_at INTEGER,
    -- M1: nothing may be in flight without all that recovery needs.
    CHECK (way <> 'lightning' OR state IN ('pending', 'failed') OR (payment_hash IS NOT NULL
        AND bolt11 IS NOT NULL AND event_json IS NOT NULL AND spender_id IS NOT NULL
        AND expires_at IS NOT NULL)),
    CHECK (way = 'balance' OR invoice_id IS NOT NULL)
) STRICT;
-- One at a time: a second submission is refused while the first may still move money.
CREATE UNIQUE INDEX refunds_one_live ON refunds (invoice_id)
    WHERE state IN ('pending', 'in_flight') AND invoice_id IS NOT NULL;
CREATE UNIQUE INDEX refunds_one_live_credit ON refunds (tenant)
    WHERE state IN ('pending', 'in_flight') AND invoice_id IS NULL;
CREATE INDEX refunds_due ON refunds (next_try_at) WHERE next_try_at IS NOT NULL;
CREATE INDEX refunds_tenant ON refunds (tenant);

-- The legal transitions, literally; a test compares them with billing/refunds.py.
CREATE TRIGGER refunds_guard BEFORE UPDATE OF state ON refunds
WHEN OLD.state <> NEW.state AND OLD.state || '>' || NEW.state NOT IN (
    'pending>in_flight', 'pending>failed', 'in_flight>done', 'in_flight>failed', 'failed>done'
)
BEGIN SELECT RAISE(ABORT, 'illegal transition of a refund'); END;
