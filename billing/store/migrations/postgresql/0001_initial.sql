-- The first schema. Timestamps are epoch seconds; *_minor are minor units of the row's currency;
-- *_msat are millisatoshi. Each constraint that carries a money rule names it.

CREATE TABLE tenants (
    pubkey TEXT COLLATE "C" PRIMARY KEY,
    name TEXT COLLATE "C" NOT NULL,
    customer_id TEXT COLLATE "C" UNIQUE,
    subscription_id TEXT COLLATE "C" UNIQUE,
    subscription_status TEXT COLLATE "C",
    period_end BIGINT,
    legacy_dm BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL,
    sync_due_at BIGINT,
    sync_attempts BIGINT NOT NULL DEFAULT 0,
    sync_wishes BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX tenants_sync_due ON tenants (sync_due_at) WHERE sync_due_at IS NOT NULL;

CREATE TABLE hosted_relays (
    id TEXT COLLATE "C" PRIMARY KEY,
    tenant TEXT COLLATE "C" NOT NULL REFERENCES tenants (pubkey),
    name TEXT COLLATE "C" NOT NULL,
    plan TEXT COLLATE "C" NOT NULL,
    state TEXT COLLATE "C" NOT NULL
        CHECK (state IN ('pending_payment', 'active', 'limited', 'stopped', 'ended')),
    stops_at BIGINT,
    stop_requested_at BIGINT,
    wanted_rev BIGINT NOT NULL DEFAULT 0,
    applied_rev BIGINT NOT NULL DEFAULT 0,
    sync_due_at BIGINT,
    sync_attempts BIGINT NOT NULL DEFAULT 0,
    sync_error TEXT COLLATE "C",
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    activated_at BIGINT
);
-- A name belongs to one living relay; an ended one frees it.
CREATE UNIQUE INDEX hosted_relays_name ON hosted_relays (name) WHERE state <> 'ended';
CREATE INDEX hosted_relays_tenant ON hosted_relays (tenant);
CREATE INDEX hosted_relays_sync_due ON hosted_relays (sync_due_at) WHERE sync_due_at IS NOT NULL;

CREATE TABLE connections (
    id TEXT COLLATE "C" PRIMARY KEY,
    role TEXT COLLATE "C" NOT NULL CHECK (role IN ('payee', 'payer')),
    tenant TEXT COLLATE "C" REFERENCES tenants (pubkey),
    sealed_uri TEXT COLLATE "C" NOT NULL,
    wallet_pubkey TEXT COLLATE "C" NOT NULL,
    masked TEXT COLLATE "C" NOT NULL,
    encryption TEXT COLLATE "C",
    state TEXT COLLATE "C" NOT NULL CHECK (state IN ('probing', 'active', 'replaced', 'off')),
    methods TEXT COLLATE "C",
    probed_at BIGINT,
    probe_due_at BIGINT,
    problem TEXT COLLATE "C",
    created_at BIGINT NOT NULL,
    ended_at BIGINT,
    CHECK ((role = 'payee') = (tenant IS NULL))
);
CREATE UNIQUE INDEX connections_one_payer ON connections (tenant)
    WHERE role = 'payer' AND state IN ('probing', 'active');
CREATE UNIQUE INDEX connections_one_payee ON connections (role)
    WHERE role = 'payee' AND state IN ('probing', 'active');
CREATE INDEX connections_probe_due ON connections (probe_due_at) WHERE probe_due_at IS NOT NULL;

-- M11: an idempotency key is the id of a stored operation, written before the call.
CREATE TABLE operations (
    id TEXT COLLATE "C" PRIMARY KEY,
    kind TEXT COLLATE "C" NOT NULL,
    subject TEXT COLLATE "C" NOT NULL,
    attempts BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL,
    finished_at BIGINT,
    result TEXT COLLATE "C"
);
CREATE UNIQUE INDEX operations_one_open ON operations (subject, kind) WHERE finished_at IS NULL;

-- One row while a subscription is being changed, step by step; at most one per tenant at a time.
CREATE TABLE changes (
    id TEXT COLLATE "C" PRIMARY KEY,
    tenant TEXT COLLATE "C" NOT NULL REFERENCES tenants (pubkey),
    kind TEXT COLLATE "C" NOT NULL CHECK (kind IN ('create', 'add', 'reduce', 'cancel', 'keep')),
    step TEXT COLLATE "C" NOT NULL CHECK (step IN ('items', 'invoice', 'done')),
    quantities TEXT COLLATE "C" NOT NULL,
    relays TEXT COLLATE "C" NOT NULL,
    items_operation_id TEXT COLLATE "C" NOT NULL UNIQUE,
    invoice_operation_id TEXT COLLATE "C" NOT NULL UNIQUE,
    invoice_id TEXT COLLATE "C",
    attempts BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL,
    done_at BIGINT,
    outcome TEXT COLLATE "C"
);
CREATE UNIQUE INDEX changes_one_running ON changes (tenant) WHERE done_at IS NULL;

CREATE TABLE invoices (
    id TEXT COLLATE "C" PRIMARY KEY,
    tenant TEXT COLLATE "C" NOT NULL REFERENCES tenants (pubkey),
    customer_id TEXT COLLATE "C" NOT NULL,
    subscription_id TEXT COLLATE "C",
    status TEXT COLLATE "C" NOT NULL,
    currency TEXT COLLATE "C" NOT NULL,
    total_minor BIGINT NOT NULL,
    amount_due_minor BIGINT NOT NULL,
    amount_remaining_minor BIGINT NOT NULL,
    billing_reason TEXT COLLATE "C",
    number TEXT COLLATE "C",
    created_at BIGINT NOT NULL,
    period_start BIGINT NOT NULL,
    period_end BIGINT NOT NULL,
    fetched_at BIGINT NOT NULL,
    collect_due_at BIGINT,
    collect_attempts BIGINT NOT NULL DEFAULT 0,
    collect_wishes BIGINT NOT NULL DEFAULT 0,
    nwc_tries BIGINT NOT NULL DEFAULT 0,
    nwc_retry_at BIGINT,
    show_wanted BIGINT NOT NULL DEFAULT 0,
    paid_at BIGINT,
    paid_by TEXT COLLATE "C"
);
CREATE INDEX invoices_collect_due ON invoices (collect_due_at) WHERE collect_due_at IS NOT NULL;
CREATE INDEX invoices_retry_due ON invoices (nwc_retry_at) WHERE nwc_retry_at IS NOT NULL;
CREATE INDEX invoices_tenant ON invoices (tenant, created_at);

-- Which relays an invoice carries: payment brings up, and dunning touches, only these (M12, M13).
CREATE TABLE invoice_relays (
    invoice_id TEXT COLLATE "C" NOT NULL,
    relay_id TEXT COLLATE "C" NOT NULL REFERENCES hosted_relays (id),
    PRIMARY KEY (invoice_id, relay_id)
);

CREATE TABLE payment_requests (
    id TEXT COLLATE "C" PRIMARY KEY,
    invoice_id TEXT COLLATE "C" NOT NULL REFERENCES invoices (id),
    tenant TEXT COLLATE "C" NOT NULL REFERENCES tenants (pubkey),
    payee_connection_id TEXT COLLATE "C" NOT NULL REFERENCES connections (id),
    purpose TEXT COLLATE "C" NOT NULL CHECK (purpose IN ('automatic', 'shown', 'adopted')),
    payment_hash TEXT COLLATE "C" NOT NULL UNIQUE,
    bolt11 TEXT COLLATE "C" NOT NULL,
    amount_msat BIGINT NOT NULL CHECK (amount_msat >= 0),
    amount_minor BIGINT NOT NULL,
    currency TEXT COLLATE "C" NOT NULL,
    rate TEXT COLLATE "C" NOT NULL,
    rate_sources TEXT COLLATE "C" NOT NULL,
    rate_at BIGINT NOT NULL,
    state TEXT COLLATE "C" NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'settled', 'dead')),
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    margin_s BIGINT NOT NULL,
    noted_at BIGINT,
    shown_at BIGINT,
    lookups BIGINT NOT NULL DEFAULT 0,
    unpaid_since BIGINT,
    unpaid_lookups BIGINT NOT NULL DEFAULT 0,
    not_found_lookups BIGINT NOT NULL DEFAULT 0,
    next_lookup_at BIGINT,
    hints BIGINT NOT NULL DEFAULT 0,
    last_lookup_at BIGINT,
    failed_lookups_since BIGINT,
    escalated_at BIGINT,
    claimed_at BIGINT,
    ended_at BIGINT,
    watch_until BIGINT NOT NULL
);
-- M2: one live payment request per invoice.
CREATE UNIQUE INDEX payment_requests_one_live ON payment_requests (invoice_id)
    WHERE state = 'open';
CREATE INDEX payment_requests_lookup_due ON payment_requests (next_lookup_at)
    WHERE next_lookup_at IS NOT NULL;

CREATE TABLE payment_attempts (
    id TEXT COLLATE "C" PRIMARY KEY,
    invoice_id TEXT COLLATE "C" NOT NULL REFERENCES invoices (id),
    request_id TEXT COLLATE "C" REFERENCES payment_requests (id),
    tenant TEXT COLLATE "C" NOT NULL REFERENCES tenants (pubkey),
    rail TEXT COLLATE "C" NOT NULL CHECK (rail IN ('nwc', 'card')),
    connection_id TEXT COLLATE "C" REFERENCES connections (id),
    operation_id TEXT COLLATE "C",
    -- M3: one pay request per payment hash, ever.
    payment_hash TEXT COLLATE "C" UNIQUE,
    event_id TEXT COLLATE "C" UNIQUE,
    event_json TEXT COLLATE "C",
    encryption TEXT COLLATE "C",
    expiration BIGINT,
    state TEXT COLLATE "C" NOT NULL DEFAULT 'prepared'
        CHECK (state IN ('prepared', 'in_flight', 'settled', 'refused', 'dead')),
    fence BIGINT NOT NULL,
    prepared_at BIGINT NOT NULL,
    in_flight_at BIGINT,
    writes BIGINT NOT NULL DEFAULT 0,
    relay_url TEXT COLLATE "C",
    outcome TEXT COLLATE "C",
    reason TEXT COLLATE "C",
    preimage TEXT COLLATE "C",
    ended_at BIGINT,
    -- M1: nothing may be in flight without all that recovery needs.
    CHECK (rail <> 'nwc' OR (request_id IS NOT NULL AND payment_hash IS NOT NULL)),
    CHECK (rail <> 'card' OR operation_id IS NOT NULL)
);
-- M4: one payer at a time, the card included.
CREATE UNIQUE INDEX payment_attempts_one_live ON payment_attempts (invoice_id)
    WHERE state IN ('prepared', 'in_flight');
CREATE INDEX payment_attempts_request ON payment_attempts (request_id);

-- Guards: the legal transitions, literally; a test compares them with billing/payments.py.
CREATE FUNCTION payment_requests_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'illegal transition of a payment request' USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER payment_requests_guard BEFORE UPDATE OF state ON payment_requests
FOR EACH ROW WHEN (OLD.state <> NEW.state AND OLD.state || '>' || NEW.state NOT IN (
    'open>settled', 'open>dead', 'dead>settled'
)) EXECUTE FUNCTION payment_requests_guard();
CREATE FUNCTION payment_attempts_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'illegal transition of a payment attempt' USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER payment_attempts_guard BEFORE UPDATE OF state ON payment_attempts
FOR EACH ROW WHEN (OLD.state <> NEW.state AND OLD.state || '>' || NEW.state NOT IN (
    'prepared>in_flight', 'prepared>dead', 'in_flight>settled', 'in_flight>refused',
    'in_flight>dead', 'refused>settled', 'dead>settled'
)) EXECUTE FUNCTION payment_attempts_guard();

-- M9, M10: money proven by our own wallet, on its way to its home.
CREATE TABLE settlements (
    payment_hash TEXT COLLATE "C" PRIMARY KEY,
    request_id TEXT COLLATE "C" NOT NULL REFERENCES payment_requests (id),
    tenant TEXT COLLATE "C" NOT NULL REFERENCES tenants (pubkey),
    invoice_id TEXT COLLATE "C" NOT NULL,
    amount_msat BIGINT NOT NULL,
    value_minor BIGINT NOT NULL,
    currency TEXT COLLATE "C" NOT NULL,
    state TEXT COLLATE "C" NOT NULL CHECK (state IN ('received', 'placed', 'credited', 'liability')),
    target_invoice_id TEXT COLLATE "C",
    pay_operation_id TEXT COLLATE "C",
    credit_operation_id TEXT COLLATE "C",
    credit_minor BIGINT NOT NULL DEFAULT 0,
    seen_at BIGINT NOT NULL,
    settled_at BIGINT NOT NULL,
    next_try_at BIGINT,
    attempts BIGINT NOT NULL DEFAULT 0
);
-- An invoice is paid by at most one settlement.
CREATE UNIQUE INDEX settlements_one_target ON settlements (target_invoice_id)
    WHERE target_invoice_id IS NOT NULL;
CREATE INDEX settlements_due ON settlements (next_try_at) WHERE next_try_at IS NOT NULL;

-- M14: one row per Stripe event id, from webhooks and from catch-up alike.
CREATE TABLE inbox_events (
    event_id TEXT COLLATE "C" PRIMARY KEY,
    type TEXT COLLATE "C" NOT NULL,
    object_id TEXT COLLATE "C",
    api_created BIGINT NOT NULL,
    livemode BIGINT NOT NULL,
    account TEXT COLLATE "C",
    payload TEXT COLLATE "C" NOT NULL,
    received_at BIGINT NOT NULL,
    handled_at BIGINT,
    state TEXT COLLATE "C" NOT NULL DEFAULT 'new' CHECK (state IN ('new', 'handled', 'ignored', 'failed')),
    attempts BIGINT NOT NULL DEFAULT 0,
    next_try_at BIGINT,
    error TEXT COLLATE "C"
);
CREATE INDEX inbox_events_due ON inbox_events (next_try_at) WHERE next_try_at IS NOT NULL;

CREATE TABLE rejected_deliveries (
    seq BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    at BIGINT NOT NULL,
    reason TEXT COLLATE "C" NOT NULL,
    remote TEXT COLLATE "C" NOT NULL,
    headers TEXT COLLATE "C" NOT NULL,
    body_bytes BIGINT NOT NULL
);

-- The DM inbox: the stored form is the gift wrap (or kind 4 event), never plaintext.
CREATE TABLE dm_inbox (
    event_id TEXT COLLATE "C" PRIMARY KEY,
    rumor_id TEXT COLLATE "C" UNIQUE,
    sender TEXT COLLATE "C",
    event_json TEXT COLLATE "C" NOT NULL,
    received_at BIGINT NOT NULL,
    handled_at BIGINT,
    outcome TEXT COLLATE "C"
);
CREATE INDEX dm_inbox_open ON dm_inbox (received_at) WHERE handled_at IS NULL;

-- One message per key; a state change and its message commit together (C7).
CREATE TABLE outbox_messages (
    key TEXT COLLATE "C" PRIMARY KEY,
    seq BIGINT NOT NULL UNIQUE,
    recipient TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    facts TEXT COLLATE "C" NOT NULL,
    request_id TEXT COLLATE "C",
    sealed_rumor TEXT COLLATE "C",
    state TEXT COLLATE "C" NOT NULL DEFAULT 'due'
        CHECK (state IN ('due', 'delivered', 'replaced', 'undeliverable')),
    attempts BIGINT NOT NULL DEFAULT 0,
    next_try_at BIGINT,
    created_at BIGINT NOT NULL,
    delivered_at BIGINT,
    answers TEXT COLLATE "C"
);
CREATE INDEX outbox_due ON outbox_messages (next_try_at) WHERE next_try_at IS NOT NULL;

CREATE TABLE activity (
    seq BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    at BIGINT NOT NULL,
    billing_at BIGINT NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    tenant TEXT COLLATE "C",
    subject TEXT COLLATE "C",
    facts TEXT COLLATE "C" NOT NULL
);
CREATE INDEX activity_subject ON activity (subject);
CREATE INDEX activity_tenant ON activity (tenant);

-- One active instance per database: a lease with a fencing token.
CREATE TABLE leases (
    name TEXT COLLATE "C" PRIMARY KEY,
    owner TEXT COLLATE "C" NOT NULL,
    fence BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);

CREATE TABLE cursors (
    name TEXT COLLATE "C" PRIMARY KEY,
    value TEXT COLLATE "C" NOT NULL
);
