CREATE INDEX activity_kind ON activity (kind, at);

CREATE INDEX activity_subject ON activity (subject);

CREATE INDEX activity_tenant ON activity (tenant);

CREATE INDEX card_pages_due ON card_pages (next_try_at) WHERE next_try_at IS NOT NULL;

CREATE UNIQUE INDEX card_pages_one_wanted ON card_pages (tenant) WHERE state = 'wanted';

CREATE INDEX cards_look_due ON cards (look_due_at) WHERE look_due_at IS NOT NULL;

CREATE INDEX cards_warn_at ON cards (warn_at) WHERE warn_at IS NOT NULL;

CREATE UNIQUE INDEX changes_one_running ON changes (tenant) WHERE done_at IS NULL;

CREATE UNIQUE INDEX connections_one_payee ON connections (role)
    WHERE role = 'payee' AND state IN ('probing', 'active');

CREATE UNIQUE INDEX connections_one_payer ON connections (tenant)
    WHERE role = 'payer' AND state IN ('probing', 'active');

CREATE INDEX connections_probe_due ON connections (probe_due_at) WHERE probe_due_at IS NOT NULL;

CREATE UNIQUE INDEX credit_spends_one_live ON credit_spends (invoice_id) WHERE ended_at IS NULL;

CREATE INDEX dm_inbox_open ON dm_inbox (received_at) WHERE handled_at IS NULL;

CREATE INDEX dunning_windows_ending ON dunning_windows (invoice_id)
    WHERE end_subscription_id IS NOT NULL;

CREATE INDEX dunning_windows_open ON dunning_windows (next_look_at) WHERE closed_at IS NULL;

CREATE INDEX dunning_windows_tenant ON dunning_windows (tenant) WHERE closed_at IS NULL;

CREATE INDEX hosted_relays_lapses ON hosted_relays (lapses_at) WHERE lapses_at IS NOT NULL;

CREATE UNIQUE INDEX hosted_relays_name ON hosted_relays (name) WHERE state <> 'ended';

CREATE INDEX hosted_relays_sync_due ON hosted_relays (sync_due_at) WHERE sync_due_at IS NOT NULL;

CREATE INDEX hosted_relays_tenant ON hosted_relays (tenant);

CREATE INDEX inbox_events_due ON inbox_events (next_try_at) WHERE next_try_at IS NOT NULL;

CREATE INDEX inbox_events_failed ON inbox_events (received_at) WHERE state = 'failed';

CREATE INDEX inbox_events_handled ON inbox_events (handled_at) WHERE handled_at IS NOT NULL;

CREATE INDEX invoices_collect_due ON invoices (collect_due_at) WHERE collect_due_at IS NOT NULL;

CREATE INDEX invoices_owed ON invoices (created_at) WHERE status IN ('open', 'uncollectible');

CREATE INDEX invoices_retry_due ON invoices (nwc_retry_at) WHERE nwc_retry_at IS NOT NULL;

CREATE INDEX invoices_tenant ON invoices (tenant, created_at);

CREATE INDEX ledger_billing_at ON ledger (billing_at);

CREATE UNIQUE INDEX ledger_entry ON ledger (entry, line);

CREATE INDEX ledger_invoice ON ledger (invoice_id);

CREATE UNIQUE INDEX operations_one_open ON operations (subject, kind) WHERE finished_at IS NULL;

CREATE INDEX outbox_due ON outbox_messages (next_try_at) WHERE next_try_at IS NOT NULL;

CREATE UNIQUE INDEX payment_attempts_one_live ON payment_attempts (invoice_id)
    WHERE state IN ('prepared', 'in_flight');

CREATE INDEX payment_attempts_request ON payment_attempts (request_id);

CREATE INDEX payment_requests_lookup_due ON payment_requests (next_lookup_at)
    WHERE next_lookup_at IS NOT NULL;

CREATE UNIQUE INDEX payment_requests_one_live ON payment_requests (invoice_id)
    WHERE state = 'open';

CREATE INDEX plan_changes_invoice ON plan_changes (invoice_id) WHERE invoice_id IS NOT NULL;

CREATE UNIQUE INDEX plan_changes_one_live ON plan_changes (relay_id)
    WHERE state IN ('confirmed', 'ordered', 'scheduled');

CREATE UNIQUE INDEX plan_changes_one_offer ON plan_changes (relay_id)
    WHERE state IN ('wanted', 'quoted');

CREATE INDEX plan_changes_open ON plan_changes (state)
    WHERE state IN ('wanted', 'quoted', 'confirmed', 'ordered', 'scheduled');

CREATE INDEX plan_changes_tenant ON plan_changes (tenant);

CREATE INDEX refunds_due ON refunds (next_try_at) WHERE next_try_at IS NOT NULL;

CREATE UNIQUE INDEX refunds_one_live ON refunds (invoice_id)
    WHERE state IN ('pending', 'in_flight') AND invoice_id IS NOT NULL;

CREATE UNIQUE INDEX refunds_one_live_credit ON refunds (tenant)
    WHERE state IN ('pending', 'in_flight') AND invoice_id IS NULL
    AND substr(id, 1, 11) <> 'ref_unused_';

CREATE INDEX refunds_tenant ON refunds (tenant);

CREATE INDEX rejected_deliveries_at ON rejected_deliveries (at);

CREATE INDEX settlements_due ON settlements (next_try_at) WHERE next_try_at IS NOT NULL;

CREATE UNIQUE INDEX settlements_one_target ON settlements (target_invoice_id)
    WHERE target_invoice_id IS NOT NULL;

CREATE UNIQUE INDEX spending_connections_one ON spending_connections (state)
    WHERE state = 'active';

CREATE INDEX tenants_sync_due ON tenants (sync_due_at) WHERE sync_due_at IS NOT NULL;

CREATE TABLE activity (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    billing_at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    tenant TEXT,
    subject TEXT,
    facts TEXT NOT NULL
) STRICT;

CREATE TABLE card_pages (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenants (pubkey),
    kind TEXT NOT NULL CHECK (kind IN ('portal', 'checkout')),
    state TEXT NOT NULL DEFAULT 'wanted'
        CHECK (state IN ('wanted', 'sent', 'completed', 'failed')),
    operation_id TEXT NOT NULL UNIQUE,
    session_id TEXT UNIQUE,
    created_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_try_at INTEGER
) STRICT;

CREATE TABLE cards (
    tenant TEXT PRIMARY KEY REFERENCES tenants (pubkey),
    method_id TEXT,
    brand TEXT,
    last4 TEXT,
    exp_month INTEGER,
    exp_year INTEGER,
    -- Since when it is the default: wire time, and billing time.
    since INTEGER,
    billing_since INTEGER,
    wanted_method_id TEXT,
    look_due_at INTEGER,
    look_attempts INTEGER NOT NULL DEFAULT 0,
    look_wishes INTEGER NOT NULL DEFAULT 0,
    -- Billing time.
    warn_at INTEGER
) STRICT;

CREATE TABLE "changes" (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenants (pubkey),
    kind TEXT NOT NULL CHECK (kind IN ('create', 'add', 'add_later', 'upgrade', 'upgrade_later',
        'set', 'reduce', 'cancel', 'cancel_now', 'keep')),
    step TEXT NOT NULL CHECK (step IN ('items', 'invoice', 'done')),
    quantities TEXT NOT NULL,
    relays TEXT NOT NULL,
    items_operation_id TEXT NOT NULL UNIQUE,
    invoice_operation_id TEXT NOT NULL UNIQUE,
    invoice_id TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    done_at INTEGER,
    outcome TEXT,
    proration_at INTEGER,
    begun_at INTEGER
) STRICT;

CREATE TABLE connections (
    id TEXT PRIMARY KEY,
    role TEXT NOT NULL CHECK (role IN ('payee', 'payer')),
    tenant TEXT REFERENCES tenants (pubkey),
    sealed_uri TEXT NOT NULL,
    wallet_pubkey TEXT NOT NULL,
    masked TEXT NOT NULL,
    encryption TEXT,
    state TEXT NOT NULL CHECK (state IN ('probing', 'active', 'replaced', 'off')),
    methods TEXT,
    probed_at INTEGER,
    probe_due_at INTEGER,
    problem TEXT,
    created_at INTEGER NOT NULL,
    ended_at INTEGER,
    CHECK ((role = 'payee') = (tenant IS NULL))
) STRICT;

CREATE TABLE credit_spends (
    id TEXT PRIMARY KEY,
    invoice_id TEXT NOT NULL REFERENCES invoices (id),
    tenant TEXT NOT NULL REFERENCES tenants (pubkey),
    customer_id TEXT NOT NULL,
    amount_minor INTEGER NOT NULL CHECK (amount_minor > 0),
    currency TEXT NOT NULL,
    return_minor INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT 'prepared'
        CHECK (state IN ('prepared', 'debited', 'returning', 'placed', 'returned')),
    created_at INTEGER NOT NULL,
    ended_at INTEGER
) STRICT;

CREATE TABLE cursors (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE dm_inbox (
    event_id TEXT PRIMARY KEY,
    rumor_id TEXT UNIQUE,
    sender TEXT,
    event_json TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    handled_at INTEGER,
    outcome TEXT
) STRICT;

CREATE TABLE dunning_clock (
    id TEXT PRIMARY KEY CHECK (id = 'clock'),
    elapsed_s INTEGER NOT NULL,
    beat_at INTEGER,
    beat_billing_at INTEGER,
    down TEXT NOT NULL DEFAULT '',
    down_since INTEGER,
    paused_at INTEGER,
    paused_why TEXT,
    count_from INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE dunning_windows (
    invoice_id TEXT PRIMARY KEY REFERENCES invoices (id),
    tenant TEXT NOT NULL REFERENCES tenants (pubkey),
    due_at INTEGER NOT NULL,
    opened_at INTEGER NOT NULL,
    day INTEGER,
    message_key TEXT,
    taken_at INTEGER,
    told_at INTEGER,
    told_clock INTEGER,
    extra_s INTEGER NOT NULL DEFAULT 0,
    pause_clock INTEGER,
    pause_s INTEGER NOT NULL DEFAULT 0,
    promised_at INTEGER,
    waits_for TEXT,
    waits_since INTEGER,
    next_look_at INTEGER,
    closed_at INTEGER,
    outcome TEXT CHECK (outcome IN ('paid', 'void', 'gone', 'ended')),
    end_subscription_id TEXT,
    CHECK ((closed_at IS NULL) = (outcome IS NULL))
) STRICT;

CREATE TABLE hosted_relays (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenants (pubkey),
    name TEXT NOT NULL,
    plan TEXT NOT NULL,
    state TEXT NOT NULL
        CHECK (state IN ('pending_payment', 'active', 'limited', 'stopped', 'ended')),
    stops_at INTEGER,
    stop_requested_at INTEGER,
    wanted_rev INTEGER NOT NULL DEFAULT 0,
    applied_rev INTEGER NOT NULL DEFAULT 0,
    sync_due_at INTEGER,
    sync_attempts INTEGER NOT NULL DEFAULT 0,
    sync_error TEXT,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    activated_at INTEGER
, lapses_at INTEGER, resumes INTEGER NOT NULL DEFAULT 0) STRICT;

CREATE TABLE inbox_events (
    event_id TEXT PRIMARY KEY,
    type TEXT NOT NULL,
    object_id TEXT,
    api_created INTEGER NOT NULL,
    livemode INTEGER NOT NULL,
    account TEXT,
    payload TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    handled_at INTEGER,
    state TEXT NOT NULL DEFAULT 'new' CHECK (state IN ('new', 'handled', 'ignored', 'failed')),
    attempts INTEGER NOT NULL DEFAULT 0,
    next_try_at INTEGER,
    error TEXT
) STRICT;

CREATE TABLE invoice_relays (
    invoice_id TEXT NOT NULL,
    relay_id TEXT NOT NULL REFERENCES hosted_relays (id),
    PRIMARY KEY (invoice_id, relay_id)
) STRICT;

CREATE TABLE invoices (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenants (pubkey),
    customer_id TEXT NOT NULL,
    subscription_id TEXT,
    status TEXT NOT NULL,
    currency TEXT NOT NULL,
    total_minor INTEGER NOT NULL,
    amount_due_minor INTEGER NOT NULL,
    amount_remaining_minor INTEGER NOT NULL,
    billing_reason TEXT,
    number TEXT,
    created_at INTEGER NOT NULL,
    period_start INTEGER NOT NULL,
    period_end INTEGER NOT NULL,
    fetched_at INTEGER NOT NULL,
    collect_due_at INTEGER,
    collect_attempts INTEGER NOT NULL DEFAULT 0,
    collect_wishes INTEGER NOT NULL DEFAULT 0,
    nwc_tries INTEGER NOT NULL DEFAULT 0,
    nwc_retry_at INTEGER,
    show_wanted INTEGER NOT NULL DEFAULT 0,
    paid_at INTEGER,
    paid_by TEXT
) STRICT;

CREATE TABLE leases (
    name TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    fence INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

CREATE TABLE ledger (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    entry TEXT NOT NULL,
    line INTEGER NOT NULL,
    at INTEGER NOT NULL,
    billing_at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    tenant TEXT NOT NULL REFERENCES tenants (pubkey),
    invoice_id TEXT,
    payment_hash TEXT,
    debit TEXT NOT NULL,
    credit TEXT NOT NULL,
    unit TEXT NOT NULL,
    amount INTEGER NOT NULL CHECK (amount > 0),
    rate TEXT,
    CHECK (debit <> credit)
) STRICT;

CREATE TABLE operations (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    finished_at INTEGER,
    result TEXT
) STRICT;

CREATE TABLE outbox_messages (
    key TEXT PRIMARY KEY,
    seq INTEGER NOT NULL UNIQUE,
    recipient TEXT NOT NULL,
    kind TEXT NOT NULL,
    facts TEXT NOT NULL,
    request_id TEXT,
    sealed_rumor TEXT,
    state TEXT NOT NULL DEFAULT 'due'
        CHECK (state IN ('due', 'delivered', 'replaced', 'undeliverable')),
    attempts INTEGER NOT NULL DEFAULT 0,
    next_try_at INTEGER,
    created_at INTEGER NOT NULL,
    delivered_at INTEGER,
    answers TEXT
) STRICT;

CREATE TABLE payment_attempts (
    id TEXT PRIMARY KEY,
    invoice_id TEXT NOT NULL REFERENCES invoices (id),
    request_id TEXT REFERENCES payment_requests (id),
    tenant TEXT NOT NULL REFERENCES tenants (pubkey),
    rail TEXT NOT NULL CHECK (rail IN ('nwc', 'card')),
    connection_id TEXT REFERENCES connections (id),
    operation_id TEXT,
    -- M3: one pay request per payment hash, ever.
    payment_hash TEXT UNIQUE,
    event_id TEXT UNIQUE,
    event_json TEXT,
    encryption TEXT,
    expiration INTEGER,
    state TEXT NOT NULL DEFAULT 'prepared'
        CHECK (state IN ('prepared', 'in_flight', 'settled', 'refused', 'dead')),
    fence INTEGER NOT NULL,
    prepared_at INTEGER NOT NULL,
    in_flight_at INTEGER,
    writes INTEGER NOT NULL DEFAULT 0,
    relay_url TEXT,
    outcome TEXT,
    reason TEXT,
    preimage TEXT,
    ended_at INTEGER, payer_asked_at INTEGER,
    -- M1: nothing may be in flight without all that recovery needs.
    CHECK (rail <> 'nwc' OR (request_id IS NOT NULL AND payment_hash IS NOT NULL)),
    CHECK (rail <> 'card' OR operation_id IS NOT NULL)
) STRICT;

CREATE TABLE payment_requests (
    id TEXT PRIMARY KEY,
    invoice_id TEXT NOT NULL REFERENCES invoices (id),
    tenant TEXT NOT NULL REFERENCES tenants (pubkey),
    payee_connection_id TEXT NOT NULL REFERENCES connections (id),
    purpose TEXT NOT NULL CHECK (purpose IN ('automatic', 'shown', 'adopted')),
    payment_hash TEXT NOT NULL UNIQUE,
    bolt11 TEXT NOT NULL,
    amount_msat INTEGER NOT NULL CHECK (amount_msat >= 0),
    amount_minor INTEGER NOT NULL,
    currency TEXT NOT NULL,
    rate TEXT NOT NULL,
    rate_sources TEXT NOT NULL,
    rate_at INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'settled', 'dead')),
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    margin_s INTEGER NOT NULL,
    noted_at INTEGER,
    shown_at INTEGER,
    lookups INTEGER NOT NULL DEFAULT 0,
    unpaid_since INTEGER,
    unpaid_lookups INTEGER NOT NULL DEFAULT 0,
    not_found_lookups INTEGER NOT NULL DEFAULT 0,
    next_lookup_at INTEGER,
    hints INTEGER NOT NULL DEFAULT 0,
    last_lookup_at INTEGER,
    failed_lookups_since INTEGER,
    escalated_at INTEGER,
    claimed_at INTEGER,
    ended_at INTEGER,
    watch_until INTEGER NOT NULL
) STRICT;

CREATE TABLE plan_changes (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenants (pubkey),
    relay_id TEXT NOT NULL REFERENCES hosted_relays (id),
    kind TEXT NOT NULL CHECK (kind IN ('upgrade', 'downgrade')),
    from_plan TEXT NOT NULL,
    to_plan TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('wanted', 'quoted', 'confirmed', 'ordered', 'scheduled',
        'applied', 'undone', 'cancelled', 'replaced', 'expired')),
    code TEXT,
    currency TEXT NOT NULL,
    now_minor INTEGER,
    next_minor INTEGER,
    next_at INTEGER,
    proration_at INTEGER,
    quote_expires_at INTEGER,
    due_until INTEGER,
    invoice_id TEXT,
    applied_rev INTEGER,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_try_at INTEGER,
    created_at INTEGER NOT NULL,
    confirmed_at INTEGER,
    ended_at INTEGER,
    problem TEXT,
    CHECK (state NOT IN ('quoted', 'confirmed', 'ordered', 'scheduled') OR (code IS NOT NULL
        AND now_minor IS NOT NULL AND next_minor IS NOT NULL))
) STRICT;

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

CREATE TABLE rejected_deliveries (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    remote TEXT NOT NULL,
    headers TEXT NOT NULL,
    body_bytes INTEGER NOT NULL
) STRICT;

CREATE TABLE settlements (
    payment_hash TEXT PRIMARY KEY,
    request_id TEXT NOT NULL REFERENCES payment_requests (id),
    tenant TEXT NOT NULL REFERENCES tenants (pubkey),
    invoice_id TEXT NOT NULL,
    amount_msat INTEGER NOT NULL,
    value_minor INTEGER NOT NULL,
    currency TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('received', 'placed', 'credited', 'liability')),
    target_invoice_id TEXT,
    pay_operation_id TEXT,
    credit_operation_id TEXT,
    credit_minor INTEGER NOT NULL DEFAULT 0,
    seen_at INTEGER NOT NULL,
    settled_at INTEGER NOT NULL,
    next_try_at INTEGER,
    attempts INTEGER NOT NULL DEFAULT 0
) STRICT;

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

CREATE TABLE tenants (
    pubkey TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    customer_id TEXT UNIQUE,
    subscription_id TEXT UNIQUE,
    subscription_status TEXT,
    period_end INTEGER,
    legacy_dm INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    sync_due_at INTEGER,
    sync_attempts INTEGER NOT NULL DEFAULT 0,
    sync_wishes INTEGER NOT NULL DEFAULT 0
, ending_subscription_id TEXT, seats TEXT, seen_sweep INTEGER) STRICT;

CREATE TRIGGER dunning_windows_guard BEFORE UPDATE ON dunning_windows
WHEN OLD.closed_at IS NOT NULL AND (NEW.closed_at IS NULL OR NEW.outcome <> OLD.outcome)
    OR NEW.day < OLD.day OR (OLD.day IS NOT NULL AND NEW.day IS NULL)
BEGIN SELECT RAISE(ABORT, 'illegal change of a dunning window'); END;

CREATE TRIGGER ledger_no_delete BEFORE DELETE ON ledger
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;

CREATE TRIGGER ledger_no_update BEFORE UPDATE ON ledger
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;

CREATE TRIGGER payment_attempts_guard BEFORE UPDATE OF state ON payment_attempts
WHEN OLD.state <> NEW.state AND OLD.state || '>' || NEW.state NOT IN (
    'prepared>in_flight', 'prepared>dead', 'in_flight>settled', 'in_flight>refused',
    'in_flight>dead', 'refused>settled', 'dead>settled'
)
BEGIN SELECT RAISE(ABORT, 'illegal transition of a payment attempt'); END;

CREATE TRIGGER payment_requests_guard BEFORE UPDATE OF state ON payment_requests
WHEN OLD.state <> NEW.state AND OLD.state || '>' || NEW.state NOT IN (
    'open>settled', 'open>dead', 'dead>settled'
)
BEGIN SELECT RAISE(ABORT, 'illegal transition of a payment request'); END;

CREATE TRIGGER refunds_guard BEFORE UPDATE OF state ON refunds
WHEN OLD.state <> NEW.state AND OLD.state || '>' || NEW.state NOT IN (
    'pending>in_flight', 'pending>failed', 'in_flight>done', 'in_flight>failed', 'failed>done',
    'done>failed'
)
BEGIN SELECT RAISE(ABORT, 'illegal transition of a refund'); END;

