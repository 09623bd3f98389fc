-- Money that goes back: refunds and credits, and the connection that pays them. The receiving
-- connection can not pay, so this is another one with a budget of its own.

CREATE TABLE spending_connections (
    id TEXT COLLATE "C" PRIMARY KEY,
    sealed_uri TEXT COLLATE "C" NOT NULL,
    wallet_pubkey TEXT COLLATE "C" NOT NULL,
    masked TEXT COLLATE "C" NOT NULL,
    encryption TEXT COLLATE "C",
    state TEXT COLLATE "C" NOT NULL CHECK (state IN ('active', 'replaced')),
    created_at BIGINT NOT NULL,
    ended_at BIGINT
);
CREATE UNIQUE INDEX spending_connections_one ON spending_connections (state)
    WHERE state = 'active';

CREATE TABLE refunds (
    id TEXT COLLATE "C" PRIMARY KEY,
    tenant TEXT COLLATE "C" NOT NULL REFERENCES tenants (pubkey),
    invoice_id TEXT COLLATE "C",
    way TEXT COLLATE "C" NOT NULL CHECK (way IN ('lightning', 'card', 'balance')),
    amount_minor BIGINT NOT NULL CHECK (amount_minor > 0),
    currency TEXT COLLATE "C" NOT NULL,
    reason TEXT COLLATE "C" NOT NULL,
    state TEXT COLLATE "C" NOT NULL DEFAULT 'pending'
        CHECK (state IN ('pending', 'in_flight', 'done', 'failed')),
    created_at BIGINT NOT NULL,
    operation_id TEXT COLLATE "C" NOT NULL UNIQUE,
    stripe_id TEXT COLLATE "C" UNIQUE,
    note_operation_id TEXT COLLATE "C" UNIQUE,
    note_id TEXT COLLATE "C",
    noted_at BIGINT,
    payer_connection_id TEXT COLLATE "C" REFERENCES connections (id),
    spender_id TEXT COLLATE "C" REFERENCES spending_connections (id),
    -- M3: one pay request per payment hash, ever.
    payment_hash TEXT COLLATE "C" UNIQUE,
    bolt11 TEXT COLLATE "C",
    amount_msat BIGINT,
    rate TEXT COLLATE "C",
    expires_at BIGINT,
    event_id TEXT COLLATE "C" UNIQUE,
    event_json TEXT COLLATE "C",
    encryption TEXT COLLATE "C",
    expiration BIGINT,
    fence BIGINT,
    in_flight_at BIGINT,
    writes BIGINT NOT NULL DEFAULT 0,
    relay_url TEXT COLLATE "C",
    outcome TEXT COLLATE "C",
    problem TEXT COLLATE "C",
    preimage TEXT COLLATE "C",
    unpaid_since BIGINT,
    unpaid_lookups BIGINT NOT NULL DEFAULT 0,
    tries BIGINT NOT NULL DEFAULT 0,
    next_try_at BIGINT,
    escalated_at BIGINT,
    ended_at BIGINT,
    -- M1: nothing may be in flight without all that recovery needs.
    CHECK (way <> 'lightning' OR state IN ('pending', 'failed') OR (payment_hash IS NOT NULL
        AND bolt11 IS NOT NULL AND event_json IS NOT NULL AND spender_id IS NOT NULL
        AND expires_at IS NOT NULL)),
    CHECK (way = 'balance' OR invoice_id IS NOT NULL)
);
-- One at a time: a second submission is refused while the first may still move money.
CREATE UNIQUE INDEX refunds_one_live ON refunds (invoice_id)
    WHERE state IN ('pending', 'in_flight') AND invoice_id IS NOT NULL;
CREATE UNIQUE INDEX refunds_one_live_credit ON refunds (tenant)
    WHERE state IN ('pending', 'in_flight') AND invoice_id IS NULL;
CREATE INDEX refunds_due ON refunds (next_try_at) WHERE next_try_at IS NOT NULL;
CREATE INDEX refunds_tenant ON refunds (tenant);

-- The legal transitions, literally; a test compares them with billing/refunds.py.
CREATE FUNCTION refunds_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'illegal transition of a refund' USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER refunds_guard BEFORE UPDATE OF state ON refunds
FOR EACH ROW WHEN (OLD.state <> NEW.state AND OLD.state || '>' || NEW.state NOT IN (
    'pending>in_flight', 'pending>failed', 'in_flight>done', 'in_flight>failed', 'failed>done'
)) EXECUTE FUNCTION refunds_guard();
