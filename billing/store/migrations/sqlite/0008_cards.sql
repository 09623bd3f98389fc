-- What a tenant can be charged with at Stripe, as last seen, and the pages asked for to leave a card.

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
CREATE INDEX cards_look_due ON cards (look_due_at) WHERE look_due_at IS NOT NULL;
CREATE INDEX cards_warn_at ON cards (warn_at) WHERE warn_at IS NOT NULL;

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
-- One at a time: asking twice gives one page.
CREATE UNIQUE INDEX card_pages_one_wanted ON card_pages (tenant) WHERE state = 'wanted';
CREATE INDEX card_pages_due ON card_pages (next_try_at) WHERE next_try_at IS NOT NULL;
